#include "core/dense_ffn.h"

#include <algorithm>
#include <array>

#include "core/base/checked_math.h"
#include "kernels/norm.h"
#include "kernels/quant_sum.h"
#include "storage/planar.h"

namespace flashelm {
namespace {

// About what a thread takes of the bundles of a single token before all of them
// add down columns, which are still in their second-level caches then.
constexpr uint64_t kPieceBytes = uint64_t{512} << 10;

// Parts that a bundle has: down, and gate and up unless they are elsewhere.
uint64_t NumParts(const LayerWeights& weights) {
  return 1 + uint64_t{!weights.has_split_gate()} +
         uint64_t{!weights.has_split_down()};
}

// Of `count` bundles of a run, from its i-th on, those whose parts lie
// together.
size_t NumTogether(const RecordRun& run, size_t i, size_t count) {
  if (!run.is_planar) return count;
  return std::min<size_t>(count, kPlanarRecords - i % kPlanarRecords);
}

}  // namespace

DenseFfn::DenseFfn(const ModelFile& model, WeightStore& store, ThreadPool& pool,
                   Scratch& scratch)
    : config_(model.config()),
      weights_(model.weights()),
      segments_(model.weight_file().segments()),
      store_(store),
      pool_(pool),
      s_(scratch),
      down_columns_(scratch, config_.model_dim),
      activation_(ActivationOf(config_)) {}

Status DenseFfn::Add(uint32_t layer, const BatchProduct& product,
                     FfnObserver* observer, FirstWeights first) {
  SetLayer(layer);
  const uint32_t segment = weights_.layers[layer].down.segment;
  num_tokens_ = product.num_tokens();
  product_ = &product;
  observer_ = observer;
  first_ = first;
  std::fill_n(s_.partial, num_tokens_ * config_.model_dim, 0.0f);
  for (uint32_t neuron = 0; neuron < ffn_dim_;) {
    FLASHELM_ASSIGN_OR_RETURN(const RecordRun run,
                              store_.Next(segment, neuron));
    const uint64_t end = run.first_record + run.num_records;
    while (neuron < end) {
      FLASHELM_ASSIGN_OR_RETURN(neuron, AddSome(run, neuron));
      if (neuron < end) FLASHELM_RETURN_IF_ERROR(store_.KeepReading());
    }
  }
  return OkStatus();
}

void DenseFfn::SetLayer(uint32_t layer) {
  const Segment& segment = segments_[weights_.layers[layer].down.segment];
  layer_ = layer;
  ffn_dim_ = config_.layers[layer].ffn_dim;
  stride_bytes_ = segment.stride_bytes;
  part_bytes_ = segment.parts[0].num_bytes();
}

bool DenseFfn::FetchesNext(uint32_t layer) const {
  const auto run = store_.FindResident(weights_.layers[layer].down.segment);
  return run && run->is_planar;
}

void DenseFfn::FindFirst(uint32_t layer,
                         std::span<std::span<const std::byte>> first) {
  const LayerWeights& weights = weights_.layers[layer];
  const auto run = store_.FindResident(weights.down.segment);
  if (!run || !run->is_planar || weights.has_split_gate()) return;
  SetLayer(layer);
  const uint64_t run_bytes = run->num_records * stride_bytes_;
  const uint32_t num_ranges = WholeRanges(0, ffn_dim_);
  for (uint32_t part = 0; part < first.size(); ++part) {
    const auto range =
        static_cast<uint32_t>(pool_.PartBegin(num_ranges, RangeGrain(), part));
    // As loops count ranges: without the empty ones of few neurons.
    uint32_t neuron = 0;
    for (uint32_t i = 0; i < range; ++i) neuron = FfnRangeEnd(ffn_dim_, neuron);
    const uint64_t offset =
        neuron < ffn_dim_ ? PartOffset(*run, neuron, weights.gate) : run_bytes;
    first[part] = {run->data + offset,
                   std::min(run_bytes - offset, uint64_t{kFirstBytes})};
  }
}

// Neurons of a run from `neuron` on; returns where they end.
Result<uint32_t> DenseFfn::AddSome(const RecordRun& run, uint32_t neuron) {
  FLASHELM_RETURN_IF_ERROR(store_.CheckCancelled());
  const auto run_end =
      static_cast<uint32_t>(run.first_record + run.num_records);
  const uint32_t tile = FfnTile(num_tokens_);
  uint32_t end = std::min(
      {neuron + NeuronsPerPiece(), neuron + tile - neuron % tile, run_end});
  if (IsOneToken()) {
    const uint32_t num_ranges = WholeRanges(neuron, run_end);
    if (num_ranges > 0) return AddRangesOfOneToken(run, neuron, num_ranges);
    const uint32_t range_end = FfnRangeEnd(ffn_dim_, neuron);
    if (range_end < end && WholeRanges(range_end, run_end) > 0) {
      end = range_end;
    }
  }
  AddPiece(run, neuron, end - neuron);
  return end;
}

// Neurons that threads share out at a time: for a single token, as many as
// whole blocks have.
uint32_t DenseFfn::NeuronsPerPiece() const {
  if (num_tokens_ > 1) return FfnTile(num_tokens_);
  const uint64_t neurons = pool_.num_threads() * kPieceBytes / stride_bytes_;
  return static_cast<uint32_t>(std::max<uint64_t>(1, neurons / kQuantSumRows) *
                               kQuantSumRows);
}

// Neurons [first, first + count) of one tile. Threads share the neurons, then
// the columns, so that each sum runs over neurons in order.
void DenseFfn::AddPiece(const RecordRun& run, uint32_t first, uint32_t count) {
  const size_t grain = GrainFor(count, stride_bytes_, num_tokens_,
                                pool_.num_threads(), MinGrain(num_tokens_));
  pool_.ParallelFor(count, grain, [&](size_t begin, size_t end, uint32_t part) {
    Activate(run, first, begin, end, part);
  });
  AddDown(run, first, count);
}

// gate[i] = act(g_i . b) (u_i . b) for neurons [begin, end) of those from
// `first` on.
void DenseFfn::Activate(const RecordRun& run, uint32_t first, size_t begin,
                        size_t end, uint32_t part) {
  const LayerWeights& weights = weights_.layers[layer_];
  const uint32_t tile = FfnTile(num_tokens_);
  const size_t in_run = first - run.first_record + begin;
  const size_t count = end - begin;
  float* gate = s_.gate + first % tile + begin;
  float* up = s_.up + first % tile + begin;
  if (IsOneToken() && !run.is_planar) {
    // Of bundles their down columns, too, which are still near when they are
    // added.
    FetchCursor ahead(
        {run.data + in_run * stride_bytes_, count * stride_bytes_});
    const uint64_t share =
        stride_bytes_ / std::max<uint64_t>(1, NumParts(weights) - 1);
    ActivateForOneToken(run, in_run, count, part, share, ahead, gate, up);
    return;
  }
  const auto multiply = [&](const PartRef& matrix, float* out) {
    for (size_t i = 0, rows = 0; i < count; i += rows) {
      rows = NumTogether(run, in_run + i, count - i);
      product_->Rows(View(run, in_run + i, matrix), rows, part, out + i, tile);
    }
  };
  const auto copy = [&](const float* all, float* out) {
    for (size_t t = 0; t < num_tokens_; ++t) {
      std::copy_n(all + t * s_.gates_stride + first + begin, count,
                  out + t * tile);
    }
  };
  if (weights.has_split_gate()) {
    copy(s_.gates, gate);
  } else {
    multiply(weights.gate, gate);
  }
  if (weights.has_split_down()) {
    copy(s_.ups, up);
  } else {
    multiply(weights.up, up);
  }
  if (observer_ != nullptr) {
    observer_->OnGates(layer_, first + static_cast<uint32_t>(begin), count,
                       num_tokens_, gate, tile);
  }
  for (size_t t = 0; t < num_tokens_; ++t) {
    GluActivate(activation_, gate + t * tile, up + t * tile, count,
                gate + t * tile);
  }
}

// Adds the down columns of neurons [first, first + count) of one tile.
void DenseFfn::AddDown(const RecordRun& run, uint32_t first, uint32_t count) {
  const size_t model_dim = config_.model_dim;
  const PartRef& down = weights_.layers[layer_].down;
  const size_t grain =
      GrainFor(model_dim, ElementsBytes(WeightTypeOf(down.encoding), count),
               num_tokens_, pool_.num_threads());
  pool_.ParallelFor(
      model_dim, grain, [&](size_t begin, size_t end, uint32_t part) {
        const uint32_t last = first + count;
        for (uint32_t neuron = first; neuron < last;) {
          const uint32_t range_end = FfnRangeEnd(ffn_dim_, neuron);
          const size_t in_run = neuron - run.first_record;
          const auto next = static_cast<uint32_t>(
              neuron +
              NumTogether(run, in_run, std::min(range_end, last) - neuron));
          down_columns_.Add({View(run, in_run, down), neuron, next,
                             /*ends_range=*/next == range_end},
                            begin, end, part, s_.gate, num_tokens_,
                            s_.partial + begin);
          neuron = next;
          if (neuron < range_end) continue;
          for (size_t t = 0; t < num_tokens_; ++t) {
            float* sum = s_.partial + t * model_dim + begin;
            AddInPlace(sum, end - begin, s_.x + t * model_dim + begin);
            std::fill_n(sum, end - begin, 0.0f);
          }
        }
      });
}

// gate[i] = act(g_i . b) (u_i . b) for neurons [first, first + count) of a run,
// for a single token; `up` is overwritten. Fetches what is ahead, as if each
// gate and each up took `share` bytes.
void DenseFfn::ActivateForOneToken(const RecordRun& run, size_t first,
                                   size_t count, uint32_t part, uint64_t share,
                                   FetchCursor& ahead, float* gate, float* up) {
  const LayerWeights& weights = weights_.layers[layer_];
  const bool has_gate = !weights.has_split_gate();
  const bool has_up = !weights.has_split_down();
  const size_t step = steps().gates;
  for (size_t i = 0; i < count; i += step) {
    const size_t rows = std::min(step, count - i);
    const auto multiply = [&](const PartRef& matrix, float* out) {
      product_->Rows(View(run, first + i, matrix), rows, part, out + i, 0,
                     ahead.Advance(rows * share));
    };
    if (has_gate) multiply(weights.gate, gate);
    if (has_up) multiply(weights.up, up);
  }
  const size_t neuron = run.first_record + first;
  GluActivate(activation_, has_gate ? gate : s_.gates + neuron,
              has_up ? up : s_.ups + neuron, count, gate);
}

BundleSteps DenseFfn::steps() const {
  return BundleStepsOf(WeightTypeOf(weights_.layers[layer_].down.encoding));
}

// Ranges of a single token that are worth a thread.
size_t DenseFfn::RangeGrain() const {
  return std::max<uint64_t>(
      1, kMinBytesPerThread * kFfnRanges / (stride_bytes_ * ffn_dim_));
}

WeightView DenseFfn::View(const RecordRun& run, size_t i,
                          const PartRef& part) const {
  return ViewOfPart(run.data + PartOffset(run, i, part) - part.offset_bytes,
                    part, run.is_planar ? part_bytes_ : stride_bytes_);
}

// Where that begins.
uint64_t DenseFfn::PartOffset(const RecordRun& run, size_t i,
                              const PartRef& part) const {
  if (!run.is_planar) return i * stride_bytes_ + part.offset_bytes;
  const uint64_t block = RoundDown(i, kPlanarRecords);
  const uint64_t num_in_block =
      std::min<uint64_t>(kPlanarRecords, run.num_records - block);
  return block * stride_bytes_ + num_in_block * part.offset_bytes +
         (i - block) * part_bytes_;
}

// How many whole ranges begin at `neuron` and end by `end`, of those the most
// that keep all threads busy.
uint32_t DenseFfn::WholeRanges(uint32_t neuron, uint32_t end) const {
  if (neuron > 0 && FfnRangeEnd(ffn_dim_, neuron - 1) != neuron) return 0;
  uint32_t count = 0;
  for (uint32_t at = neuron; at < end; ++count) {
    at = FfnRangeEnd(ffn_dim_, at);
    if (at > end) break;
  }
  const bool is_layer = neuron == 0 && end == ffn_dim_;
  return is_layer ? count : count - count % pool_.num_threads();
}

// Whole ranges, which begin at `neuron`, for a single token: a thread goes
// through the bundles of its ranges once, from gate to down, and waits for
// nobody. Returns where they end.
Result<uint32_t> DenseFfn::AddRangesOfOneToken(const RecordRun& run,
                                               uint32_t neuron,
                                               uint32_t num_ranges) {
  const LayerWeights& weights = weights_.layers[layer_];
  const size_t model_dim = config_.model_dim;
  std::array<size_t, kFfnRanges + 1> begins;  // In the run.
  for (uint32_t range = 0; range <= num_ranges; ++range) {
    begins[range] = neuron - run.first_record;
    if (range < num_ranges) neuron = FfnRangeEnd(ffn_dim_, neuron);
  }
  const size_t step = steps().bundles;
  const size_t num_parts = NumParts(weights);
  Status status;  // Of the caller's part.
  pool_.ParallelFor(
      num_ranges, RangeGrain(), [&](size_t begin, size_t end, uint32_t part) {
        FetchCursor ahead(
            {run.data + begins[begin] * stride_bytes_,
             (begins[end] - begins[begin]) * stride_bytes_},
            BundleBytesAhead(steps(), stride_bytes_ / num_parts, num_parts));
        for (size_t range = begin; range < end; ++range) {
          float* sum = s_.ranges + range * model_dim;
          std::fill_n(sum, model_dim, 0.0f);
          const size_t last = begins[range + 1];
          if (run.is_planar) {
            AddPlanarOfOneToken(run, begins[range], last, begins[end], part,
                                sum);
          } else {
            for (size_t i = begins[range]; i < last; i += step) {
              AddNeuronsOfOneToken(run, i, std::min(step, last - i), part,
                                   ahead, sum);
            }
          }
          if (part == 0 && status.ok()) status = store_.KeepReading();
        }
      });
  FLASHELM_RETURN_IF_ERROR(status);
  for (uint32_t range = 0; range < num_ranges; ++range) {
    AddInPlace(s_.ranges + range * model_dim, model_dim, s_.x);
  }
  return neuron;
}

// Neurons [first, first + count) of a run, whose bundles pass through a core's
// caches once, in their order.
void DenseFfn::AddNeuronsOfOneToken(const RecordRun& run, size_t first,
                                    size_t count, uint32_t part,
                                    FetchCursor& ahead, float* sum) {
  const LayerWeights& weights = weights_.layers[layer_];
  const uint64_t share = stride_bytes_ / NumParts(weights);
  float gate[kMaxBundlesOfStep];
  float up[kMaxBundlesOfStep];
  ActivateForOneToken(run, first, count, part, share, ahead, gate, up);
  AddDownColumns(View(run, first, weights.down), count, config_.model_dim, gate,
                 0, 1, nullptr, sum, 0, ahead.Advance(count * share));
}

// Neurons [first, last) of a planar run: parts of some neurons at a time, while
// the parts that come next are fetched, up to those of the neuron before `end`,
// then what the thread reads first in the next loop.
void DenseFfn::AddPlanarOfOneToken(const RecordRun& run, size_t first,
                                   size_t last, size_t end, uint32_t part,
                                   float* sum) {
  constexpr size_t kStep = kQuantSumRows;
  static_assert(kPlanarRecords % kStep == 0);
  const LayerWeights& weights = weights_.layers[layer_];
  const bool has_gate = !weights.has_split_gate();
  // Rows of a matrix that a step from neuron i on goes through.
  const auto rows_at = [&](const PartRef& matrix, size_t i) {
    const size_t count = std::min(kStep, end - i);
    return std::span(run.data + PartOffset(run, i, matrix),
                     count * part_bytes_);
  };
  float gate[kStep];
  float up[kStep];
  for (size_t i = first; i < last; i += kStep) {
    const size_t count = std::min(kStep, last - i);
    if (has_gate) {
      product_->Rows(View(run, i, weights.gate), count, part, gate, 0,
                     rows_at(weights.up, i));
    }
    product_->Rows(View(run, i, weights.up), count, part, up, 0,
                   rows_at(weights.down, i));
    GluActivate(activation_, has_gate ? gate : s_.gates + run.first_record + i,
                up, count, gate);
    std::span<const std::byte> next = first_[part];
    if (i + count < end) {
      next = rows_at(has_gate ? weights.gate : weights.up, i + count);
    }
    AddDownColumns(View(run, i, weights.down), count, config_.model_dim, gate,
                   0, 1, nullptr, sum, 0, next);
  }
}

}  // namespace flashelm
