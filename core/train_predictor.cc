#include "core/train_predictor.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "core/base/checked_math.h"
#include "core/layer_samples.h"
#include "core/record_reader.h"
#include "predictor/low_rank_trainer.h"
#include "predictor/threshold.h"

namespace flashelm {
namespace {

// Samples that the threshold of a low-bit predictor is chosen from.
constexpr uint32_t kMaxThresholdSamples = 1024;
constexpr uint32_t kMinRank = 8;
// Larger ones are made only where they are asked for: training takes memory and
// time by the rank, 600 MB for this one of OpenELM-3B's last layer.
constexpr uint32_t kMaxTriedRank = 512;

Status CheckCancelled(const PredictorOptions& options) {
  if (options.cancel != nullptr && options.cancel->IsCancelled()) {
    return Cancelled("training was cancelled");
  }
  return OkStatus();
}

// An error that does not say where it happened.
tl::unexpected<Status> OfLayer(const ModelFile& model, uint32_t layer,
                               const Status& error) {
  return Unexpected(
      {error.code(), StatusMessage::Join(model.path(), ": layer ", layer, ": ",
                                         error.message())});
}

// Scores of samples; threads share the samples.
class Scorer {
 public:
  Scorer(const Predictor& predictor, ThreadPool& pool)
      : predictor_(predictor),
        pool_(pool),
        prepared_(pool.num_threads() * predictor.prepared_floats()) {}

  void Score(const float* x, size_t num_samples, float* scores) {
    const size_t ffn_dim = predictor_.num_neurons();
    pool_.ParallelFor(
        num_samples, 1, [&](size_t begin, size_t end, uint32_t part) {
          float* prepared =
              prepared_.data() + part * predictor_.prepared_floats();
          for (size_t t = begin; t < end; ++t) {
            predictor_.Prepare(x + t * predictor_.model_dim(), prepared);
            predictor_.Score(prepared, 0, ffn_dim, scores + t * ffn_dim);
          }
        });
  }

