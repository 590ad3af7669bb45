// Products of weights with the activations of a batch, whatever the encoding.
#ifndef FLASHELM_CORE_BATCH_PRODUCT_H_
#define FLASHELM_CORE_BATCH_PRODUCT_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>

#include "core/base/checked_math.h"
#include "core/base/thread_pool.h"
#include "core/scratch.h"
#include "kernels/prefetch.h"
#include "kernels/weight_view.h"

namespace flashelm {

// Work below this, in bytes of weights times tokens, is done before it would
// have been handed to another thread.
inline constexpr uint64_t kMinBytesPerThread = uint64_t{32} << 10;

// Parts of a loop begin at multiples of this: results then fill cache lines,
// columns are whole groups of quantized weights, and rows fill the tiles that
// kernels multiply batches in. Rows for one token have no tiles.
inline constexpr uint64_t kMinGrain = 32;
constexpr uint64_t MinGrain(size_t num_tokens) {
  return num_tokens == 1 ? 16 : kMinGrain;
}

// How many of `count` items of `bytes` each a thread takes: even shares for as
// many threads as they are worth.
inline size_t GrainFor(uint64_t count, uint64_t bytes, size_t num_tokens,
                       uint32_t num_threads, uint64_t min_grain = kMinGrain) {
  const uint64_t work_bytes = count * bytes * num_tokens;
  const uint64_t shares =
      std::clamp<uint64_t>(work_bytes / kMinBytesPerThread, 1, num_threads);
  return RoundUp(CeilDiv(count, shares), min_grain);
}

// What the pool's threads read first in the loop over weights that comes next,
// in the order of their parts, each kFirstBytes at most. A single token's loop
// fetches that at its end, since no lead is won as fast as it is lost.
using FirstWeights = std::span<const std::span<const std::byte>>;
inline constexpr size_t kFirstBytes = kBytesAhead / 2;

// Brings a batch into the form that the kernels of an encoding take, once, and
// multiplies rows with it, as often as rows arrive. Owns nothing: pool and
// scratch outlive it. SetTokens() is for one thread; Rows() for all of a loop.
class BatchProduct {
 public:
  BatchProduct(ThreadPool& pool, const Scratch& scratch)
      : pool_(pool), scratch_(scratch) {}

  // The batch, until the next call: x, [num_tokens, num_cols], token t at
  // x + t * x_stride, stays valid and unchanged. `types`: all those of weights
  // that it is multiplied with.
  void SetTokens(std::initializer_list<WeightType> types, const float* x,
                 size_t x_stride, size_t num_cols, size_t num_tokens);

  // out[t * out_stride + r] = row r of w times token t. `part` is that of the
  // loop of the pool which this is called from. `next`: memory that will be
  // read soon, which a single token fetches meanwhile; may be empty.
  void Rows(const WeightView& w, size_t num_rows, uint32_t part, float* out,
            size_t out_stride, std::span<const std::byte> next = {}) const;

  // The same for a single token: rows are fetched up to kFirstBytes ahead of
  // their turn, `next` with the last of them. `is_fetched`: those that come
  // first have been; otherwise the lead grows from little.
  void RowsOfOneToken(const WeightView& w, size_t num_rows, uint32_t part,
                      float* out, bool is_fetched,
                      std::span<const std::byte> next) const;

  // Whether rows of `type` may lie anywhere, for RowsAt().
  bool TakesRowsAt(WeightType type) const { return packed_type_ == type; }
  // Rows() for rows that lie anywhere, [num_rows].
  void RowsAt(const std::byte* const* rows, size_t num_rows, float* out,
              size_t out_stride) const;

  size_t num_cols() const { return num_cols_; }
  size_t num_tokens() const { return num_tokens_; }

 private:
  ThreadPool& pool_;
  const Scratch& scratch_;
  bool is_quantized_ = false;  // Whether the batch is there as int8.
  // That of the weights which the batch is packed for.
  std::optional<WeightType> packed_type_;
  const float* x_ = nullptr;
  size_t x_stride_ = 0;
  size_t num_cols_ = 0;
  size_t num_tokens_ = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_BATCH_PRODUCT_H_
