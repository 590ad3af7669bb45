#include "core/sparse_ffn.h"

#include <algorithm>
#include <array>
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

// Words with a bit for each neuron of a layer.
uint64_t NumWords(const LayerConfig& layer) {
  return CeilDiv(layer.ffn_dim, 64u);
}

// What the bits of all layers take.
uint64_t BitsBytes(const ModelFile& model) {
  uint64_t num_words = 0;
  for (const LayerConfig& layer : model.config().layers) {
    num_words += NumWords(layer);
  }
  return RoundUp(num_words * sizeof(uint64_t), kIoAlignment);
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

// sum += gates[i] * columns [begin, end) of a part of bundle i, for one token.
//   gates  [bundles.size()], at most kFfnTile
void AddRowsOf(std::span<const Bundle> bundles, const PartRef& part,
               size_t begin, size_t end, const float* gates, float* sum) {
  std::array<const std::byte*, kFfnTile> rows;
  size_t scales_offset = 0;
  for (size_t i = 0; i < bundles.size(); ++i) {
    const WeightView row =
        Submatrix(ViewOfPart(bundles[i].data, part, 0), 0, begin);
    rows[i] = row.data;
    if (row.scales != nullptr) scales_offset = row.scales - row.data;
  }
  AddScaledRowsAt(rows.data(), WeightTypeOf(part.encoding), scales_offset,
                  bundles.size(), end - begin, gates, sum);
}

// Rows of one token that are worth a call of their own: within it the kernel
// sees to what is fetched.
constexpr size_t kMinRunRows = 8;
// What is fetched before it is multiplied, in bytes, of rows that lie apart.
constexpr uint64_t kApartBytesAhead = uint64_t{16} << 10;

// out[t * kFfnTile + i] = that part of bundle i times token t.
void MultiplyRows(std::span<const Bundle> bundles, const PartRef& part,
                  uint64_t stride_bytes, const BatchProduct& product,
                  uint32_t thread, float* out) {
  const auto view = [&](size_t i) {
    return ViewOfPart(bundles[i].data, part, stride_bytes);
  };
  if (product.TakesRowsAt(WeightTypeOf(part.encoding))) {
    std::array<const std::byte*, kFfnTile> rows;
    for (size_t i = 0; i < bundles.size(); ++i) rows[i] = view(i).data;
    product.RowsAt(rows.data(), bundles.size(), out, kFfnTile);
    return;
  }
  const size_t row_bytes =
      RowBytes(WeightTypeOf(part.encoding), product.num_cols());
  const size_t ahead = kApartBytesAhead / (row_bytes + 1) + 1;
  for (size_t i = 0; i < bundles.size();) {
    size_t count = CountSideBySide(bundles.subspan(i), stride_bytes);
    std::span<const std::byte> next;
    if (product.num_tokens() == 1 && count < kMinRunRows) {
      count = 1;
      if (i + ahead < bundles.size()) next = {view(i + ahead).data, row_bytes};
    }
    product.Rows(view(i), count, thread, out + i, kFfnTile, next);
    i += count;
  }
}

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
  return IdsBytes(model) + BitsBytes(model) +
         NeuronSelector::NumBytes(model, options, num_threads);
}

Result<std::unique_ptr<SparseFfn>> SparseFfn::Create(
    const ModelFile& model, const MemoryPlan& plan,
    const SparsityOptions& options, WeightStore& weights, BundleStore* bundles,
    ThreadPool& pool, MemoryBudget& budget) {
  std::unique_ptr<SparseFfn> ffn(
      new SparseFfn(model, plan, weights, bundles, pool));
  FLASHELM_ASSIGN_OR_RETURN(
      ffn->selector_,
      NeuronSelector::Create(model, options, weights, pool, budget));
  FLASHELM_ASSIGN_OR_RETURN(
      ffn->buffer_, AlignedBuffer::Create(IdsBytes(model) + BitsBytes(model),
                                          budget, "sparse FFN"));
  ffn->ids_ = {reinterpret_cast<uint32_t*>(ffn->buffer_.data()),
               IdsBytes(model) / sizeof(uint32_t)};
  auto* words =
      reinterpret_cast<uint64_t*>(ffn->buffer_.data() + IdsBytes(model));
  for (const LayerConfig& layer : model.config().layers) {
    ffn->last_tokens_.push_back({.kept = {words, NumWords(layer)}});
    words += NumWords(layer);
  }
  const bool is_relu = ffn->activation_ == Activation::kRelu;
  ffn->stats_.knows_active = is_relu && model.has_split_gates();
  ffn->stats_.knows_kept_active = is_relu;
  ffn->stats_.knows_skipped = options.selector == Selector::kGate;
  return ffn;
}

