#include "core/calibrate.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

#include "cli/calibrate_report.h"
#include "cli/engine_setup.h"
#include "cli/verbs.h"
#include "core/activation_spool.h"
#include "core/base/process_memory.h"
#include "core/convert/calibrated_file.h"
#include "core/record_reader.h"
#include "core/text_file.h"
#include "core/train_predictor.h"

namespace flashelm::cli {
namespace {

constexpr uint64_t kMaxTextBytes = uint64_t{256} << 20;
constexpr double kDefaultKept = 0.5;
// Code and heap beside what is counted, and what the system has for it.
constexpr uint64_t kUncountedBytes = uint64_t{2} << 20;
// With fewer bytes of blocks, the model is read too often.
constexpr uint64_t kMinBlockBytes = uint64_t{1} << 20;

NeuronOrder OrderOf(const std::string& name) {
  if (name == "file") return NeuronOrder::kFile;
  return name == "frequency" ? NeuronOrder::kFrequency
                             : NeuronOrder::kCoActivation;
}

bool HasPredictor(const CalibrateArgs& args) { return args.selector != "gate"; }

// kInvalidArgument: a flag of another selector, or a flag or a selector of
// other models.
Status CheckFlags(const CalibrateArgs& args, const ModelFile& model) {
  const bool is_low_bit = args.selector == "low-bit";
  const bool is_low_rank = args.selector == "low-rank";
  const bool is_either = is_low_bit || is_low_rank;
  const struct {
    bool is_given;
    bool is_right;
    const char* flag;
    const char* selectors;
  } flags[] = {
      {args.bits.has_value(), is_low_bit, "--bits", "low-bit"},
      {args.rank.has_value(), is_low_rank, "--rank", "low-rank"},
      {args.max_predictor_percent.has_value(), is_low_rank,
       "--max-predictor-bytes", "low-rank"},
      {args.epochs.has_value(), is_low_rank, "--epochs", "low-rank"},
      {args.seed.has_value(), is_low_rank, "--seed", "low-rank"},
      {args.recall.has_value(), is_either, "--recall", "low-rank or low-bit"},
      {args.kept.has_value(), is_either, "--kept", "low-rank or low-bit"},
      {args.max_samples.has_value(), is_either, "--max-samples",
       "low-rank or low-bit"},
  };
  for (const auto& flag : flags) {
    if (flag.is_given && !flag.is_right) {
      return InvalidArgument(flag.flag, ": for --selector ", flag.selectors,
                             ", and it is ", args.selector);
    }
  }
  if (HasPredictor(args) && model.has_split_gates()) {
    return InvalidArgument(
        "--selector ", args.selector, ": ", model.path(),
        " has its gates apart, as convert --layout rows makes it, for "
        "--selector gate; a file with a predictor has them in its bundles: "
        "convert with --layout bundles");
  }
  if (args.kept && model.config().activation == "relu") {
    return InvalidArgument(
        "--kept: ", model.path(),
        " is a ReLU model: neurons with a positive gate are active");
  }
  return OkStatus();
}

PredictorOptions OptionsOf(const CalibrateArgs& args,
                           const CancelToken& cancel) {
  PredictorOptions options;
  options.kind = args.selector == "low-bit" ? PredictorKind::kLowBit
                                            : PredictorKind::kLowRank;
  options.bits = args.bits.value_or(options.bits);
  options.recall_target = args.recall.value_or(options.recall_target);
  options.rank = args.rank.value_or(options.rank);
  if (args.max_predictor_percent) {
    options.max_share = *args.max_predictor_percent / 100;
  }
  options.num_epochs = args.epochs.value_or(options.num_epochs);
  options.seed = args.seed.value_or(options.seed);
  options.cancel = &cancel;
  return options;
}

struct Learned {
  std::vector<std::vector<uint32_t>> order;  // Per layer.
  std::vector<std::vector<float>> frequency;
  std::vector<LayerActivity> activity;
  uint64_t num_tokens = 0;
  std::unique_ptr<ActivationSpool> spool;  // For predictors.
  uint64_t budget_bytes = 0;
  uint32_t num_threads = 0;
};

// The samples that predictors are to learn from.
Result<SpoolOptions> PlanSpool(const CalibrateArgs& args,
                               const ModelFile& model, uint64_t num_tokens,
                               const CancelToken& cancel) {
  SpoolOptions options;
  options.beside = args.output;
  options.num_tokens = NumPositions(num_tokens, args.n_ctx);
  if (args.selector == "low-rank") {
    options.max_samples = ActivationSpool::TrainingSamples(model.config());
  }
  options.max_samples = args.max_samples.value_or(options.max_samples);
  options.max_batch = args.engine.batch;
  if (options.num_tokens < kMinTrainingSamples) {
    return InvalidArgument(args.file, ": ", num_tokens,
                           " tokens, a predictor takes at least ",
                           kMinTrainingSamples, " to learn from");
  }
  if (model.config().activation == "relu") return options;
  options.kept_fraction = args.kept.value_or(kDefaultKept);
  MemoryBudget unlimited(UINT64_MAX);
  FLASHELM_ASSIGN_OR_RETURN(
      RecordReader reader,
      RecordReader::Create(model.weight_file(), unlimited));
  ProgressBar bar;
  const uint32_t num_layers = model.config().num_layers();
  for (uint32_t i = 0; i < num_layers; ++i) {
    bar.Show("measuring weights", i, num_layers);
    FLASHELM_ASSIGN_OR_RETURN(auto importance,
                              ReadImportance(model, i, reader, &cancel));
    options.importance.push_back(std::move(importance));
  }
  return options;
}

// What the process takes now, and may take of its code.
uint64_t ProcessBytes() {
  const auto memory = ReadProcessMemory();
  return (memory ? memory->resident_bytes : 0) + MappedFileBytes().value_or(0) +
         kUncountedBytes;
}

// Order and frequency of all neurons, and what finding them takes.
uint64_t LearnedBytes(const ModelConfig& config) {
  uint64_t bytes = OrderBytes(config);
  for (const LayerConfig& layer : config.layers) {
    bytes += layer.ffn_dim * sizeof(float);
  }
  return bytes;
}

// kBudgetInfeasible: predictors take more than the budget, which is said before
// a model runs for hours. `process_bytes`: what the process takes without the
// text, which is gone by then.
Status CheckTraining(const CalibrateArgs& args, const ModelFile& model,
                     const SpoolOptions& spool, const PlanOptions& plan,
                     uint64_t process_bytes, const CancelToken& cancel) {
  for (const std::vector<float>& importance : spool.importance) {
    process_bytes += importance.size() * sizeof(float);
  }
  const uint64_t needed =
      process_bytes + LearnedBytes(model.config()) +
      TrainingBytes(model,
                    static_cast<uint32_t>(std::min<uint64_t>(spool.max_samples,
                                                             spool.num_tokens)),
                    OptionsOf(args, cancel), plan.num_threads);
  if (needed <= plan.budget_bytes) return OkStatus();
  return BudgetInfeasible("making predictors takes up to ", needed,
                          " bytes of RAM (", FormatBytes(needed),
                          "), the budget is ", plan.budget_bytes, " (",
                          FormatBytes(plan.budget_bytes), ")");
}

// Takes the engine's memory only as long as the model runs.
Result<Learned> Learn(const CalibrateArgs& args, ModelFile model,
                      const CancelToken& cancel) {
  const uint64_t process_bytes = ProcessBytes();
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
                       ActivationRecorder::NumBytes(model.config()) +
                       LearnedBytes(model.config());
  SpoolOptions spool_options;
  uint64_t spool_bytes = 0;
  if (HasPredictor(args)) {
    FLASHELM_ASSIGN_OR_RETURN(spool_options,
                              PlanSpool(args, model, tokens.size(), cancel));
    spool_bytes = ActivationSpool::NumBytes(model.config(), spool_options);
    needs.caller_bytes += spool_bytes;
  }
  EngineArgs engine_args = args.engine;
  engine_args.context = args.n_ctx;
  engine_args.sparsity = "off";
  FLASHELM_ASSIGN_OR_RETURN(EngineSetup setup,
                            SetUpEngine(model, engine_args, needs));
  Learned learned;
  learned.budget_bytes = setup.options.plan.budget_bytes;
  learned.num_threads = setup.options.plan.num_threads;
  if (HasPredictor(args)) {
    FLASHELM_RETURN_IF_ERROR(CheckTraining(
        args, model, spool_options, setup.options.plan, process_bytes, cancel));
  }
  FLASHELM_ASSIGN_OR_RETURN(
      const std::unique_ptr<Engine> engine,
      LoadEngine(std::move(model), std::move(setup.options), cancel));
  FLASHELM_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                            Session::Create(*engine));
  const ModelConfig& config = engine->config();
  // Charged to the engine's plan, as what its caller takes.
  MemoryBudget budget(ActivationRecorder::NumBytes(config) + spool_bytes);
  FLASHELM_ASSIGN_OR_RETURN(
      const auto recorder,
      ActivationRecorder::Create(config, tokens.size(), budget));
  std::vector<FfnObserver*> observers = {recorder.get()};
  std::unique_ptr<ActivationSpool> spool;
  if (HasPredictor(args)) {
    FLASHELM_ASSIGN_OR_RETURN(
        spool,
        ActivationSpool::Create(config, std::move(spool_options), budget));
    observers.push_back(spool.get());
  }
  ProgressBar bar;
  FLASHELM_RETURN_IF_ERROR(RecordActivations(
      *session, tokens, config.bos_id, args.n_ctx, cancel,
      [&](uint64_t done) { bar.Show("running", done, tokens.size()); },
      observers));
  if (spool != nullptr) FLASHELM_RETURN_IF_ERROR(spool->Finish());
  learned.spool = std::move(spool);
  learned.num_tokens = recorder->num_tokens();
  for (uint32_t i = 0; i < config.num_layers(); ++i) {
    if (cancel.IsCancelled()) return Cancelled("stopped before layer ", i);
    bar.Show("ordering", i, config.num_layers());
    learned.order.push_back(OrderNeurons(*recorder, i, OrderOf(args.order)));
    std::vector<float>& frequency = learned.frequency.emplace_back();
    frequency.reserve(config.layers[i].ffn_dim);
    for (const uint32_t count : recorder->counts(i)) {
      frequency.push_back(static_cast<float>(count) /
                          static_cast<float>(learned.num_tokens));
    }
    learned.activity.push_back(ActivityOf(*recorder, i, learned.order.back()));
  }
  return learned;
}

// What is known of the layers without predictors: gates find everything.
std::vector<CalibratedLayer> LayersOf(const ModelFile& model,
                                      const Learned& learned) {
  std::vector<CalibratedLayer> layers;
  for (uint32_t i = 0; i < model.config().num_layers(); ++i) {
    CalibratedLayer& layer = layers.emplace_back();
    layer.num_neurons = model.config().layers[i].ffn_dim;
    layer.activity = learned.activity[i];
    layer.quality.active_fraction = layer.activity.active_fraction;
    layer.quality.kept_fraction = layer.activity.active_fraction;
    const Encoding encoding = model.weights().layers[i].gate.encoding;
    const uint64_t row_weights = model.config().model_dim;
    layer.selector_bytes =
        layer.num_neurons * (ElementsBytes(encoding, row_weights) +
                             ScalesBytes(encoding, row_weights));
    layer.bf16_ffn_bytes = Bf16FfnBytes(model.config(), i);
  }
  return layers;
}

// Fills in the predictors of `file`, and what is known of them.
Status Train(const CalibrateArgs& args, const ModelFile& model,
             const Learned& learned, const CancelToken& cancel,
             CalibratedFileOptions& file,
             std::vector<CalibratedLayer>& layers) {
  FLASHELM_ASSIGN_OR_RETURN(const std::unique_ptr<ThreadPool> pool,
                            ThreadPool::Create(learned.num_threads));
  PredictorOptions options = OptionsOf(args, cancel);
  constexpr uint64_t kUnits = 1000;  // Of a layer.
  ProgressBar bar;
  for (uint32_t i = 0; i < layers.size(); ++i) {
    options.progress = [&](double done) {
      bar.Show("training",
               i * kUnits +
                   static_cast<uint64_t>(done * static_cast<double>(kUnits)),
               layers.size() * kUnits);
    };
    options.progress(0);
    FLASHELM_ASSIGN_OR_RETURN(LayerPredictor predictor,
                              TrainPredictor(model, *learned.spool, i,
                                             learned.order[i], options, *pool));
    layers[i].quality = predictor.quality;
    layers[i].rank = predictor.rank;
    layers[i].selector_bytes = predictor.bytes.size();
    file.predictors.push_back(std::move(predictor.bytes));
  }
  return OkStatus();
}

Json Describe(const CalibrateArgs& args, const Learned& learned,
              const ModelFile& model,
              const std::vector<CalibratedLayer>& layers) {
  Json json = Json::object();
  json["selector"] = args.selector;
  json["order"] = args.order;
  json["n_tokens"] = learned.num_tokens;
  if (HasPredictor(args)) {
    const CancelToken never;
    const PredictorOptions options = OptionsOf(args, never);
    json["n_samples"] = learned.spool->num_samples();
    json["recall_target"] = options.recall_target;
    if (options.kind == PredictorKind::kLowBit) {
      json["bits"] = options.bits;
    } else {
      json["epochs"] = options.num_epochs;
      json["seed"] = options.seed;
    }
    if (model.config().activation != "relu") {
      json["active_by_definition"] = args.kept.value_or(kDefaultKept);
    }
  }
  json["layers"] = LayersToJson(layers);
  return json;
}

}  // namespace

