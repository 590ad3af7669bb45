#include "core/sparse_ffn.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "core/base/checked_math.h"
#include "core/base/types.h"
#include "kernels/matmul.h"
#include "kernels/norm.h"
#include "predictor/gate_selector.h"

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
    scores = ids + RoundUp(shape.max_ffn_dim * sizeof(uint32_t), 64);
    group = scores + RoundUp(2 * shape.max_ffn_dim * sizeof(float), 64);
    total = RoundUp(group + kFfnTile * sizeof(uint32_t), kIoAlignment);
  }
  uint64_t ids;  // Behind the rows.
  uint64_t scores;
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
  result.merges_reads = options.merges_reads;
  // No fetch takes more than a layer.
  uint64_t layer_bytes = 0;
  for (const LayerWeights& layer : model.weights().layers) {
    for (const uint32_t index : {layer.up.segment, layer.down.segment}) {
      layer_bytes = std::max(layer_bytes,
                             model.weight_file().segments()[index].num_bytes());
    }
  }
  result.staging_bytes =
      std::clamp(RoundUp(layer_bytes, kIoAlignment), 2 * result.max_read_bytes,
                 result.staging_bytes);
  return result;
}

uint64_t SparseFfn::NumBytes(const ModelFile& model) {
  return BufferLayout(ShapeOf(model)).total;
}

Status SparseFfn::Check(const ModelFile& model,
                        const SparsityOptions& options) {
  const bool is_relu = model.config().activation == "relu";
  if (std::isnan(options.kept_fraction) || options.kept_fraction < 0 ||
      options.kept_fraction > 1) {
    return InvalidArgument("a kept fraction of ", options.kept_fraction,
                           ", expected above 0 to 1");
  }
  if (options.kept_fraction == 0 && !is_relu) {
    return InvalidArgument(
        model.path(), ": no neuron of a model with ", model.config().activation,
        " is exactly 0, so say how many to keep: --sparsity gate:0.5");
  }
  for (const LayerWeights& layer : model.weights().layers) {
    if (layer.has_split_gate() && layer.importance) continue;
    return InvalidArgument(
        model.path(),
        ": not calibrated, so bundles cannot be read without "
        "their gates; run: flashelm calibrate -m ",
        model.path(), " -f TEXT -o OUT.felm");
  }
  return OkStatus();
}

Result<std::unique_ptr<SparseFfn>> SparseFfn::Create(
    const ModelFile& model, const SparsityOptions& options,
    const WeightStore& weights, BundleStore& bundles, ThreadPool& pool,
    MemoryBudget& budget) {
  FLASHELM_RETURN_IF_ERROR(Check(model, options));
  std::unique_ptr<SparseFfn> ffn(
      new SparseFfn(model, options, weights, bundles, pool));
  FLASHELM_ASSIGN_OR_RETURN(
      ffn->buffer_,
      AlignedBuffer::Create(NumBytes(model), budget, "sparse FFN"));
  const Shape shape = ShapeOf(model);
  const BufferLayout layout(shape);
  std::byte* const at = ffn->buffer_.data();
  ffn->rows_ = at;
  ffn->ids_ = {reinterpret_cast<uint32_t*>(at + layout.ids), shape.max_ffn_dim};
  ffn->scores_ = {reinterpret_cast<float*>(at + layout.scores),
                  2 * shape.max_ffn_dim};
  ffn->group_ = {reinterpret_cast<uint32_t*>(at + layout.group), kFfnTile};
  return ffn;
}

SparseFfn::SparseFfn(const ModelFile& model, const SparsityOptions& options,
                     const WeightStore& weights, BundleStore& bundles,
                     ThreadPool& pool)
    : model_(model),
      options_(options),
      weights_(weights),
      bundles_(bundles),
      pool_(pool),
      activation_(model.config().activation == "relu" ? Activation::kRelu
                                                      : Activation::kSilu) {}

uint64_t SparseFfn::StrideOf(const PartRef& part) const {
  return model_.weight_file().segments()[part.segment].stride_bytes;
}

uint32_t SparseFfn::StoreOf(uint32_t layer) const {
  return model_.has_rows() ? 2 * layer + 1 : layer;
}

