// Whether the bound that predictor/gate_selector.h states for what is left out
// of an FFN holds on a text, and how far above the true error it is.
//
//   error_bound [--max_tokens=N] MODEL TEXT FRACTION...
//
// MODEL: a model file, calibrated or not. TEXT: is run through the dense model
// in windows of 256 positions, BOS first, which counts as a token here.
// FRACTION: of each layer's neurons, how many are kept; with ReLU models also
// 0, those with a gate above 0. --max_tokens: of the text; all without it.
//
// Prints a row for each fraction. Exit status: 1 if a bound was below the
// error, 2 for a wrong call, a file that cannot be read or a failed run.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bench/ffn_error.h"
#include "core/base/cancel.h"
#include "core/base/processors.h"
#include "core/calibrate.h"
#include "core/engine.h"
#include "core/model_file.h"
#include "core/session.h"
#include "core/text_file.h"

namespace flashelm::bench {
namespace {

constexpr uint32_t kContext = 256;
constexpr uint64_t kMaxTextBytes = uint64_t{256} << 20;

struct Call {
  std::string model;
  std::string text;
  std::vector<double> kept_fractions;
  size_t max_tokens = 0;  // 0: all.
};

// Whether the whole of `text` is a number.
bool ParseNumber(const std::string& text, double* number) {
  char* end = nullptr;
  *number = std::strtod(text.c_str(), &end);
  return !text.empty() && *end == '\0';
}

Result<Call> ParseCall(std::span<char* const> args) {
  constexpr std::string_view kMaxTokens = "--max_tokens=";
  Call call;
  int num_names = 0;
  for (const std::string arg : args) {
    double number = 0;
    if (arg.starts_with(kMaxTokens)) {
      if (!ParseNumber(arg.substr(kMaxTokens.size()), &number) ||
          !(number >= 1 && number <= UINT32_MAX)) {
        return InvalidArgument(arg, ": expected a number of at least 1");
      }
      call.max_tokens = static_cast<size_t>(number);
    } else if (arg.starts_with("--")) {
      return InvalidArgument(arg, ": no such flag");
    } else if (num_names < 2) {
      (num_names++ == 0 ? call.model : call.text) = arg;
    } else if (ParseNumber(arg, &number)) {
      call.kept_fractions.push_back(number);
    } else {
      return InvalidArgument(arg, ": expected a part of the neurons, 0 to 1");
    }
  }
  if (call.kept_fractions.empty()) {
    return InvalidArgument(
        "usage: error_bound [--max_tokens=N] MODEL TEXT FRACTION...");
  }
  return call;
}

Result<std::unique_ptr<FfnErrorRecorder>> Measure(const Call& call) {
  FLASHELM_ASSIGN_OR_RETURN(ModelFile model, ModelFile::Open(call.model));
  FLASHELM_ASSIGN_OR_RETURN(const std::string text,
                            ReadTextFile(call.text, kMaxTextBytes));
  std::vector<TokenId> tokens =
      model.tokenizer().Encode(text, /*add_bos=*/false);
  if (call.max_tokens > 0 && tokens.size() > call.max_tokens) {
    tokens.resize(call.max_tokens);
  }
  FLASHELM_ASSIGN_OR_RETURN(
      std::unique_ptr<FfnErrorRecorder> recorder,
      FfnErrorRecorder::Create(model, call.kept_fractions));
  EngineOptions options;
  options.plan.context = std::min(kContext, model.config().max_context);
  options.plan.num_threads = FindUsableProcessors().num_cores;
  FLASHELM_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine,
                            Engine::Create(std::move(model), options));
  FLASHELM_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                            Session::Create(*engine));
  FfnObserver* const observers[] = {recorder.get()};
  FLASHELM_RETURN_IF_ERROR(
      RecordActivations(*session, tokens, engine->config().bos_id,
                        options.plan.context, CancelToken(), {}, observers));
  return recorder;
}

// The value that the part `part` of the others is not above. Not of none.
double Quantile(std::vector<double>& values, double part) {
  const auto at = static_cast<ptrdiff_t>(
      std::lround(part * static_cast<double>(values.size() - 1)));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<size_t>(at)];
}

// Returns the number of violations.
size_t PrintRow(double kept_fraction, std::span<const FfnError> errors) {
  size_t num_violations = 0;
  double largest = 0;
  // Where something was left out that is not 0.
  std::vector<double> ratios;
  std::vector<double> parts;
  for (const FfnError& e : errors) {
    num_violations += e.is_violation() ? 1 : 0;
    largest = std::max(largest, e.bound);
    if (e.error > 0) ratios.push_back(e.bound / e.error);
    if (e.output > 0) parts.push_back(e.error / e.output);
  }
  const auto quantile = [](std::vector<double>& values, double part) {
    if (values.empty()) return std::string("-");
    char text[32];
    std::snprintf(text, sizeof(text), "%.4g", Quantile(values, part));
    return std::string(text);
  };
  std::printf("| %g | %zu | %zu | %s | %s | %s | %.4g | %s |\n", kept_fraction,
              errors.size(), num_violations, quantile(ratios, 0.5).c_str(),
              quantile(ratios, 0.05).c_str(), quantile(ratios, 0.95).c_str(),
              largest, quantile(parts, 0.5).c_str());
  return num_violations;
}

int Main(std::span<char* const> args) {
  const auto fail = [](const Status& error) {
    std::fprintf(stderr, "error_bound: %s\n", error.message().c_str());
    return 2;
  };
  const auto call = ParseCall(args);
  if (!call) return fail(call.error());
  const auto recorder = Measure(*call);
  if (!recorder) return fail(recorder.error());
  std::printf(
      "| kept | tokens x layers | violations | bound / error, median | 5 %% | "
      "95 %% | largest bound | error / output, median |\n"
      "|---:|---:|---:|---:|---:|---:|---:|---:|\n");
  size_t num_violations = 0;
  for (size_t i = 0; i < call->kept_fractions.size(); ++i) {
    num_violations += PrintRow(call->kept_fractions[i], (*recorder)->errors(i));
  }
  return num_violations == 0 ? 0 : 1;
}

}  // namespace
}  // namespace flashelm::bench

int main(int argc, char** argv) {
  return flashelm::bench::Main(
      std::span(argv, static_cast<size_t>(argc)).subspan(1));
}
