#include "cli/engine_setup.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>

#include "core/base/process_memory.h"
#include "core/base/thread.h"
#include "core/text_file.h"

namespace flashelm::cli {
namespace {

// A number without sign, exponent or blanks around it: digits with at most one
// point among them. Returns what follows it, or nothing when there is none.
std::optional<std::string_view> ParseNumber(std::string_view text,
                                            double& value) {
  const auto [end, error] = std::from_chars(
      text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (error != std::errc() || text.front() == '-' || !std::isfinite(value)) {
    return std::nullopt;
  }
  return text.substr(static_cast<size_t>(end - text.data()));
}

Result<std::string> ReadStandardInput() {
  std::string text;
  char buffer[16384];
  while (true) {
    const ssize_t got = read(STDIN_FILENO, buffer, sizeof(buffer));
    if (got < 0) {
      if (errno == EINTR) continue;
      const int error = errno;
      return ErrnoStatus(error, "cannot read standard input");
    }
    if (got == 0) return text;
    text.append(buffer, static_cast<size_t>(got));
    if (text.size() > kMaxTextBytes) {
      return DataLoss("standard input has more than ", kMaxTextBytes, " bytes");
    }
  }
}

}  // namespace

Result<uint64_t> ParseSize(std::string_view text, std::string_view flag) {
  double value = 0;
  const auto unit = ParseNumber(text, value);
  double factor = 1;
  if (unit && unit->size() == 1) {
    switch (unit->front()) {
      case 'K':
      case 'k':
        factor = 0x1p10;
        break;
      case 'M':
      case 'm':
        factor = 0x1p20;
        break;
      case 'G':
      case 'g':
        factor = 0x1p30;
        break;
      default:
        factor = 0;
    }
  }
  const double bytes = value * factor;
  if (!unit || unit->size() > 1 || factor == 0 || bytes >= 0x1p63) {
    return InvalidArgument(flag, ": \"", text,
                           "\" is not a size; expected a number of bytes, or "
                           "one with K, M or G, such as 900M or 1.5G");
  }
  return static_cast<uint64_t>(bytes);
}

Result<uint64_t> ResolveBudget(std::string_view text, uint64_t file_bytes) {
  if (text == "auto") {
    const auto available = AvailableMemoryBytes();
    if (!available) return kUnlimitedBytes;
    const uint64_t reserve =
        std::max<uint64_t>(*available / 10, uint64_t{64} << 20);
    return *available > reserve ? *available - reserve : 0;
  }
  if (!text.empty() && text.back() == '%') {
    double percent = 0;
    const auto rest = ParseNumber(text.substr(0, text.size() - 1), percent);
    if (!rest || !rest->empty() || percent > 1e6) {
      return InvalidArgument("--mem-budget: \"", text,
                             "\" is not a percentage of the model file");
    }
    return static_cast<uint64_t>(percent / 100 *
                                 static_cast<double>(file_bytes));
  }
  return ParseSize(text, "--mem-budget");
}

Result<std::string> ReadText(const TextArgs& args) {
  if (!args.file.empty()) {
    return args.file == "-" ? ReadStandardInput() : ReadTextFile(args.file);
  }
  if (!args.has_prompt) {
    return InvalidArgument("no prompt: give one with -p TEXT or -f FILE");
  }
  return args.prompt == "-" ? ReadStandardInput()
                            : Result<std::string>(args.prompt);
}

Result<std::unique_ptr<Engine>> LoadEngine(ModelFile model,
                                           const EngineArgs& args,
                                           const EngineNeeds& needs,
                                           const CancelToken& cancel) {
  EngineOptions options;
  FLASHELM_ASSIGN_OR_RETURN(options.plan.budget_bytes,
                            ResolveBudget(args.mem_budget, model.file_bytes()));
  options.plan.context = args.context;
  options.plan.max_batch = args.batch;
  options.plan.all_logits = needs.all_logits;
  options.plan.caller_bytes = needs.caller_bytes;
  options.plan.kv_type = args.kv_type == "bf16" ? KvType::kBf16 : KvType::kF32;
  options.plan.num_threads =
      args.threads == 0 ? NumUsableProcessors() : args.threads;
  options.cancel = &cancel;
  ProgressBar bar;
  options.progress = [&bar](uint64_t done, uint64_t total) {
    bar.Show("loading", done, total);
  };
  return Engine::Create(std::move(model), options);
}

}  // namespace flashelm::cli
