#include "core/sparse_ffn.h"

#include <algorithm>
#include <cmath>

#include "core/base/checked_math.h"
#include "core/base/types.h"
#include "kernels/matmul.h"
#include "kernels/norm.h"
#include "predictor/gate_selector.h"

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

uint64_t MaxFfnDim(const ModelConfig& config) {
  uint32_t max_ffn_dim = 0;
  for (const LayerConfig& layer : config.layers) {
    max_ffn_dim = std::max(max_ffn_dim, layer.ffn_dim);
  }
  return max_ffn_dim;
}

// Where what lies in the buffer, in bytes; ids come first.
struct BufferLayout {
  explicit BufferLayout(uint64_t max_ffn_dim) {
    scores = RoundUp(max_ffn_dim * sizeof(uint32_t), 64);
    total = RoundUp(scores + 2 * max_ffn_dim * sizeof(float), kIoAlignment);
  }
  uint64_t scores;
  uint64_t total;
};

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
  return result;
}

uint64_t SparseFfn::NumBytes(const ModelFile& model) {
  return BufferLayout(MaxFfnDim(model.config())).total;
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
  const uint64_t max_ffn_dim = MaxFfnDim(model.config());
  std::byte* const at = ffn->buffer_.data();
  ffn->ids_ = {reinterpret_cast<uint32_t*>(at), max_ffn_dim};
  ffn->scores_ = {
      reinterpret_cast<float*>(at + BufferLayout(max_ffn_dim).scores),
      2 * max_ffn_dim};
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

uint64_t SparseFfn::StrideOf(uint32_t layer) const {
  return model_.weight_file()
      .segments()[model_.weights().layers[layer].up.segment]
      .stride_bytes;
}

Status SparseFfn::Begin(uint32_t layer, size_t num_tokens) {
  layer_ = layer;
  num_tokens_ = num_tokens;
  stats_.num_neurons += num_tokens * model_.config().layers[layer].ffn_dim;
  return bundles_.Begin(layer);
}

Status SparseFfn::AddGates(size_t first, size_t count, Scratch& scratch) {
  if (options_.kept_fraction > 0) {
    // Which are the largest is known when all are.
    const size_t ffn_dim = model_.config().layers[layer_].ffn_dim;
    if (first + count < ffn_dim) return OkStatus();
    first = 0;
    count = ffn_dim;
  }
  for (size_t t = 0; t < num_tokens_; ++t) {
    SelectOfToken(scratch.gates + t * scratch.gates_stride, first, count);
  }
  return bundles_.Add(ids_.first(CollectNeurons(first, count, scratch)));
}

void SparseFfn::SelectOfToken(float* gates, size_t first, size_t count) {
  const size_t last = first + count;
  if (activation_ == Activation::kRelu) {
    // NaN stays, as in the dense FFN.
    for (size_t i = first; i < last; ++i) {
      if (gates[i] <= 0) gates[i] = 0;
    }
  }
  const auto num_kept = static_cast<uint32_t>(
      std::ceil(options_.kept_fraction * static_cast<double>(count)));
  if (options_.kept_fraction > 0 && num_kept < count) {
    const PartRef& importance = *model_.weights().layers[layer_].importance;
    const auto* weights = reinterpret_cast<const float*>(
        weights_.ResidentRecord(importance.segment, 0) +
        importance.offset_bytes);
    float skipped = 0;
    const size_t num_selected =
        SelectTop(gates, weights, activation_, static_cast<uint32_t>(count),
                  num_kept, scores_.data(), ids_.data(), &skipped);
    stats_.max_skipped = std::max<double>(stats_.max_skipped, skipped);
    uint32_t next = 0;
    for (const uint32_t kept : ids_.first(num_selected)) {
      std::fill(gates + next, gates + kept, 0.0f);
      next = kept + 1;
    }
    std::fill(gates + next, gates + count, 0.0f);
  }
  stats_.num_kept +=
      static_cast<uint64_t>(static_cast<ptrdiff_t>(count) -
                            std::count(gates + first, gates + last, 0.0f));
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
                 });
        for (size_t t = 0; t < num_tokens_; ++t) {
          float* gate = scratch.gate + t * kFfnTile;
          const float* gates = scratch.gates + t * scratch.gates_stride;
          for (size_t i = begin; i < end; ++i) gate[i] = gates[bundles[i].id];
          GluActivate(activation_, gate + begin,
                      scratch.up + t * kFfnTile + begin, end - begin,
                      gate + begin);
        }
      });

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