Status RunCalibrate(const CalibrateArgs& args) {
  FLASHELM_RETURN_IF_ERROR(CheckIo(args.engine));
  FLASHELM_RETURN_IF_ERROR(
      CheckOutputPath(args.output, {args.engine.model, args.file}));
  const CancelToken& cancel = InterruptToken();
  FLASHELM_ASSIGN_OR_RETURN(ModelFile model,
                            ModelFile::Open(args.engine.model));
  if (model.has_neuron_stats() ||
      model.weight_file().provenance().contains("calibration")) {
    return InvalidArgument(args.engine.model,
                           ": calibrated already; calibrate the file that "
                           "convert wrote");
  }
  FLASHELM_RETURN_IF_ERROR(CheckFlags(args, model));
  FLASHELM_ASSIGN_OR_RETURN(Learned learned,
                            Learn(args, std::move(model), cancel));
  FLASHELM_ASSIGN_OR_RETURN(const ModelFile source,
                            ModelFile::Open(args.engine.model));
  std::vector<CalibratedLayer> layers = LayersOf(source, learned);
  CalibratedFileOptions options;
  options.split_gate = !HasPredictor(args);
  if (HasPredictor(args)) {
    FLASHELM_RETURN_IF_ERROR(
        Train(args, source, learned, cancel, options, layers));
  }
  options.calibration = Describe(args, learned, source, layers);
  options.neuron_order = std::move(learned.order);
  options.frequency = std::move(learned.frequency);
  const uint64_t taken =
      std::min(learned.budget_bytes,
               ProcessBytes() + RecordReader::NumBytes(source.weight_file()));
  options.block_bytes = std::clamp(learned.budget_bytes - taken, kMinBlockBytes,
                                   options.block_bytes);
  options.cancel = &cancel;
  ProgressBar bar;
  options.progress = [&](uint64_t done, uint64_t total) {
    bar.Show("writing", done, total);
  };
  const auto written = WriteCalibratedFile(source, args.output, options);
  bar.Clear();
  if (!written) return written.error();
  if (args.json) {
    std::printf("%s\n", options.calibration.dump(2).c_str());
  } else {
    PrintLayers(layers);
  }
  std::fprintf(stderr, "%s: calibrated on %llu tokens, %s\n",
               args.output.c_str(),
               static_cast<unsigned long long>(learned.num_tokens),
               FormatBytes(*written).c_str());
  return OkStatus();
}

}  // namespace flashelm::cli