 private:
  const Predictor& predictor_;
  ThreadPool& pool_;
  std::vector<float> prepared_;
};

Result<PredictorQuality> Measure(const Predictor& predictor,
                                 LayerSamples& samples,
                                 const PredictorOptions& options,
                                 ThreadPool& pool) {
  Scorer scorer(predictor, pool);
  const size_t ffn_dim = samples.ffn_dim();
  std::vector<float> x(size_t{LayerSamples::kRun} * samples.model_dim());
  std::vector<uint8_t> labels(LayerSamples::kRun * ffn_dim);
  std::vector<float> scores(LayerSamples::kRun * ffn_dim);
  uint64_t num_all = 0;
  uint64_t num_active = 0;
  uint64_t num_kept = 0;
  uint64_t num_found = 0;
  for (uint32_t run = 0; run < samples.num_runs(); ++run) {
    if (!samples.IsMeasured(run)) continue;
    FLASHELM_RETURN_IF_ERROR(CheckCancelled(options));
    const uint32_t count = samples.RunSamples(run);
    FLASHELM_RETURN_IF_ERROR(
        samples.Read(run * LayerSamples::kRun, count, x.data(), labels.data()));
    scorer.Score(x.data(), count, scores.data());
    for (size_t i = 0; i < count * ffn_dim; ++i) {
      const bool is_kept = scores[i] > predictor.threshold();
      const bool is_active = labels[i] != 0;
      num_kept += is_kept ? 1 : 0;
      num_active += is_active ? 1 : 0;
      num_found += is_kept && is_active ? 1 : 0;
    }
    num_all += count * ffn_dim;
  }
  const auto part = [](uint64_t some, uint64_t of) {
    return of == 0 ? 1.0 : static_cast<double>(some) / static_cast<double>(of);
  };
  PredictorQuality quality;
  quality.active_fraction = part(num_active, num_all);
  quality.kept_fraction = part(num_kept, num_all);
  quality.recall = part(num_found, num_active);
  quality.precision = part(num_found, num_kept);
  return quality;
}

LowBitGate::Shape LowBitShape(const ModelConfig& config, uint32_t layer,
                              const PredictorOptions& options) {
  return {options.bits, config.layers[layer].ffn_dim, config.model_dim};
}

LowRankPredictor::Shape LowRankShape(const ModelConfig& config, uint32_t layer,
                                     uint32_t rank) {
  // Four bits and four times the rank choose better than 16.
  const bool is_quantized =
      rank % kQuantGroup == 0 && config.model_dim % kQuantGroup == 0;
  return {is_quantized ? WeightType::kQ4 : WeightType::kBf16,
          config.layers[layer].ffn_dim, config.model_dim, rank};
}

// A threshold for the samples that are not for measuring, or some of them.
Result<ThresholdChoice> Choose(const LowBitGate& predictor,
                               LayerSamples& samples,
                               const PredictorOptions& options,
                               ThreadPool& pool) {
  Scorer scorer(predictor, pool);
  const size_t ffn_dim = samples.ffn_dim();
  std::vector<uint32_t> runs;
  for (uint32_t run = 0; run < samples.num_runs(); ++run) {
    if (!samples.IsMeasured(run)) runs.push_back(run);
  }
  const size_t step =
      CeilDiv(runs.size(), kMaxThresholdSamples / LayerSamples::kRun);
  const size_t most = CeilDiv(runs.size(), step) * LayerSamples::kRun;
  std::vector<float> x(size_t{LayerSamples::kRun} * samples.model_dim());
  std::vector<uint8_t> labels(most * ffn_dim);
  std::vector<float> scores(most * ffn_dim);
  size_t found = 0;
  for (size_t i = 0; i < runs.size(); i += step) {
    FLASHELM_RETURN_IF_ERROR(CheckCancelled(options));
    const uint32_t count = samples.RunSamples(runs[i]);
    FLASHELM_RETURN_IF_ERROR(samples.Read(runs[i] * LayerSamples::kRun, count,
                                          x.data(),
                                          labels.data() + found * ffn_dim));
    scorer.Score(x.data(), count, scores.data() + found * ffn_dim);
    found += count;
  }
  return ChooseThreshold(std::span(scores).first(found * ffn_dim),
                         std::span(labels).first(found * ffn_dim),
                         options.recall_target);
}

std::vector<uint32_t> PlacesOf(std::span<const uint32_t> order,
                               uint32_t ffn_dim) {
  std::vector<uint32_t> places(ffn_dim);
  for (uint32_t i = 0; i < ffn_dim; ++i) {
    places[order.empty() ? i : order[i]] = i;
  }
  return places;
}

Result<LayerPredictor> MakeLowBit(const ModelFile& model, LayerSamples& samples,
                                  uint32_t layer,
                                  const std::vector<uint32_t>& places,
                                  RecordReader& reader,
                                  const PredictorOptions& options,
                                  ThreadPool& pool) {
  const LowBitGate::Shape shape = LowBitShape(model.config(), layer, options);
  if (!LowBitGate::IsValid(shape)) {
    return InvalidArgument(model.path(), ": layer ", layer, " with ",
                           shape.num_neurons, " neurons of ", shape.model_dim,
                           " weights cannot have a predictor of ", shape.bits,
                           " bits");
  }
  std::vector<std::byte> weights(LowBitGate::NumBytes(shape));
  FLASHELM_RETURN_IF_ERROR(ForEachGateRow(
      model, layer, reader, options.cancel,
      [&](uint32_t neuron, std::span<const float> row) {
        LowBitGate::Quantize(shape, row.data(), places[neuron], 1, weights);
      }));
  const LowBitGate unlimited(shape, weights, 0);
  const auto choice = Choose(unlimited, samples, options, pool);
  if (!choice) return OfLayer(model, layer, choice.error());
  LayerPredictor result;
  result.bytes = StorePredictor(shape, choice->threshold, weights);
  FLASHELM_ASSIGN_OR_RETURN(
      result.quality, Measure(LowBitGate(shape, weights, choice->threshold),
                              samples, options, pool));
  return result;
}

// Ranks to try, ascending; the last is the largest that there is room for and
// that is tried.
std::vector<uint32_t> Ranks(const ModelConfig& config, uint32_t layer,
                            const PredictorOptions& options) {
  if (options.rank > 0) return {options.rank};
  const auto bytes = [&](uint32_t rank) {
    return kPredictorHeaderBytes +
           LowRankPredictor::NumBytes(LowRankShape(config, layer, rank));
  };
  const auto limit = static_cast<uint64_t>(
      options.max_share * static_cast<double>(Bf16FfnBytes(config, layer)));
  const uint32_t most =
      std::min({config.model_dim, config.layers[layer].ffn_dim, kMaxTriedRank});
  // In whole groups, or where there is no room for one, in ones.
  const uint32_t step = config.model_dim % kQuantGroup == 0 &&
                                most >= kQuantGroup &&
                                bytes(kQuantGroup) <= limit
                            ? kQuantGroup
                            : 1;
  if (bytes(step) > limit) return {};
  const uint64_t per_step = bytes(2 * step) - bytes(step);
  const auto largest = static_cast<uint32_t>(
      std::min<uint64_t>(most / step, (limit - bytes(step)) / per_step + 1) *
      step);
  std::vector<uint32_t> ranks;
  for (uint32_t rank = std::max(kMinRank, step); rank < largest; rank *= 2) {
    ranks.push_back(rank);
  }
  ranks.push_back(largest);
  return ranks;
}

LowRankTrainerOptions TrainerOptions(const ModelConfig& config,
                                     const PredictorOptions& options,
                                     uint32_t layer, uint32_t rank) {
  LowRankTrainerOptions trainer;
  trainer.type = LowRankShape(config, layer, rank).type;
  trainer.rank = rank;
  trainer.num_epochs = options.num_epochs;
  trainer.recall_target = options.recall_target;
  trainer.held_out_run = LayerSamples::kRun;
  trainer.seed = options.seed + layer;
  trainer.cancel = options.cancel;
  return trainer;
}

// Whether a predictor keeps little enough to be worth its bytes: on other texts
// it will keep a little more.
bool IsSharp(const ThresholdChoice& choice) {
  const double active = choice.precision * choice.kept_fraction / choice.recall;
  return choice.kept_fraction <= std::min(1.75 * active, (1 + active) / 2);
}

Result<LayerPredictor> MakeLowRank(const ModelFile& model,
                                   LayerSamples& samples, uint32_t layer,
                                   const std::vector<uint32_t>& places,
                                   RecordReader& reader,
                                   const PredictorOptions& options,
                                   ThreadPool& pool) {
  const ModelConfig& config = model.config();
  const std::vector<uint32_t> ranks = Ranks(config, layer, options);
  if (ranks.empty()) {
    return InvalidArgument("a low-rank predictor of layer ", layer,
                           " takes more than ", 100 * options.max_share,
                           " % of its FFN's ", Bf16FfnBytes(config, layer),
                           " bytes");
  }
  const uint32_t ffn_dim = samples.ffn_dim();
  const uint32_t model_dim = samples.model_dim();
  std::vector<float> gate(size_t{ffn_dim} * model_dim);
  FLASHELM_RETURN_IF_ERROR(ForEachGateRow(
      model, layer, reader, options.cancel,
      [&](uint32_t neuron, std::span<const float> row) {
        std::copy(row.begin(), row.end(),
                  gate.data() + size_t{places[neuron]} * model_dim);
      }));
  TrainingSource source(samples);
  TrainedLowRank best;
  for (size_t i = 0; i < ranks.size(); ++i) {
    LowRankTrainerOptions trainer =
        TrainerOptions(config, options, layer, ranks[i]);
    trainer.progress = [&](const LowRankProgress& progress) {
      if (!options.progress) return;
      const double done = static_cast<double>(progress.epoch + 1) /
                          static_cast<double>(options.num_epochs + 1);
      options.progress((static_cast<double>(i) + done) /
                       static_cast<double>(ranks.size()));
    };
    auto trained =
        TrainLowRank(ffn_dim, model_dim, gate.data(), source, trainer);
    if (!trained) return OfLayer(model, layer, trained.error());
    TrainedLowRank found = std::move(*trained);
    if (best.bytes.empty() ||
        found.choice.kept_fraction < best.choice.kept_fraction) {
      best = std::move(found);
    }
    if (IsSharp(best.choice)) break;
  }
  LayerPredictor result;
  result.rank = best.shape.rank;
  result.bytes = StorePredictor(best.shape, best.choice.threshold, best.bytes);
  FLASHELM_ASSIGN_OR_RETURN(
      result.quality,
      Measure(LowRankPredictor(best.shape, best.bytes, best.choice.threshold),
              samples, options, pool));
  return result;
}

// Of one layer, and of its result.
uint64_t LayerBytes(const ModelConfig& config, uint32_t layer,
                    uint32_t num_samples, const PredictorOptions& options,
                    uint32_t num_threads, uint64_t& result_bytes) {
  const uint64_t ffn_dim = config.layers[layer].ffn_dim;
  const uint64_t sample_bytes =
      config.model_dim * sizeof(float) + ffn_dim * (sizeof(float) + 2);
  uint64_t total =
      LayerSamples::kRun * sample_bytes + ffn_dim * sizeof(uint32_t);
  uint64_t prepared_floats = 0;
  if (options.kind == PredictorKind::kLowBit) {
    const LowBitGate::Shape shape = LowBitShape(config, layer, options);
    result_bytes = LowBitGate::NumBytes(shape);
    // The input as 16-bit numbers, in whole blocks.
    prepared_floats = config.model_dim + 256;
    // Scores, labels, and the scores of what is active in a vector that grows.
    total += result_bytes +
             std::min<uint64_t>(num_samples + LayerSamples::kRun,
                                kMaxThresholdSamples + LayerSamples::kRun) *
                 ffn_dim * (4 * sizeof(float) + 1);
  } else {
    const std::vector<uint32_t> ranks = Ranks(config, layer, options);
    const uint32_t rank = ranks.empty() ? 0 : ranks.back();
    if (rank == 0) return 0;
    const LowRankPredictor::Shape shape = LowRankShape(config, layer, rank);
    result_bytes = LowRankPredictor::NumBytes(shape);
    prepared_floats = LowRankPredictor::PreparedFloats(shape);
    total += ffn_dim * config.model_dim * sizeof(float) + 2 * result_bytes +
             LowRankTrainerBytes(static_cast<uint32_t>(ffn_dim),
                                 config.model_dim, num_samples,
                                 TrainerOptions(config, options, layer, rank));
  }
  result_bytes += kPredictorHeaderBytes;
  return total + num_threads * prepared_floats * sizeof(float);
}

}  // namespace

uint64_t Bf16FfnBytes(const ModelConfig& config, uint32_t layer) {
  constexpr uint64_t kBytesPerWeight = 2;
  return 3 * uint64_t{config.layers[layer].ffn_dim} * config.model_dim *
         kBytesPerWeight;
}

uint64_t TrainingBytes(const ModelFile& model, uint32_t num_samples,
                       const PredictorOptions& options, uint32_t num_threads) {
  uint64_t most = 0;
  uint64_t results = 0;
  for (uint32_t i = 0; i < model.config().num_layers(); ++i) {
    uint64_t result_bytes = 0;
    most = std::max(most, LayerBytes(model.config(), i, num_samples, options,
                                     num_threads, result_bytes));
    results += result_bytes;
  }
  return most + results + RecordReader::NumBytes(model.weight_file());
}

Result<LayerPredictor> TrainPredictor(const ModelFile& model,
                                      const ActivationSpool& spool,
                                      uint32_t layer,
                                      std::span<const uint32_t> order,
                                      const PredictorOptions& options,
                                      ThreadPool& pool) {
  if (spool.num_samples() < kMinTrainingSamples) {
    return InvalidArgument("a predictor takes at least ", kMinTrainingSamples,
                           " tokens to learn from, there are ",
                           spool.num_samples());
  }
  MemoryBudget unlimited(UINT64_MAX);  // TrainingBytes() has it.
  FLASHELM_ASSIGN_OR_RETURN(
      RecordReader reader,
      RecordReader::Create(model.weight_file(), unlimited));
  LayerSamples samples(spool, layer, order);
  const std::vector<uint32_t> places = PlacesOf(order, samples.ffn_dim());
  return options.kind == PredictorKind::kLowBit
             ? MakeLowBit(model, samples, layer, places, reader, options, pool)
             : MakeLowRank(model, samples, layer, places, reader, options,
                           pool);
}

}  // namespace flashelm
