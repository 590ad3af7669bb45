// Fetching weights into the caches before they are multiplied, so that decoding
// reads DRAM at the rate it can give. Changes no result.
#ifndef FLASHELM_KERNELS_PREFETCH_H_
#define FLASHELM_KERNELS_PREFETCH_H_

#include <algorithm>
#include <cstddef>
#include <span>

namespace flashelm {

// Of all processors that matter here, in bytes.
inline constexpr size_t kCacheLine = 64;

// Lines are fetched two by two.
inline constexpr size_t kLinePair = 2 * kCacheLine;

// Fetches a line into the second-level cache, and no nearer: the first level
// waits for two dozen lines at a time (Zen 4), which is 15 GB/s from DRAM. Any
// address will do. Inlined always, both: GCC drops calls of a function that
// only prefetches.
__attribute__((always_inline)) inline void FetchLine(const std::byte* at) {
  __builtin_prefetch(at, /*rw=*/0, /*locality=*/2);
}

// The same into all levels.
__attribute__((always_inline)) inline void FetchLineNear(const std::byte* at) {
  __builtin_prefetch(at, /*rw=*/0, /*locality=*/3);
}

// Whether lines that a caller names are best fetched into all levels: on AMD's
// processors since Zen 5, which drop a part of what is fetched into the second
// level alone. That costs little where the rows of a matrix lie side by side
// and the processor runs ahead by itself, but more of bundles: one thread
// decoded at 0.63 of a stream, and 0.67 with all levels (bf16), 0.73 and 0.81
// (q8).
bool FetchesNear();

// Ascending streams that memory ahead is fetched in: one or two. Intel's
// processors run ahead of each stream, but only to the end of its page, so two
// streams keep more lines on their way (one core of a Granite Rapids: 10.9 and
// 14.6 GB/s, a loop that only reads 14.0). AMD's (Zen 4) read one faster.
size_t FetchStreams();

// What is fetched ahead where work follows the order of memory (bundles need
// more: bundle_steps.h): far below the size of a second-level cache,
// and of few enough pages for the nearest cache of their addresses. A core of a
// Granite Rapids reads a fifth more slowly with twice as much.
inline constexpr size_t kBytesAhead = size_t{96} << 10;

// Fetches memory a line at a time, evenly while other memory is worked on.
class LineFetcher {
 public:
  // Fetches nothing.
  LineFetcher() = default;

  // Fetches `memory`, in whole pairs of lines, while `work_bytes` are worked
  // on; into all levels if `near`.
  LineFetcher(std::span<const std::byte> memory, size_t work_bytes, bool near)
      : near_(near),
        at_(memory.data()),
        pairs_left_(memory.size() / kLinePair),
        rate_(work_bytes == 0
                  ? 0
                  : (memory.size() * kRateUnit + work_bytes - 1) / work_bytes) {
    if (FetchStreams() > 1) {  // One line of each half in turn.
      to_second_ = pairs_left_ * kCacheLine;
      step_ = kCacheLine;
    }
  }

  // So many bytes of the work are done.
  __attribute__((always_inline)) void Advance(size_t num_bytes) {
    due_ += num_bytes * rate_;
    while (due_ >= kLinePair * kRateUnit && pairs_left_ > 0) {
      due_ -= kLinePair * kRateUnit;
      --pairs_left_;
      if (near_) {
        FetchLineNear(at_);
        FetchLineNear(at_ + to_second_);
      } else {
        FetchLine(at_);
        FetchLine(at_ + to_second_);
      }
      at_ += step_;
    }
  }

 private:
  // Fine enough for fetches to last as long as the work.
  static constexpr size_t kRateUnit = 64;

  bool near_ = false;
  const std::byte* at_ = nullptr;
  size_t to_second_ = kCacheLine;
  size_t step_ = kLinePair;
  size_t pairs_left_ = 0;
  size_t rate_ = 0;  // Bytes per byte of work, times kRateUnit.
  size_t due_ = 0;   // Bytes, times kRateUnit.
};

// Memory that is worked on in order, and what of it is to be fetched meanwhile:
// `ahead` bytes before they are needed. That lead is won at the beginning,
// where twice as much is fetched as is worked on; nothing past the end is.
class FetchCursor {
 public:
  explicit FetchCursor(std::span<const std::byte> memory,
                       size_t ahead = kBytesAhead)
      : memory_(memory), ahead_(ahead) {}

  // What to fetch while the next `num_bytes` are worked on.
  std::span<const std::byte> Advance(size_t num_bytes) {
    worked_ += num_bytes;
    const size_t due = std::min(worked_ + ahead_, memory_.size()) - fetched_;
    const size_t count = std::min(due, 2 * num_bytes) / kLinePair * kLinePair;
    const auto next = memory_.subspan(fetched_, count);
    fetched_ += count;
    return next;
  }

 private:
  std::span<const std::byte> memory_;
  size_t ahead_;
  size_t worked_ = 0;
  size_t fetched_ = 0;
};

// What is fetched while the rows of a matrix are worked on in order: `next`,
// where the caller knows what will be read after them, or those of the matrix
// itself that are still to come.
class RowFetcher {
 public:
  // Rows of `row_bytes` at data + r * stride_bytes; `next` may be empty.
  RowFetcher(const std::byte* data, size_t stride_bytes, size_t row_bytes,
             size_t num_rows, std::span<const std::byte> next)
      : data_(data),
        stride_bytes_(stride_bytes),
        row_bytes_(row_bytes),
        num_rows_(num_rows),
        apart_(stride_bytes != row_bytes),
        cursor_({data, apart_ ? 0 : num_rows * row_bytes}) {
    if (!next.empty()) {
      lines_ = LineFetcher(next, num_rows * row_bytes, FetchesNear());
      rows_left_ = num_rows;
    }
  }

  // To be called before each row, in order.
  LineFetcher& BeginRow(size_t r) {
    if (rows_left_ == 0) BeginRows(r);
    --rows_left_;
    return lines_;
  }

 private:
  // Some rows at a time, so that they may be fetched in two streams: few at
  // first, until there is a lead.
  void BeginRows(size_t r) {
    if (apart_) {
      const size_t ahead = kBytesAhead / 6 / (row_bytes_ + 1) + 1;
      rows_left_ = 1;
      if (r + ahead >= num_rows_) {
        lines_ = LineFetcher();
        return;
      }
      lines_ = LineFetcher({data_ + (r + ahead) * stride_bytes_, row_bytes_},
                           row_bytes_, /*near=*/false);
      return;
    }
    rows_left_ = step_bytes_ / (row_bytes_ + 1) + 1;
    lines_ = LineFetcher(cursor_.Advance(rows_left_ * row_bytes_),
                         rows_left_ * row_bytes_, /*near=*/false);
    step_bytes_ = std::min(2 * step_bytes_, kBytesAhead);
  }

  const std::byte* data_;
  size_t stride_bytes_;
  size_t row_bytes_;
  size_t num_rows_;
  bool apart_;
  FetchCursor cursor_;
  size_t step_bytes_ = kBytesAhead / 32;
  size_t rows_left_ = 0;  // That `lines_` is for.
  LineFetcher lines_;
};

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_PREFETCH_H_
