#include "cli/engine_setup.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <optional>
#include <utility>

#include "core/base/process_memory.h"
#include "core/base/processors.h"
#include "core/neuron_selector.h"
#include "core/simd.h"
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

Result<Text> ReadStandardInput(uint64_t max_bytes, const CancelToken& cancel) {
  Text text;
  char buffer[16384];
  while (!cancel.IsCancelled()) {
    const ssize_t got = read(STDIN_FILENO, buffer, sizeof(buffer));
    if (got < 0) {
      if (errno == EINTR) continue;  // The token says whether to stop.
      const int error = errno;
      return ErrnoStatus(error, "cannot read standard input");
    }
    if (got == 0) {
      // A string that grows holds the old half and the new whole at once.
      text.peak_bytes = text.bytes.capacity() + text.bytes.capacity() / 2;
      return text;
    }
    if (static_cast<uint64_t>(got) > max_bytes - text.bytes.size()) {
      return InvalidArgument("standard input has more than ", max_bytes,
                             " bytes");
    }
    text.bytes.append(buffer, static_cast<size_t>(got));
  }
  return Cancelled("stopped while reading standard input");
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

Result<SparsityOptions> ParseSparsity(std::string_view text,
                                      double max_skipped) {
  SparsityOptions options;
  if (max_skipped > 0 && text != "gate") {
    return InvalidArgument("--max-skipped: needs --sparsity gate, found \"",
                           text, "\"");
  }
  options.max_skipped = max_skipped;
  if (text == "off" || text == "auto") return options;
  const size_t colon = text.find(':');
  for (const Selector selector :
       {Selector::kGate, Selector::kLowRank, Selector::kLowBit,
        Selector::kRandom, Selector::kMagnitude}) {
    if (text.substr(0, colon) == SelectorName(selector)) {
      options.selector = selector;
    }
  }
  if (!options.is_on()) {
    return InvalidArgument(
        "--sparsity: \"", text,
        "\" is no selector; there are off, auto, gate, low-rank, low-bit, "
        "random and magnitude, all but the first two also with a part of the "
        "neurons, such as gate:0.5");
  }
  if (colon != std::string_view::npos) {
    const auto rest =
        ParseNumber(text.substr(colon + 1), options.kept_fraction);
    if (!rest || !rest->empty() || options.kept_fraction <= 0 ||
        options.kept_fraction > 1) {
      return InvalidArgument("--sparsity: \"", text.substr(colon + 1),
                             "\" is no part of the neurons; expected a number "
                             "above 0, at most 1");
    }
  }
  return options;
}

Result<SparsityOptions> ResolveSparsity(std::string_view text,
                                        double max_skipped,
                                        const ModelFile& model) {
  FLASHELM_ASSIGN_OR_RETURN(SparsityOptions options,
                            ParseSparsity(text, max_skipped));
  // Only where neurons that are left out are exactly 0.
  if (text == "auto" && model.has_neuron_stats() && model.has_split_gates() &&
      model.config().activation == "relu") {
    options.selector = Selector::kGate;
  }
  if (text != "auto" && options.is_on()) {
    FLASHELM_RETURN_IF_ERROR(NeuronSelector::Check(model, options));
  }
  return options;
}

Result<IoBackend> ParseIo(std::string_view text, std::string_view flag) {
  if (text == "auto") return IoBackend::kAuto;
  if (text == "uring") return IoBackend::kUring;
  if (text == "pread") return IoBackend::kPread;
  if (text == "mmap") return IoBackend::kMmap;
  return InvalidArgument(flag, ": \"", text,
                         "\" is no way to read; there are auto, uring, pread "
                         "and mmap");
}

std::string_view IoName(IoBackend io) {
  switch (io) {
    case IoBackend::kAuto:
      return "auto";
    case IoBackend::kUring:
      return "uring";
    case IoBackend::kPread:
      return "pread";
    case IoBackend::kMmap:
      break;
  }
  return "mmap";
}

Status CheckIo(const EngineArgs& args) {
  FLASHELM_ASSIGN_OR_RETURN(const IoBackend io, ParseIo(args.io, "--io"));
  if (io == IoBackend::kMmap && !args.allow_unenforced) {
    return InvalidArgument(
        "--io mmap: the system keeps mapped weights in RAM or drops them as it "
        "likes, so no memory budget can be held; it is the baseline to measure "
        "against. Add --allow-unenforced to run it all the same, or take "
        "uring, pread or auto, which hold the budget");
  }
  if (io == IoBackend::kMmap && !args.device_profile.empty()) {
    return InvalidArgument(
        "--device-profile: with --io mmap the system chooses how to read");
  }
  if (io != IoBackend::kMmap && args.allow_unenforced) {
    return InvalidArgument("--allow-unenforced: with --io ", args.io,
                           " the budget is held; the flag is for mmap alone");
  }
  return OkStatus();
}

Status CheckNeuronFlags(const EngineArgs& args, bool is_sparse) {
  const bool is_streamed = args.neuron_reads == "streamed";
  if (!is_sparse && args.neuron_reads != "auto") {
    return InvalidArgument("--neuron-reads ", args.neuron_reads,
                           ": with --sparsity ", args.sparsity,
                           " all neurons of this model are computed, and read "
                           "in order");
  }
  if ((is_sparse && !is_streamed) || args.window == UINT32_MAX) {
    return OkStatus();
  }
  return InvalidArgument(
      "--window ", args.window, ": no neurons are read one by one with ",
      is_sparse ? "--neuron-reads streamed" : "--sparsity ",
      is_sparse ? "" : args.sparsity, ", so there are none to keep");
}

Status UseSimd(std::string_view name) {
  std::string upper(name);
  for (char& c : upper) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  // Asked twice, as by bench for each row, the first answer is the only target.
  if (upper == "AUTO" || (!upper.empty() && UseSimdTarget(upper))) {
    return OkStatus();
  }
  std::string targets;
  for (const std::string_view target : SimdTargets()) {
    targets.append(" ").append(target);
  }
  return InvalidArgument("--simd: \"", name,
                         "\" is no target of this machine; there are auto",
                         targets);
}

Result<Text> ReadText(const TextArgs& args, uint64_t max_bytes,
                      const CancelToken& cancel) {
  const std::string& name = args.file.empty() ? args.prompt : args.file;
  if (name == "-") return ReadStandardInput(max_bytes, cancel);
  Text text;
  if (!args.file.empty()) {
    FLASHELM_ASSIGN_OR_RETURN(text.bytes, ReadTextFile(args.file, max_bytes));
    text.peak_bytes = text.bytes.size();
    return text;
  }
  if (!args.has_prompt) {
    return InvalidArgument("no prompt: give one with -p TEXT or -f FILE");
  }
  if (args.prompt.size() > max_bytes) {
    return InvalidArgument("the prompt has ", args.prompt.size(),
                           " bytes, expected at most ", max_bytes);
  }
  text.bytes = args.prompt;
  text.peak_bytes = kArgumentCopies * text.bytes.size();
  return text;
}

uint32_t ContextOf(const EngineArgs& args, const ModelConfig& config) {
  return args.context == 0 ? config.max_context
                           : std::min(args.context, config.max_context);
}

uint64_t MaxTextBytes(const Tokenizer& tokenizer, uint64_t num_tokens) {
  return num_tokens * tokenizer.longest_piece_bytes();
}

Result<EngineSetup> SetUpEngine(const ModelFile& model, const EngineArgs& args,
                                const EngineNeeds& needs) {
  FLASHELM_RETURN_IF_ERROR(CheckIo(args));
  FLASHELM_RETURN_IF_ERROR(UseSimd(args.simd));
  EngineSetup setup;
  PlanOptions& plan = setup.options.plan;
  FLASHELM_ASSIGN_OR_RETURN(plan.budget_bytes,
                            ResolveBudget(args.mem_budget, model.file_bytes()));
  FLASHELM_ASSIGN_OR_RETURN(plan.io, ParseIo(args.io, "--io"));
  plan.context = args.context;
  plan.max_batch = args.batch;
  plan.all_logits = needs.all_logits;
  // Lists of which tokens a call wants logits of.
  const uint64_t max_context = model.config().max_context;
  plan.caller_bytes =
      needs.caller_bytes +
      2 * sizeof(uint32_t) *
          (std::min<uint64_t>(args.batch, max_context) + max_context);
  FLASHELM_ASSIGN_OR_RETURN(
      plan.sparsity, ResolveSparsity(args.sparsity, args.max_skipped, model));
  FLASHELM_RETURN_IF_ERROR(CheckNeuronFlags(args, plan.sparsity.is_on()));
  plan.sparsity.window_tokens = args.window;
  plan.sparsity.merges_reads = args.merges_reads;
  plan.sparsity.reads = args.neuron_reads == "single" ? NeuronReads::kSingle
                        : args.neuron_reads == "streamed"
                            ? NeuronReads::kStreamed
                            : NeuronReads::kAuto;
  plan.pins_weights = args.pins_weights;
  plan.kv_type = args.kv_type == "bf16" ? KvType::kBf16 : KvType::kF32;
  plan.num_threads =
      args.threads == 0
          ? std::min(kMaxThreads, FindUsableProcessors().num_cores)
          : args.threads;
  setup.options.max_trace_sweeps = needs.max_trace_sweeps;
  if (args.device_profile.empty()) {
    if (needs.measures != nullptr && plan.sparsity.is_on() &&
        plan.sparsity.reads != NeuronReads::kStreamed &&
        plan.io != IoBackend::kMmap) {
      // Before anything else is taken, of whatever the smallest budgets allow.
      // A device that cannot be read fails again where that matters.
      const uint64_t max_bytes =
          std::min(plan.budget_bytes / 16, uint64_t{4} << 20);
      const auto cost =
          MeasureReadCost(model, plan.io, max_bytes, *needs.measures);
      if (cost && *cost) plan.read_cost = **cost;
    }
    return setup;
  }

  FLASHELM_ASSIGN_OR_RETURN(const uint64_t profile_bytes,
                            DeviceProfileMemory(args.device_profile));
  FLASHELM_ASSIGN_OR_RETURN(DeviceProfile profile,
                            ReadDeviceProfile(args.device_profile));
  const uint64_t device_id = DeviceId(model.weight_file().file());
  if (profile.device_id != 0 && device_id != 0 &&
      profile.device_id != device_id) {
    std::fprintf(stderr,
                 "flashelm: %s was measured on another device than that of "
                 "%s, with %s; it is used nevertheless\n",
                 args.device_profile.c_str(), model.path().c_str(),
                 profile.path.c_str());
  }
  plan.caller_bytes += profile_bytes;
  setup.rate = FastestRate(profile, plan.io, UINT64_MAX);
  if (!setup.rate) {
    return InvalidArgument(
        args.device_profile, ": nothing was measured for --io ", args.io,
        profile.uring_refusal.empty() ? "" : ": ", profile.uring_refusal);
  }
  const IoBackend backend = setup.rate->backend;
  if (const auto cost = FitReadCost(profile, backend)) {
    plan.read_cost = *cost;
  } else {
    plan.read_cost.sequential_bytes_per_ns =
        static_cast<double>(setup.rate->bytes_per_second) * 1e-9;
  }
  if (backend == IoBackend::kPread) plan.io = backend;
  // Requests are no larger than the slots that they go to, which follow from
  // the budget; what is fastest for large ones may be slow for those. A plan
  // that fails here fails again where it is needed, with its message.
  if (const auto planned = MakePlan(model, plan)) {
    if (const auto best =
            FastestRate(profile, backend, planned->residency.slot_bytes)) {
      setup.options.read_shape = best->shape;
      if (backend == IoBackend::kPread) {
        plan.num_io_threads = best->shape.queue_depth;
      }
    }
  }
  setup.measured_path = profile.path;
  setup.profile = std::move(profile);
  return setup;
}

Status ShareBudget(const ModelFile& first_model, EngineOptions& first,
                   const ModelFile& second_model, EngineOptions& second) {
  const uint64_t budget = first.plan.budget_bytes;
  // The process is in one of the plans.
  second.plan.whole_process = false;
  first.plan.budget_bytes = second.plan.budget_bytes = kUnlimitedBytes;
  FLASHELM_ASSIGN_OR_RETURN(const MemoryPlan first_plan,
                            MakePlan(first_model, first.plan));
  FLASHELM_ASSIGN_OR_RETURN(const MemoryPlan second_plan,
                            MakePlan(second_model, second.plan));
  const uint64_t least = first_plan.minimum_bytes + second_plan.minimum_bytes;
  if (budget < least) {
    return BudgetInfeasible("a memory budget of ", budget, " bytes (",
                            FormatBytes(budget), ") is too small for ",
                            first_model.path(), " and ", second_model.path(),
                            " at once: the smallest feasible one is ", least,
                            " bytes (", FormatBytes(least), ")");
  }
  const double part =
      static_cast<double>(first_plan.weight_bytes) /
      static_cast<double>(first_plan.weight_bytes + second_plan.weight_bytes);
  const auto more =
      static_cast<uint64_t>(part * static_cast<double>(budget - least));
  first.plan.budget_bytes =
      first_plan.minimum_bytes + std::min(more, budget - least);
  second.plan.budget_bytes = budget - first.plan.budget_bytes;
  return OkStatus();
}

Result<std::unique_ptr<Engine>> LoadEngine(ModelFile model,
                                           EngineOptions options,
                                           const CancelToken& cancel) {
  options.cancel = &cancel;
  ProgressBar bar;
  options.progress = [&bar](uint64_t done, uint64_t total) {
    bar.Show("loading", done, total);
  };
  return Engine::Create(std::move(model), options);
}

Result<std::unique_ptr<Engine>> LoadEngine(ModelFile model,
                                           const EngineArgs& args,
                                           const EngineNeeds& needs,
                                           const CancelToken& cancel) {
  EngineNeeds measuring = needs;
  measuring.measures = &cancel;
  FLASHELM_ASSIGN_OR_RETURN(EngineSetup setup,
                            SetUpEngine(model, args, measuring));
  return LoadEngine(std::move(model), std::move(setup.options), cancel);
}

}  // namespace flashelm::cli