SparseFfn::SparseFfn(const ModelFile& model, const MemoryPlan& plan,
                     WeightStore& weights, BundleStore* bundles,
                     ThreadPool& pool)
    : model_(model),
      weights_(weights),
      bundles_(bundles),
      pool_(pool),
      activation_(ActivationOf(model.config())) {
  uint32_t num_apart = 0;
  for (uint32_t i = 0; i < model.config().num_layers(); ++i) {
    if (plan.streams_neurons(i)) {
      first_apart_.push_back(kStreamed);
      continue;
    }
    first_apart_.push_back(num_apart);
    num_apart += model.has_rows() ? 2 : 1;
  }
}

uint64_t SparseFfn::StrideOf(const PartRef& part) const {
  return model_.weight_file().segments()[part.segment].stride_bytes;
}

Status SparseFfn::Begin(uint32_t layer, uint32_t position, size_t num_tokens) {
  layer_ = layer;
  position_ = position;
  num_tokens_ = num_tokens;
  num_ids_ = 0;
  return IsStreamed() ? OkStatus() : bundles_->Begin(first_apart_[layer]);
}

Status SparseFfn::AddGates(size_t first, size_t count, Scratch& scratch) {
  if (!selector_->takes_gates_one_by_one()) return OkStatus();
  selector_->SelectByGates(first, count, num_tokens_, scratch, stats_);
  const auto ids = CollectNeurons(first, count, scratch);
  return IsStreamed() ? OkStatus() : bundles_->Add(ids);
}

std::span<const uint32_t> SparseFfn::CollectNeurons(size_t first, size_t count,
                                                    const Scratch& scratch) {
  const size_t num_before = num_ids_;
  for (size_t i = first; i < first + count; ++i) {
    bool is_needed = false;
    for (size_t t = 0; t < num_tokens_ && !is_needed; ++t) {
      is_needed = !(scratch.gates[t * scratch.gates_stride + i] == 0);
    }
    if (is_needed) ids_[num_ids_++] = static_cast<uint32_t>(i);
  }
  return ids_.subspan(num_before, num_ids_ - num_before);
}

