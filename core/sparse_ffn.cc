#include "core/sparse_ffn.h"

#include <algorithm>
#include <atomic>

#include "core/base/checked_math.h"
#include "core/base/types.h"
#include "kernels/matmul.h"
#include "kernels/norm.h"

namespace flashelm {
namespace {

// Bundles that are worth a thread are few, since each is read from its
// beginning to its end.
constexpr size_t kMinBundles = 8;

size_t BundleGrain(uint64_t bytes, size_t num_tokens) {
  return std::max<uint64_t>(
      kMinBundles,
      kMinBytesPerThread / std::max<uint64_t>(1, bytes * num_tokens));
}

// What the ids of a layer's neurons take.
uint64_t IdsBytes(const ModelFile& model) {
  uint64_t max_ffn_dim = 0;
  for (const LayerConfig& layer : model.config().layers) {
    max_ffn_dim = std::max<uint64_t>(max_ffn_dim, layer.ffn_dim);
  }
  return RoundUp(max_ffn_dim * sizeof(uint32_t), kIoAlignment);
}

// How many bundles from the first on lie side by side.
size_t CountSideBySide(std::span<const Bundle> bundles, uint64_t stride_bytes) {
  size_t count = 1;
  while (count < bundles.size() &&
         bundles[count].data == bundles[0].data + count * stride_bytes) {
    ++count;
  }
  return count;
}

}  // namespace

BundleStoreOptions BundleOptions(const ModelFile& model,
                                 const SparsityOptions& options,
                                 const std::vector<uint32_t>& cached_bundles) {
  BundleStoreOptions result;
  result.cache_slots.assign(cached_bundles.begin(), cached_bundles.end());
  result.window_tokens = options.window_tokens;
  // No fetch takes more than a layer.
  uint64_t layer_bytes = 0;
  for (const LayerWeights& layer : model.weights().layers) {
    layer_bytes =
        std::max(layer_bytes,
                 model.weight_file().segments()[layer.up.segment].num_bytes());
  }
  result.staging_bytes =
      std::clamp(RoundUp(layer_bytes, kIoAlignment), 2 * result.max_read_bytes,
                 result.staging_bytes);
  // Large enough for the sequential rate, small enough to have some in flight.
  constexpr uint64_t kMaxDenseReadBytes = uint64_t{1} << 20;
  result.max_dense_read_bytes =
      std::clamp(RoundDown(result.staging_bytes / 4, kIoAlignment),
                 result.max_read_bytes, kMaxDenseReadBytes);
  return result;
}

uint64_t SparseFfn::NumBytes(const ModelFile& model,
                             const SparsityOptions& options,
                             uint32_t num_threads) {
  return IdsBytes(model) +
         NeuronSelector::NumBytes(model, options, num_threads);
}

Result<std::unique_ptr<SparseFfn>> SparseFfn::Create(
    const ModelFile& model, const SparsityOptions& options,
    const WeightStore& weights, BundleStore& bundles, ThreadPool& pool,
    MemoryBudget& budget) {
  std::unique_ptr<SparseFfn> ffn(new SparseFfn(model, bundles, pool));
  FLASHELM_ASSIGN_OR_RETURN(
      ffn->selector_,
      NeuronSelector::Create(model, options, weights, pool, budget));
  FLASHELM_ASSIGN_OR_RETURN(
      ffn->buffer_,
      AlignedBuffer::Create(IdsBytes(model), budget, "sparse FFN"));
  ffn->ids_ = ffn->buffer_.As<uint32_t>();
  const bool is_relu = ffn->activation_ == Activation::kRelu;
  ffn->stats_.knows_active = is_relu && model.has_split_gates();
  ffn->stats_.knows_kept_active = is_relu;
  ffn->stats_.knows_skipped = options.selector == Selector::kGate;
  return ffn;
}

SparseFfn::SparseFfn(const ModelFile& model, BundleStore& bundles,
                     ThreadPool& pool)
    : model_(model),
      bundles_(bundles),
      pool_(pool),
      activation_(model.config().activation == "relu" ? Activation::kRelu
                                                      : Activation::kSilu) {}

uint64_t SparseFfn::StrideOf(uint32_t layer) const {
  return model_.weight_file()
      .segments()[model_.weights().layers[layer].up.segment]
      .stride_bytes;
}

Status SparseFfn::Begin(uint32_t layer, uint32_t position, size_t num_tokens) {
  layer_ = layer;
  position_ = position;
  num_tokens_ = num_tokens;
  return bundles_.Begin(layer);
}

Status SparseFfn::AddGates(size_t first, size_t count, Scratch& scratch) {
  if (!selector_->takes_gates_one_by_one()) return OkStatus();
  selector_->SelectByGates(first, count, num_tokens_, scratch, stats_);
  return bundles_.Add(ids_.first(CollectNeurons(first, count, scratch)));
}

size_t SparseFfn::CollectNeurons(size_t first, size_t count,
                                 const Scratch& scratch) {
  size_t num_ids = 0;
  for (size_t i = first; i < first + count; ++i) {
    bool is_needed = false;
    for (size_t t = 0; t < num_tokens_ && !is_needed; ++t) {
      is_needed = !(scratch.gates[t * scratch.gates_stride + i] == 0);
    }
    if (is_needed) ids_[num_ids++] = static_cast<uint32_t>(i);
  }
  return num_ids;
}

void SparseFfn::AddBundles(std::span<const Bundle> bundles,
                           const BatchProduct& product, Scratch& scratch) {
  const LayerWeights& weights = model_.weights().layers[layer_];
  const uint64_t stride = StrideOf(layer_);
  const bool has_gates = weights.has_split_gate();
  std::atomic<uint64_t> num_kept_active = 0;
  // Calls run(index of the first, its data, count) for bundles side by side.
  const auto for_rows = [&](size_t begin, size_t end, const auto& run) {
    while (begin < end) {
      const size_t count =
          CountSideBySide(bundles.subspan(begin, end - begin), stride);
      run(begin, bundles[begin].data, count);
      begin += count;
    }
  };
  pool_.ParallelFor(
      bundles.size(), BundleGrain(stride, num_tokens_),
      [&](size_t begin, size_t end, uint32_t part) {
        for_rows(begin, end,
                 [&](size_t first, const std::byte* data, size_t count) {
                   product.Rows(ViewOfPart(data, weights.up, stride), count,
                                part, scratch.up + first, kFfnTile);
                   if (has_gates) return;
                   product.Rows(ViewOfPart(data, weights.gate, stride), count,
                                part, scratch.gate + first, kFfnTile);
                 });
        uint64_t num_active = 0;
        for (size_t t = 0; t < num_tokens_; ++t) {
          float* gate = scratch.gate + t * kFfnTile;
          const float* gates = scratch.gates + t * scratch.gates_stride;
          for (size_t i = begin; i < end; ++i) {
            const float kept = gates[bundles[i].id];
            // Other tokens may have asked for it.
            if (has_gates || kept == 0) gate[i] = kept;
            num_active += gate[i] > 0 ? 1 : 0;
          }
          GluActivate(activation_, gate + begin,
                      scratch.up + t * kFfnTile + begin, end - begin,
                      gate + begin);
        }
        num_kept_active.fetch_add(num_active, std::memory_order_relaxed);
      });
  stats_.num_kept_active += num_kept_active;

  // Row by row, also where they are quantized: the sums of whole blocks that
  // the dense FFN takes depend on rows which are not here.
  const size_t model_dim = model_.config().model_dim;
  const WeightType type = WeightTypeOf(weights.down.encoding);
  pool_.ParallelFor(
      model_dim, GrainFor(ElementsBytes(type, bundles.size()), num_tokens_),
      [&](size_t begin, size_t end) {
        for_rows(
            0, bundles.size(),
            [&](size_t first, const std::byte* data, size_t count) {
              AddScaledRows(
                  Submatrix(ViewOfPart(data, weights.down, stride), 0, begin),
                  count, end - begin, scratch.gate + first, kFfnTile,
                  num_tokens_, scratch.partial + begin, model_dim);
            });
      });
}

void SparseFfn::EndRange(Scratch& scratch) {
  const size_t model_dim = model_.config().model_dim;
  for (size_t t = 0; t < num_tokens_; ++t) {
    float* sum = scratch.partial + t * model_dim;
    AddInPlace(sum, model_dim, scratch.x + t * model_dim);
    std::fill_n(sum, model_dim, 0.0f);
  }
}

Status SparseFfn::Finish(const BatchProduct& product, Scratch& scratch) {
  const uint32_t ffn_dim = model_.config().layers[layer_].ffn_dim;
  if (!selector_->takes_gates_one_by_one()) {
    selector_->Select(layer_, position_, num_tokens_, scratch, stats_);
    FLASHELM_RETURN_IF_ERROR(
        bundles_.Add(ids_.first(CollectNeurons(0, ffn_dim, scratch))));
  }
  std::fill_n(scratch.partial, num_tokens_ * model_.config().model_dim, 0.0f);
  uint32_t range = 0;
  // Ends the ranges before the one that `neuron` is in.
  const auto begin_range_of = [&](uint32_t neuron) {
    while (range < kFfnRanges && FfnRangeBegin(ffn_dim, range + 1) <= neuron) {
      if (FfnRangeBegin(ffn_dim, range) < FfnRangeBegin(ffn_dim, range + 1)) {
        EndRange(scratch);
      }
      ++range;
    }
  };
  while (true) {
    FLASHELM_ASSIGN_OR_RETURN(const auto batch, bundles_.Next());
    if (!batch) break;
    for (BundleStore::Batch left = *batch; !left.empty();) {
      begin_range_of(left[0].id);
      const uint32_t range_end = FfnRangeBegin(ffn_dim, range + 1);
      size_t count = 1;
      while (count < std::min<size_t>(left.size(), kFfnTile) &&
             left[count].id < range_end) {
        ++count;
      }
      AddBundles(left.first(count), product, scratch);
      left = left.subspan(count);
    }
  }
  begin_range_of(ffn_dim);
  return OkStatus();
}

}  // namespace flashelm
