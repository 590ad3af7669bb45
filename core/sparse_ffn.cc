#include "core/sparse_ffn.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "core/base/checked_math.h"
#include "core/base/types.h"
#include "kernels/matmul.h"
#include "kernels/norm.h"

namespace flashelm {
namespace {

struct Shape {
  uint64_t max_ffn_dim = 0;
  uint64_t max_stride_bytes = 0;  // Of bundles.
};

Shape ShapeOf(const ModelFile& model) {
  Shape shape;
  const std::vector<Segment>& segments = model.weight_file().segments();
  for (uint32_t i = 0; i < model.config().num_layers(); ++i) {
    shape.max_ffn_dim =
        std::max<uint64_t>(shape.max_ffn_dim, model.config().layers[i].ffn_dim);
    shape.max_stride_bytes =
        std::max(shape.max_stride_bytes,
                 segments[model.weights().layers[i].up.segment].stride_bytes);
  }
  return shape;
}

// Where what lies in the buffer, in bytes.
struct BufferLayout {
  explicit BufferLayout(const Shape& shape) {
    ids = RoundUp(kFfnTile * shape.max_stride_bytes, 64);
    group = ids + RoundUp(shape.max_ffn_dim * sizeof(uint32_t), 64);
    total = RoundUp(group + kFfnTile * sizeof(uint32_t), kIoAlignment);
  }
  uint64_t ids;  // Behind the rows.
  uint64_t group;
  uint64_t total;
};

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
  return result;
}

uint64_t SparseFfn::NumBytes(const ModelFile& model,
                             const SparsityOptions& options,
                             uint32_t num_threads) {
  return BufferLayout(ShapeOf(model)).total +
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
  const Shape shape = ShapeOf(model);
  const BufferLayout layout(shape);
  FLASHELM_ASSIGN_OR_RETURN(
      ffn->buffer_, AlignedBuffer::Create(layout.total, budget, "sparse FFN"));
  std::byte* const at = ffn->buffer_.data();
  ffn->rows_ = at;
  ffn->ids_ = {reinterpret_cast<uint32_t*>(at + layout.ids), shape.max_ffn_dim};
  ffn->group_ = {reinterpret_cast<uint32_t*>(at + layout.group), kFfnTile};
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

size_t SparseFfn::CollectNeurons(uint32_t layer, size_t num_tokens,
                                 const Scratch& scratch) {
  const uint32_t ffn_dim = model_.config().layers[layer].ffn_dim;
  size_t count = 0;
  for (uint32_t i = 0; i < ffn_dim; ++i) {
    bool is_needed = false;
    for (size_t t = 0; t < num_tokens && !is_needed; ++t) {
      is_needed = !(scratch.gates[t * scratch.gates_stride + i] == 0);
    }
    if (is_needed) ids_[count++] = i;
  }
  return count;
}

// The group's bundles lie in rows_, side by side.
void SparseFfn::AddGroup(uint32_t layer, size_t num_tokens,
                         const BatchProduct& product, Scratch& scratch) {
  const LayerWeights& weights = model_.weights().layers[layer];
  const uint64_t stride = StrideOf(layer);
  const size_t count = std::exchange(group_size_, 0);
  if (count == 0) return;
  const bool has_gates = weights.has_split_gate();
  std::atomic<uint64_t> num_kept_active = 0;
  pool_.ParallelFor(
      count, GrainFor(stride, num_tokens),
      [&](size_t begin, size_t end, uint32_t part) {
        product.Rows(ViewOfPart(rows_ + begin * stride, weights.up, stride),
                     end - begin, part, scratch.up + begin, kFfnTile);
        if (!has_gates) {
          product.Rows(ViewOfPart(rows_ + begin * stride, weights.gate, stride),
                       end - begin, part, scratch.gate + begin, kFfnTile);
        }
        for (size_t t = 0; t < num_tokens; ++t) {
          float* gate = scratch.gate + t * kFfnTile;
          const float* gates = scratch.gates + t * scratch.gates_stride;
          uint64_t num_active = 0;
          for (size_t i = begin; i < end; ++i) {
            const float kept = gates[group_[i]];
            // Other tokens may have asked for it.
            if (has_gates || kept == 0) gate[i] = kept;
            num_active += gate[i] > 0 ? 1 : 0;
          }
          num_kept_active.fetch_add(num_active, std::memory_order_relaxed);
          GluActivate(activation_, gate + begin,
                      scratch.up + t * kFfnTile + begin, end - begin,
                      gate + begin);
        }
      });
  stats_.num_kept_active += num_kept_active;

  // Row by row, also where they are quantized: the sums of whole blocks that
  // the dense FFN takes depend on rows which are not here.
  const size_t model_dim = model_.config().model_dim;
  const WeightView down = ViewOfPart(rows_, weights.down, stride);
  pool_.ParallelFor(
      model_dim, GrainFor(ElementsBytes(down.type, count), num_tokens),
      [&](size_t begin, size_t end) {
        AddScaledRows(Submatrix(down, 0, begin), count, end - begin,
                      scratch.gate, kFfnTile, num_tokens,
                      scratch.partial + begin, model_dim);
      });
}

void SparseFfn::EndRange(size_t num_tokens, Scratch& scratch) {
  const size_t model_dim = model_.config().model_dim;
  for (size_t t = 0; t < num_tokens; ++t) {
    float* sum = scratch.partial + t * model_dim;
    AddInPlace(sum, model_dim, scratch.x + t * model_dim);
    std::fill_n(sum, model_dim, 0.0f);
  }
}

Status SparseFfn::Run(uint32_t layer, uint32_t position, size_t num_tokens,
                      const BatchProduct& product, Scratch& scratch) {
  const uint32_t ffn_dim = model_.config().layers[layer].ffn_dim;
  const uint64_t stride = StrideOf(layer);
  selector_->Select(layer, position, num_tokens, scratch, stats_);
  const size_t num_ids = CollectNeurons(layer, num_tokens, scratch);
  FLASHELM_RETURN_IF_ERROR(bundles_.Fetch(layer, ids_.first(num_ids)));
  std::fill_n(scratch.partial, num_tokens * model_.config().model_dim, 0.0f);
  uint32_t range = 0;
  // Ends the ranges before the one that `neuron` is in.
  const auto begin_range_of = [&](uint32_t neuron) {
    while (range < kFfnRanges && FfnRangeBegin(ffn_dim, range + 1) <= neuron) {
      AddGroup(layer, num_tokens, product, scratch);
      if (FfnRangeBegin(ffn_dim, range) < FfnRangeBegin(ffn_dim, range + 1)) {
        EndRange(num_tokens, scratch);
      }
      ++range;
    }
  };
  group_size_ = 0;
  while (true) {
    FLASHELM_ASSIGN_OR_RETURN(const auto batch, bundles_.Next());
    if (!batch) break;
    for (const Bundle& bundle : *batch) {
      begin_range_of(bundle.id);
      if (group_size_ == kFfnTile) {
        AddGroup(layer, num_tokens, product, scratch);
      }
      std::memcpy(rows_ + group_size_ * stride, bundle.data, stride);
      group_[group_size_++] = bundle.id;
    }
  }
  begin_range_of(ffn_dim);
  return OkStatus();
}

}  // namespace flashelm
