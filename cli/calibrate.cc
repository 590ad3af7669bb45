#include "core/calibrate.h"

#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

#include "cli/engine_setup.h"
#include "cli/verbs.h"
#include "core/convert/calibrated_file.h"
#include "core/text_file.h"

namespace flashelm::cli {
namespace {

constexpr uint64_t kMaxTextBytes = uint64_t{256} << 20;

NeuronOrder OrderOf(const std::string& name) {
  if (name == "file") return NeuronOrder::kFile;
  return name == "frequency" ? NeuronOrder::kFrequency
                             : NeuronOrder::kCoActivation;
}

struct Learned {
  std::vector<std::vector<uint32_t>> order;  // Per layer.
  std::vector<std::vector<float>> frequency;
  std::vector<LayerActivity> activity;
  uint64_t num_tokens = 0;
};

// Takes the engine's memory only as long as the model runs.
Result<Learned> Learn(const CalibrateArgs& args, ModelFile model,
                      const CancelToken& cancel) {
  TextArgs source;
  source.file = args.file;
  FLASHELM_ASSIGN_OR_RETURN(const Text text,
                            ReadText(source, kMaxTextBytes, cancel));
  std::vector<TokenId> tokens =
      model.tokenizer().Encode(text.bytes, /*add_bos=*/false);
  if (tokens.empty()) {
    return InvalidArgument(args.file, ": the text has no tokens");
  }
  if (args.max_tokens > 0 && tokens.size() > args.max_tokens) {
    tokens.resize(args.max_tokens);
  }
  EngineNeeds needs;
  needs.caller_bytes = text.peak_bytes +
                       model.tokenizer().EncodeScratchBytes(text.bytes) +
                       tokens.capacity() * sizeof(TokenId) +
                       ActivationRecorder::NumBytes(model.config());
  EngineArgs engine_args = args.engine;
  engine_args.context = args.n_ctx;
  FLASHELM_ASSIGN_OR_RETURN(
      const std::unique_ptr<Engine> engine,
      LoadEngine(std::move(model), engine_args, needs, cancel));
  FLASHELM_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                            Session::Create(*engine));
  const ModelConfig& config = engine->config();
  // Charged to the engine's plan, as what its caller takes.
  MemoryBudget budget(ActivationRecorder::NumBytes(config));
  FLASHELM_ASSIGN_OR_RETURN(
      const auto recorder,
      ActivationRecorder::Create(config, tokens.size(), budget));
  ProgressBar bar;
  FLASHELM_RETURN_IF_ERROR(RecordActivations(
      *session, tokens, config.bos_id, args.n_ctx, cancel,
      [&](uint64_t done) { bar.Show("running", done, tokens.size()); },
      *recorder));
  Learned learned;
  learned.num_tokens = recorder->num_tokens();
  for (uint32_t i = 0; i < config.num_layers(); ++i) {
    if (cancel.IsCancelled()) return Cancelled("stopped before layer ", i);
    bar.Show("ordering", i, config.num_layers());
    learned.order.push_back(OrderNeurons(*recorder, i, OrderOf(args.order)));
    std::vector<float>& frequency = learned.frequency.emplace_back();
    for (const uint32_t count : recorder->counts(i)) {
      frequency.push_back(static_cast<float>(count) /
                          static_cast<float>(learned.num_tokens));
    }
    learned.activity.push_back(ActivityOf(*recorder, i, learned.order.back()));
  }
  return learned;
}

void Print(const Learned& learned, const ModelConfig& config) {
  std::printf("| layer | neurons | active | run before | run after |\n");
  std::printf("|---:|---:|---:|---:|---:|\n");
  for (size_t i = 0; i < learned.activity.size(); ++i) {
    const LayerActivity& layer = learned.activity[i];
    std::printf("| %zu | %u | %.1f %% | %.2f | %.2f |\n", i,
                config.layers[i].ffn_dim, 100 * layer.active_fraction,
                layer.run_length_before, layer.run_length_after);
  }
}

}  // namespace

Status RunCalibrate(const CalibrateArgs& args) {
  FLASHELM_RETURN_IF_ERROR(CheckIo(args.engine));
  FLASHELM_RETURN_IF_ERROR(
      CheckOutputPath(args.output, {args.engine.model, args.file}));
  const CancelToken& cancel = InterruptToken();
  FLASHELM_ASSIGN_OR_RETURN(ModelFile model,
                            ModelFile::Open(args.engine.model));
  if (model.has_neuron_stats()) {
    return InvalidArgument(args.engine.model,
                           ": calibrated already; calibrate the file that "
                           "convert wrote");
  }
  FLASHELM_ASSIGN_OR_RETURN(Learned learned,
                            Learn(args, std::move(model), cancel));
  FLASHELM_ASSIGN_OR_RETURN(const ModelFile source,
                            ModelFile::Open(args.engine.model));
  CalibratedFileOptions options;
  options.split_gate = true;
  options.neuron_order = learned.order;
  options.frequency = learned.frequency;
  options.calibration = Json::object();
  options.calibration["selector"] = "gate";
  options.calibration["order"] = args.order;
  options.calibration["n_tokens"] = learned.num_tokens;
  options.cancel = &cancel;
  ProgressBar bar;
  options.progress = [&](uint64_t done, uint64_t total) {
    bar.Show("writing", done, total);
  };
  const auto written = WriteCalibratedFile(source, args.output, options);
  bar.Clear();
  if (!written) return written.error();
  Print(learned, source.config());
  std::fprintf(stderr, "%s: calibrated on %llu tokens, %s\n",
               args.output.c_str(),
               static_cast<unsigned long long>(learned.num_tokens),
               FormatBytes(*written).c_str());
  return OkStatus();
}

}  // namespace flashelm::cli
