// From flags to a loaded engine.
#ifndef FLASHELM_CLI_ENGINE_SETUP_H_
#define FLASHELM_CLI_ENGINE_SETUP_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "cli/terminal.h"
#include "cli/verbs.h"
#include "core/device.h"
#include "core/engine.h"
#include "core/model_file.h"

namespace flashelm::cli {

// "900M", "1.5G", "4096": bytes. kInvalidArgument, naming `flag`: anything
// else, negative numbers among it.
Result<uint64_t> ParseSize(std::string_view text, std::string_view flag);

// What --mem-budget means for a model file of that size: a size, "40%" of the
// file, or "auto".
Result<uint64_t> ResolveBudget(std::string_view text, uint64_t file_bytes);

// What --sparsity and --max-skipped (0: not given) say, whatever the model;
// "auto" is kOff here. kInvalidArgument: no selector, or no part of the
// neurons.
Result<SparsityOptions> ParseSparsity(std::string_view text,
                                      double max_skipped);

// What --sparsity and --max-skipped (0: not given) mean for a model: "off",
// "auto", a selector, as "gate", or
// that with a part of the neurons, as "gate:0.5". kInvalidArgument: anything
// else, or what NeuronSelector::Check() refuses. Other errors as that.
Result<SparsityOptions> ResolveSparsity(std::string_view text,
                                        double max_skipped,
                                        const ModelFile& model);

// "auto", "uring", "pread", "mmap"; `flag` begins the message of
// kInvalidArgument.
Result<IoBackend> ParseIo(std::string_view text, std::string_view flag);
std::string_view IoName(IoBackend io);

// kInvalidArgument: mmap without --allow-unenforced, or that flag where the
// budget is held anyway.
Status CheckIo(const EngineArgs& args);

// kInvalidArgument: --window or --neuron-reads where they would change nothing:
// without sparsity, and the former where --neuron-reads streams all neurons.
// `is_sparse`: whether --sparsity came to a selector.
Status CheckNeuronFlags(const EngineArgs& args, bool is_sparse);

// Makes the kernels of this process use the SIMD target of that name, in either
// case, "auto" for the best. kInvalidArgument: it is unknown, or not for this
// machine; the message lists those that are.
Status UseSimd(std::string_view name);

// A text, and the most memory that it took on its way here.
struct Text {
  std::string bytes;
  uint64_t peak_bytes = 0;
};

// A prompt from the command line stands there, in the parser's hands three
// times, and in the text that is used.
inline constexpr uint64_t kArgumentCopies = 5;

// The text that -p or -f names, standard input included. kInvalidArgument: more
// than `max_bytes`; no more than that is read. kCancelled: as asked.
Result<Text> ReadText(const TextArgs& args, uint64_t max_bytes,
                      const CancelToken& cancel);

// Positions that --ctx-size asks for, as far as the model has them; the plan
// refuses more.
uint32_t ContextOf(const EngineArgs& args, const ModelConfig& config);

// The most bytes of text that can be `num_tokens` tokens: what is longer need
// not be read to know that it does not fit.
uint64_t MaxTextBytes(const Tokenizer& tokenizer, uint64_t num_tokens);

// What a verb adds to the plan.
struct EngineNeeds {
  bool all_logits = false;
  uint64_t caller_bytes = 0;
  uint64_t max_trace_sweeps = 0;
  // Stops measuring what reads of single neurons cost, for as long as
  // MeasureReadCost() takes, where the flags leave that open. Null: nothing is
  // measured, for those who only look at the flags.
  const CancelToken* measures = nullptr;
};

// What the flags mean for this model: plan and reader.
struct EngineSetup {
  EngineOptions options;
  // The best that --device-profile knows, and the file it was measured on.
  std::optional<DeviceRate> rate;
  std::string measured_path;
  std::optional<DeviceProfile> profile;  // All that it knows.
};
// Also makes the kernels use what --simd names. Errors as CheckIo(),
// CheckNeuronFlags(), UseSimd(), ParseSize(), ReadDeviceProfile().
// kInvalidArgument also: a profile without the reader that --io names.
Result<EngineSetup> SetUpEngine(const ModelFile& model, const EngineArgs& args,
                                const EngineNeeds& needs);

// Two engines within one budget, that of `first`: each gets what it needs at
// least, and the rest is shared in proportion to their weights. The process is
// in the first one's plan, so that engine is to be made first.
// kBudgetInfeasible: with the smallest budget for both.
Status ShareBudget(const ModelFile& first_model, EngineOptions& first,
                   const ModelFile& second_model, EngineOptions& second);

// Loads what was set up, with a progress bar.
Result<std::unique_ptr<Engine>> LoadEngine(ModelFile model,
                                           EngineOptions options,
                                           const CancelToken& cancel);

// Plans and loads, with a progress bar.
Result<std::unique_ptr<Engine>> LoadEngine(ModelFile model,
                                           const EngineArgs& args,
                                           const EngineNeeds& needs,
                                           const CancelToken& cancel);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_ENGINE_SETUP_H_
