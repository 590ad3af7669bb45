#include "core/neuron_selector.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "core/base/checked_math.h"
#include "core/base/types.h"
#include "core/batch_product.h"
#include "kernels/prefetch.h"
#include "predictor/active_set.h"
#include "predictor/gate_selector.h"
#include "predictor/predictor_file.h"
#include "storage/file.h"

namespace flashelm {
namespace {

PredictorKind KindOf(Selector selector) {
  return selector == Selector::kLowBit ? PredictorKind::kLowBit
                                       : PredictorKind::kLowRank;
}

std::string NameOfPredictor(const ModelFile& model, uint32_t layer) {
  return StatusMessage::Join(model.path(), ": the predictor of layer ", layer);
}

// What the file's first layer has; none where it has no predictor. Unverified:
// OpenPredictors() looks at what was.
Result<std::optional<PredictorKind>> FindPredictorKind(const ModelFile& model) {
  const LayerWeights& layer = model.weights().layers.at(0);
  if (!layer.predictor) return std::nullopt;
  const Segment& segment =
      model.weight_file().segments()[layer.predictor->segment];
  const uint64_t begin = segment.offset_bytes + layer.predictor->offset_bytes;
  const uint64_t page = RoundDown(begin, kIoAlignment);
  // The header may lie on both sides of a page's end.
  alignas(kIoAlignment) std::byte pages[2 * kIoAlignment];
  FLASHELM_ASSIGN_OR_RETURN(const size_t count,
                            model.weight_file().file().ReadAt(page, pages));
  const std::span<const std::byte> read(pages, count);
  const auto name = NameOfPredictor(model, 0);
  FLASHELM_ASSIGN_OR_RETURN(
      const PredictorKind kind,
      ReadPredictorKind(read.subspan(std::min(begin - page, count)), name));
  return kind;
}

// A hash of all three (the finalizer of splitmix64), as a number below 1.
float RandomScore(uint32_t layer, uint32_t position, uint32_t neuron) {
  const auto mix = [](uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
  };
  const uint64_t token = uint64_t{layer} << 32 | position;
  return static_cast<float>(mix(mix(token) ^ neuron) >> 40) * 0x1p-24f;
}

size_t NumKept(double fraction, uint32_t num_neurons) {
  return static_cast<size_t>(
      std::ceil(fraction * static_cast<double>(num_neurons)));
}

// ReLU of known gates; NaN stays, as in the dense FFN. Returns how many are
// above 0.
uint64_t ZeroNegatives(float* gates, size_t count) {
  uint64_t num_active = 0;
  for (size_t i = 0; i < count; ++i) {
    if (gates[i] <= 0) gates[i] = 0;
    num_active += gates[i] > 0 ? 1 : 0;
  }
  return num_active;
}

uint64_t CountNotZero(const float* gates, size_t count) {
  return count - static_cast<uint64_t>(std::count(gates, gates + count, 0.0f));
}

// How to make a file that a selector can use.
std::string Advice(std::string_view model, Selector selector) {
  std::string advice = StatusMessage::Join("run: flashelm calibrate -m ", model,
                                           " -f TEXT -o OUT.felm");
  if (selector == Selector::kLowBit || selector == Selector::kLowRank) {
    advice += StatusMessage::Join(" --selector ", SelectorName(selector));
  }
  return advice;
}

}  // namespace

NeuronSelector::WorkspaceLayout NeuronSelector::LayoutOf(
    const ModelFile& model, const SparsityOptions& options) {
  WorkspaceLayout layout;
  uint64_t prepared_floats = 0;
  for (uint32_t i = 0; i < model.config().num_layers(); ++i) {
    const uint32_t ffn_dim = model.config().layers[i].ffn_dim;
    layout.max_ffn_dim = std::max<uint64_t>(layout.max_ffn_dim, ffn_dim);
    if (!options.needs_predictor()) continue;
    prepared_floats =
        std::max(prepared_floats,
                 MaxPreparedFloats(model.weights().layers[i].predictor_bytes,
                                   ffn_dim, model.config().model_dim));
  }
  const auto after = [](uint64_t begin, uint64_t bytes) {
    return begin + RoundUp(bytes, kCacheLine);
  };
  layout.sorted = after(0, layout.max_ffn_dim * sizeof(float));
  layout.ids = after(layout.sorted, 2 * layout.max_ffn_dim * sizeof(float));
  layout.prepared = after(layout.ids, layout.max_ffn_dim * sizeof(uint32_t));
  layout.stats = after(layout.prepared, prepared_floats * sizeof(float));
  layout.total = after(layout.stats, sizeof(SparsityStats));
  return layout;
}

uint64_t NeuronSelector::NumBytes(const ModelFile& model,
                                  const SparsityOptions& options,
                                  uint32_t num_threads) {
  return RoundUp(num_threads * LayoutOf(model, options).total, kIoAlignment);
}

Status NeuronSelector::Check(const ModelFile& model,
                             const SparsityOptions& options) {
  const Selector selector = options.selector;
  const std::string_view name = SelectorName(selector);
  if (std::isnan(options.kept_fraction) || options.kept_fraction < 0 ||
      options.kept_fraction > 1) {
    return InvalidArgument("a kept fraction of ", options.kept_fraction,
                           ", expected above 0 to 1");
  }
  if (std::isnan(options.max_skipped) || options.max_skipped < 0 ||
      (options.max_skipped > 0 &&
       (selector != Selector::kGate || options.kept_fraction > 0))) {
    return InvalidArgument("a bound of ", options.max_skipped,
                           " on what is skipped, with the selector ", name,
                           "; expected one above 0, with gate, in place of a "
                           "part of the neurons");
  }
  if (options.kept_fraction == 0 && options.max_skipped == 0) {
    if (selector == Selector::kRandom || selector == Selector::kMagnitude) {
      return InvalidArgument("the selector ", name,
                             " keeps a part of the neurons, so say how many: "
                             "--sparsity ",
                             name, ":0.5");
    }
    if (model.config().activation != "relu") {
      return InvalidArgument(model.path(), ": no neuron of a model with ",
                             model.config().activation,
                             " is exactly 0, so say how many to keep: "
                             "--sparsity ",
                             name, ":0.5");
    }
  }
  bool has_predictors = true;
  for (const LayerWeights& layer : model.weights().layers) {
    has_predictors &= layer.predictor.has_value();
    if (layer.importance) continue;
    return InvalidArgument(
        model.path(), ": not calibrated, so it says nothing of its neurons; ",
        Advice(model.path(), selector));
  }
  const bool is_gate = selector == Selector::kGate;
  if (!is_gate && !options.needs_predictor()) return OkStatus();
  if (is_gate && model.has_split_gates()) return OkStatus();
  std::optional<PredictorKind> found;
  if (has_predictors) {
    FLASHELM_ASSIGN_OR_RETURN(found, FindPredictorKind(model));
  }
  if (!is_gate && found == KindOf(selector)) return OkStatus();
  std::string has =
      found ? StatusMessage::Join("a ", PredictorKindName(*found), " predictor")
            : std::string("no predictor");
  has += model.has_split_gates() ? " and its gates apart, for --sparsity gate"
                                 : " and its gates in the bundles";
  return InvalidArgument(
      model.path(), ": has ", has, "; --sparsity ", name, " needs ",
      is_gate ? "gates apart" : StatusMessage::Join("a ", name, " predictor"),
      "; ", Advice("ORIGINAL", selector));
}

Result<std::unique_ptr<NeuronSelector>> NeuronSelector::Create(
    const ModelFile& model, const SparsityOptions& options,
    const WeightStore& weights, ThreadPool& pool, MemoryBudget& budget) {
  FLASHELM_RETURN_IF_ERROR(Check(model, options));
  std::unique_ptr<NeuronSelector> selector(
      new NeuronSelector(model, options, weights, pool));
  FLASHELM_ASSIGN_OR_RETURN(
      selector->buffer_,
      AlignedBuffer::Create(NumBytes(model, options, pool.num_threads()),
                            budget, "neuron selector"));
  return selector;
}

NeuronSelector::NeuronSelector(const ModelFile& model,
                               const SparsityOptions& options,
                               const WeightStore& weights, ThreadPool& pool)
    : model_(model),
      options_(options),
      weights_(weights),
      pool_(pool),
      activation_(ActivationOf(model.config())),
      layout_(LayoutOf(model, options)) {}

Status NeuronSelector::OpenPredictors() {
  if (!options_.needs_predictor()) return OkStatus();
  for (uint32_t i = 0; i < model_.config().num_layers(); ++i) {
    const LayerWeights& layer = model_.weights().layers[i];
    const std::string name = NameOfPredictor(model_, i);
    FLASHELM_ASSIGN_OR_RETURN(
        StoredPredictor stored,
        OpenPredictor({ResidentPart(*layer.predictor), layer.predictor_bytes},
                      model_.config().layers[i].ffn_dim,
                      model_.config().model_dim, name));
    if (stored.kind != KindOf(options_.selector)) {
      return DataLoss(name, " is ", PredictorKindName(stored.kind),
                      ", expected ", SelectorName(options_.selector),
                      " as in the first layer");
    }
    predictors_.push_back(std::move(stored.predictor));
  }
  return OkStatus();
}

NeuronSelector::Workspace NeuronSelector::WorkspaceOf(uint32_t part) const {
  std::byte* at = buffer_.data() + part * layout_.total;
  return {reinterpret_cast<float*>(at),
          reinterpret_cast<float*>(at + layout_.sorted),
          reinterpret_cast<uint32_t*>(at + layout_.ids),
          reinterpret_cast<float*>(at + layout_.prepared),
          reinterpret_cast<SparsityStats*>(at + layout_.stats)};
}

const std::byte* NeuronSelector::ResidentPart(const PartRef& part) const {
  return weights_.ResidentRecord(part.segment, 0) + part.offset_bytes;
}

const float* NeuronSelector::ImportanceOf(uint32_t layer) const {
  return reinterpret_cast<const float*>(
      ResidentPart(*model_.weights().layers[layer].importance));
}

void NeuronSelector::Prepare(uint32_t layer, const float* normed,
                             const Workspace& in) const {
  if (!predictors_.empty()) predictors_[layer]->Prepare(normed, in.prepared);
}

void NeuronSelector::Score(uint32_t layer, uint32_t position, size_t begin,
                           size_t end, const Workspace& in) const {
  if (!predictors_.empty()) {
    predictors_[layer]->Score(in.prepared, begin, end, in.scores);
  } else if (options_.selector == Selector::kRandom) {
    for (size_t i = begin; i < end; ++i) {
      in.scores[i] = RandomScore(layer, position, static_cast<uint32_t>(i));
    }
  }
}

uint64_t NeuronSelector::ScoreBytes(uint32_t layer) const {
  const uint32_t ffn_dim = model_.config().layers[layer].ffn_dim;
  // Without a predictor about what a hash takes.
  return predictors_.empty() ? 2 * sizeof(float)
                             : predictors_[layer]->num_bytes() / ffn_dim;
}

size_t NeuronSelector::Choose(uint32_t layer, const float* gates,
                              const Workspace& in) const {
  const uint32_t ffn_dim = model_.config().layers[layer].ffn_dim;
  const size_t num_kept = NumKept(options_.kept_fraction, ffn_dim);
  switch (options_.selector) {
    case Selector::kOff:
      break;
    case Selector::kGate: {
      float skipped = 0;
      const size_t count =
          options_.max_skipped > 0
              ? SelectWithin(gates, ImportanceOf(layer), activation_, ffn_dim,
                             static_cast<float>(options_.max_skipped),
                             in.sorted, in.ids, &skipped)
              : SelectTop(gates, ImportanceOf(layer), activation_, ffn_dim,
                          num_kept, in.sorted, in.ids, &skipped);
      // Weights that are not finite have no bound.
      if (!(skipped >= 0)) skipped = std::numeric_limits<float>::infinity();
      in.stats->max_skipped = std::max<double>(in.stats->max_skipped, skipped);
      return count;
    }
    case Selector::kLowBit:
    case Selector::kLowRank:
      if (num_kept == 0) {
        return SelectAbove(in.scores, ffn_dim, predictors_[layer]->threshold(),
                           in.ids);
      }
      if (options_.selector == Selector::kLowBit) {
        return SelectTop(in.scores, ImportanceOf(layer), activation_, ffn_dim,
                         num_kept, in.sorted, in.ids, nullptr);
      }
      [[fallthrough]];
    case Selector::kRandom:
      return SelectLargest(in.scores, ffn_dim, num_kept, in.sorted, in.ids);
    case Selector::kMagnitude:
      return SelectLargest(ImportanceOf(layer), ffn_dim, num_kept, in.sorted,
                           in.ids);
  }
  return 0;
}

void NeuronSelector::SelectOfToken(uint32_t layer, float* gates,
                                   const Workspace& in) const {
  const uint32_t ffn_dim = model_.config().layers[layer].ffn_dim;
  const bool knows_gates = model_.weights().layers[layer].has_split_gate();
  in.stats->num_neurons += ffn_dim;
  if (knows_gates && activation_ == Activation::kRelu) {
    in.stats->num_active += ZeroNegatives(gates, ffn_dim);
  }
  const bool is_gate = options_.selector == Selector::kGate;
  // With their gates alone, all that are not 0 are selected already.
  const size_t num_kept = NumKept(options_.kept_fraction, ffn_dim);
  if (!is_gate || options_.max_skipped > 0 ||
      (num_kept > 0 && num_kept < ffn_dim)) {
    const size_t count = Choose(layer, gates, in);
    if (!is_gate) in.stats->num_kept += count;
    uint32_t next = 0;
    for (size_t k = 0; k < count; ++k) {
      const uint32_t kept = in.ids[k];
      std::fill(gates + next, gates + kept, 0.0f);
      if (!knows_gates) gates[kept] = 1;
      next = kept + 1;
    }
    std::fill(gates + next, gates + ffn_dim, 0.0f);
  }
  if (is_gate) in.stats->num_kept += CountNotZero(gates, ffn_dim);
}

void NeuronSelector::SelectByGates(size_t first, size_t count,
                                   size_t num_tokens, Scratch& scratch,
                                   SparsityStats& stats) const {
  for (size_t t = 0; t < num_tokens; ++t) {
    float* gates = scratch.gates + t * scratch.gates_stride + first;
    stats.num_neurons += count;
    stats.num_active += ZeroNegatives(gates, count);
    stats.num_kept += CountNotZero(gates, count);
  }
}

void NeuronSelector::Select(uint32_t layer, uint32_t position,
                            size_t num_tokens, Scratch& scratch,
                            SparsityStats& stats) {
  const uint32_t ffn_dim = model_.config().layers[layer].ffn_dim;
  const size_t model_dim = model_.config().model_dim;
  const uint32_t num_threads = pool_.num_threads();
  for (uint32_t part = 0; part < num_threads; ++part) {
    *WorkspaceOf(part).stats = {};
  }
  const auto position_of = [&](size_t t) {
    return position + static_cast<uint32_t>(t);
  };
  if (num_tokens < num_threads) {
    const Workspace shared = WorkspaceOf(0);
    for (size_t t = 0; t < num_tokens; ++t) {
      Prepare(layer, scratch.normed + t * model_dim, shared);
      pool_.ParallelFor(ffn_dim,
                        GrainFor(ffn_dim, ScoreBytes(layer), 1, num_threads),
                        [&](size_t begin, size_t end) {
                          Score(layer, position_of(t), begin, end, shared);
                        });
      SelectOfToken(layer, scratch.gates + t * scratch.gates_stride, shared);
    }
  } else {
    // Selecting takes about as long as scoring.
    const uint64_t token_bytes = 2 * ScoreBytes(layer) * ffn_dim;
    pool_.ParallelFor(
        num_tokens,
        CeilDiv(kMinBytesPerThread, std::max<uint64_t>(1, token_bytes)),
        [&](size_t begin, size_t end, uint32_t part) {
          const Workspace own = WorkspaceOf(part);
          for (size_t t = begin; t < end; ++t) {
            Prepare(layer, scratch.normed + t * model_dim, own);
            Score(layer, position_of(t), 0, ffn_dim, own);
            SelectOfToken(layer, scratch.gates + t * scratch.gates_stride, own);
          }
        });
  }
  for (uint32_t part = 0; part < num_threads; ++part) {
    const SparsityStats& own = *WorkspaceOf(part).stats;
    stats.num_neurons += own.num_neurons;
    stats.num_kept += own.num_kept;
    stats.num_active += own.num_active;
    stats.max_skipped = std::max(stats.max_skipped, own.max_skipped);
  }
}

}  // namespace flashelm