size_t SparseFfn::SelectOfToken(uint32_t layer, float* gates) {
  const uint32_t ffn_dim = model_.config().layers[layer].ffn_dim;
  if (activation_ == Activation::kRelu) {
    // NaN stays, as in the dense FFN.
    for (uint32_t i = 0; i < ffn_dim; ++i) {
      if (gates[i] <= 0) gates[i] = 0;
    }
  }
  const auto num_kept = static_cast<uint32_t>(
      std::ceil(options_.kept_fraction * static_cast<double>(ffn_dim)));
  if (options_.kept_fraction > 0 && num_kept < ffn_dim) {
    const PartRef& importance = *model_.weights().layers[layer].importance;
    const auto* weights = reinterpret_cast<const float*>(
        weights_.ResidentRecord(importance.segment, 0) +
        importance.offset_bytes);
    float skipped = 0;
    const size_t count =
        SelectTop(gates, weights, activation_, ffn_dim, num_kept,
                  scores_.data(), ids_.data(), &skipped);
    stats_.max_skipped = std::max<double>(stats_.max_skipped, skipped);
    uint32_t next = 0;
    for (const uint32_t kept : ids_.first(count)) {
      std::fill(gates + next, gates + kept, 0.0f);
      next = kept + 1;
    }
    std::fill(gates + next, gates + ffn_dim, 0.0f);
  }
  return static_cast<size_t>(ffn_dim - std::count(gates, gates + ffn_dim, 0));
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
  const uint64_t stride = StrideOf(weights.down);
  const size_t count = std::exchange(group_size_, 0);
  if (count == 0) return;
  pool_.ParallelFor(
      count, GrainFor(stride, num_tokens),
      [&](size_t begin, size_t end, uint32_t part) {
        if (weights.has_split_down()) {
          GatherUps(begin, end, num_tokens, scratch);
        } else {
          product.Rows(ViewOfPart(rows_ + begin * stride, weights.up, stride),
                       end - begin, part, scratch.up + begin, kFfnTile);
        }
        for (size_t t = 0; t < num_tokens; ++t) {
          float* gate = scratch.gate + t * kFfnTile;
          const float* gates = scratch.gates + t * scratch.gates_stride;
          for (size_t i = begin; i < end; ++i) gate[i] = gates[group_[i]];
          GluActivate(activation_, gate + begin,
                      scratch.up + t * kFfnTile + begin, end - begin,
                      gate + begin);
        }
      });

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

void SparseFfn::GatherUps(size_t begin, size_t end, size_t num_tokens,
                          Scratch& scratch) const {
  for (size_t t = 0; t < num_tokens; ++t) {
    float* up = scratch.up + t * kFfnTile;
    const float* ups = scratch.ups + t * scratch.gates_stride;
    for (size_t i = begin; i < end; ++i) up[i] = ups[group_[i]];
  }
}

void SparseFfn::MultiplyUps(uint32_t layer, size_t num_tokens,
                            const BatchProduct& product, Scratch& scratch) {
  const PartRef& up = model_.weights().layers[layer].up;
  const uint64_t stride = StrideOf(up);
  const size_t count = std::exchange(group_size_, 0);
  pool_.ParallelFor(count, GrainFor(stride, num_tokens),
                    [&](size_t begin, size_t end, uint32_t part) {
                      product.Rows(
                          ViewOfPart(rows_ + begin * stride, up, stride),
                          end - begin, part, scratch.up + begin, kFfnTile);
                      for (size_t t = 0; t < num_tokens; ++t) {
                        float* ups = scratch.ups + t * scratch.gates_stride;
                        for (size_t i = begin; i < end; ++i) {
                          ups[group_[i]] = scratch.up[t * kFfnTile + i];
                        }
                      }
                    });
}

Status SparseFfn::ComputeUps(uint32_t layer, std::span<const uint32_t> ids,
                             size_t num_tokens, const BatchProduct& product,
                             Scratch& scratch) {
  const uint64_t stride = StrideOf(model_.weights().layers[layer].up);
  FLASHELM_RETURN_IF_ERROR(bundles_.Fetch(2 * layer, ids));
  group_size_ = 0;
  while (true) {
    FLASHELM_ASSIGN_OR_RETURN(const auto batch, bundles_.Next());
    if (!batch) break;
    for (const Bundle& bundle : *batch) {
      std::memcpy(rows_ + group_size_ * stride, bundle.data, stride);
      group_[group_size_++] = bundle.id;
      if (group_size_ == kFfnTile) {
        MultiplyUps(layer, num_tokens, product, scratch);
      }
    }
  }
  MultiplyUps(layer, num_tokens, product, scratch);
  return OkStatus();
}

void SparseFfn::EndRange(size_t num_tokens, Scratch& scratch) {
  const size_t model_dim = model_.config().model_dim;
  for (size_t t = 0; t < num_tokens; ++t) {
    float* sum = scratch.partial + t * model_dim;
    AddInPlace(sum, model_dim, scratch.x + t * model_dim);
    std::fill_n(sum, model_dim, 0.0f);
  }
}

Status SparseFfn::Run(uint32_t layer, size_t num_tokens,
                      const BatchProduct& product, Scratch& scratch) {
  const uint32_t ffn_dim = model_.config().layers[layer].ffn_dim;
  const uint64_t stride = StrideOf(model_.weights().layers[layer].down);
  stats_.num_neurons += num_tokens * ffn_dim;
  for (size_t t = 0; t < num_tokens; ++t) {
    stats_.num_kept +=
        SelectOfToken(layer, scratch.gates + t * scratch.gates_stride);
  }
  const size_t num_ids = CollectNeurons(layer, num_tokens, scratch);
  const std::span<const uint32_t> ids = ids_.first(num_ids);
  if (model_.has_rows()) {
    FLASHELM_RETURN_IF_ERROR(
        ComputeUps(layer, ids, num_tokens, product, scratch));
  }
  FLASHELM_RETURN_IF_ERROR(bundles_.Fetch(StoreOf(layer), ids));
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