void SparseFfn::AddBundles(std::span<const Bundle> bundles,
                           const BatchProduct& product, Scratch& scratch) {
  const LayerWeights& weights = model_.weights().layers[layer_];
  const uint64_t stride = StrideOf(weights.down);
  const bool has_gates = weights.has_split_gate();
  const bool has_ups = !weights.has_split_down();
  std::atomic<uint64_t> num_kept_active = 0;
  pool_.ParallelFor(
      bundles.size(), BundleGrain(stride, num_tokens_),
      [&](size_t begin, size_t end, uint32_t part) {
        const auto multiply = [&](const PartRef& rows, float* out) {
          MultiplyRows(bundles.subspan(begin, end - begin), rows, stride,
                       product, part, out + begin);
        };
        if (has_ups) multiply(weights.up, scratch.up);
        if (!has_gates) multiply(weights.gate, scratch.gate);
        uint64_t num_active = 0;
        for (size_t t = 0; t < num_tokens_; ++t) {
          float* gate = scratch.gate + t * kFfnTile;
          float* up = scratch.up + t * kFfnTile;
          const float* gates = scratch.gates + t * scratch.gates_stride;
          const float* ups = scratch.ups + t * scratch.gates_stride;
          for (size_t i = begin; i < end; ++i) {
            if (!has_ups) up[i] = ups[bundles[i].id];
            const float kept = gates[bundles[i].id];
            // Other tokens may have asked for it.
            if (has_gates || kept == 0) gate[i] = kept;
            num_active += gate[i] > 0 ? 1 : 0;
          }
          GluActivate(activation_, gate + begin, up + begin, end - begin,
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
      model_dim,
      GrainFor(model_dim, ElementsBytes(type, bundles.size()), num_tokens_,
               pool_.num_threads()),
      [&](size_t begin, size_t end) {
        if (num_tokens_ == 1) {
          AddRowsOf(bundles, weights.down, begin, end, scratch.gate,
                    scratch.partial + begin);
          return;
        }
        for (size_t i = 0; i < bundles.size();) {
          const size_t count = CountSideBySide(bundles.subspan(i), stride);
          const WeightView rows =
              ViewOfPart(bundles[i].data, weights.down, stride);
          AddScaledRows(Submatrix(rows, 0, begin), count, end - begin,
                        scratch.gate + i, kFfnTile, num_tokens_,
                        scratch.partial + begin, model_dim);
          i += count;
        }
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

void SparseFfn::CountOverlap() {
  LastToken& last = last_tokens_[layer_];
  if (num_tokens_ != 1) {
    last.next_position = UINT32_MAX;  // None was computed alone.
    return;
  }
  const auto ids = ids_.first(num_ids_);
  if (position_ == last.next_position) {
    uint64_t num_in_both = 0;
    for (const uint32_t id : ids) {
      num_in_both += last.kept[id / 64] >> (id % 64) & 1;
    }
    stats_.num_in_both += num_in_both;
    stats_.num_in_either += last.num_kept + num_ids_ - num_in_both;
  }
  std::ranges::fill(last.kept, 0);
  for (const uint32_t id : ids) last.kept[id / 64] |= uint64_t{1} << (id % 64);
  last.num_kept = num_ids_;
  last.next_position = position_ + 1;
}

template <class Use>
Status SparseFfn::ForStreamed(uint32_t part, const Use& use) {
  const LayerWeights& weights = model_.weights().layers[layer_];
  const uint32_t index = (part == 0 ? weights.up : weights.down).segment;
  const Segment& segment = model_.weight_file().segments()[index];
  auto left = ids_.first(num_ids_);
  for (uint64_t record = 0; record < segment.num_records;) {
    FLASHELM_ASSIGN_OR_RETURN(const RecordRun run,
                              weights_.Next(index, record));
    record += run.num_records;
    while (!left.empty() && left[0] < record) {
      size_t count = 0;
      while (count < std::min(left.size(), tile_.size()) &&
             left[count] < record) {
        const uint64_t skip = left[count] - run.first_record;
        tile_[count] = {left[count], run.data + skip * segment.stride_bytes};
        ++count;
      }
      use(std::span<const Bundle>(tile_).first(count));
      left = left.subspan(count);
    }
  }
  return OkStatus();
}

template <class Use>
Status SparseFfn::ForBundles(uint32_t part, const Use& use) {
  if (IsStreamed()) return ForStreamed(part, use);
  if (part > 0) {
    FLASHELM_RETURN_IF_ERROR(
        bundles_->Fetch(first_apart_[layer_] + part, ids_.first(num_ids_)));
  }
  while (true) {
    FLASHELM_ASSIGN_OR_RETURN(const auto batch, bundles_->Next());
    if (!batch) return OkStatus();
    use(*batch);
  }
}

Status SparseFfn::ComputeUps(const BatchProduct& product, Scratch& scratch) {
  const PartRef& rows = model_.weights().layers[layer_].up;
  const uint64_t stride = StrideOf(rows);
  return ForBundles(0, [&](std::span<const Bundle> left) {
    while (!left.empty()) {
      const auto tile = left.first(std::min<size_t>(left.size(), kFfnTile));
      left = left.subspan(tile.size());
      pool_.ParallelFor(tile.size(), BundleGrain(stride, num_tokens_),
                        [&](size_t begin, size_t end, uint32_t part) {
                          MultiplyRows(tile.subspan(begin, end - begin), rows,
                                       stride, product, part,
                                       scratch.up + begin);
                          for (size_t t = 0; t < num_tokens_; ++t) {
                            float* ups = scratch.ups + t * scratch.gates_stride;
                            const float* up = scratch.up + t * kFfnTile;
                            for (size_t i = begin; i < end; ++i)
                              ups[tile[i].id] = up[i];
                          }
                        });
    }
  });
}

Status SparseFfn::Finish(const BatchProduct& product, Scratch& scratch) {
  const uint32_t ffn_dim = model_.config().layers[layer_].ffn_dim;
  if (!selector_->takes_gates_one_by_one()) {
    selector_->Select(layer_, position_, num_tokens_, scratch, stats_);
    const auto ids = CollectNeurons(0, ffn_dim, scratch);
    if (!IsStreamed()) FLASHELM_RETURN_IF_ERROR(bundles_->Add(ids));
  }
  CountOverlap();
  if (model_.has_rows()) {
    FLASHELM_RETURN_IF_ERROR(ComputeUps(product, scratch));
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
  const uint32_t part = model_.has_rows() ? 1 : 0;
  FLASHELM_RETURN_IF_ERROR(ForBundles(part, [&](std::span<const Bundle> left) {
    while (!left.empty()) {
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
  }));
  begin_range_of(ffn_dim);
  return OkStatus();
}

}  // namespace flashelm
