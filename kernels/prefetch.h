// Fetching weights into the caches before they are multiplied, so that decoding
// reads DRAM at the rate it can give. Changes no result.
#ifndef FLASHELM_KERNELS_PREFETCH_H_
#define FLASHELM_KERNELS_PREFETCH_H_

#include <algorithm>
#include <cstddef>

namespace flashelm {

// Of all processors that matter here, in bytes.
inline constexpr size_t kCacheLine = 64;

// Fetches a line into the second-level cache, and no nearer: the first level
// waits for two dozen lines at a time (Zen 4), which is 15 GB/s from DRAM. Any
// address will do. Inlined always: GCC drops calls of a function that only
// prefetches.
__attribute__((always_inline)) inline void FetchLine(const std::byte* at) {
  __builtin_prefetch(at, /*rw=*/0, /*locality=*/2);
}

// Ascending streams that memory ahead is fetched in: one or two. Intel's
// processors run ahead of each stream, but only to the end of its page, so two
// streams keep more lines on their way (one core of a Granite Rapids: 10.9 and
// 14.6 GB/s, a loop that only reads 14.0). AMD's (Zen 4) read one faster.
size_t FetchStreams();

// What is fetched at once, at most: far below the size of a second-level cache,
// and of few enough pages for the nearest cache of their addresses. A core of a
// Granite Rapids reads a fifth more slowly with twice as much.
inline constexpr size_t kBytesAhead = size_t{96} << 10;

// Fetches memory a line at a time, while other memory is worked on.
class LineFetcher {
 public:
  // Fetches nothing.
  LineFetcher() = default;

  // `num_bytes` from `begin` on, in whole pairs of lines; none from null.
  LineFetcher(const std::byte* begin, size_t num_bytes)
      : at_(begin), pairs_left_(begin == nullptr ? 0 : num_bytes / kPairBytes) {
    if (FetchStreams() > 1) {  // One line of each half in turn.
      to_second_ = pairs_left_ * kCacheLine;
      step_ = kCacheLine;
    }
  }

  // Fetches about `num_bytes` more.
  __attribute__((always_inline)) void Advance(size_t num_bytes) {
    due_ += num_bytes;
    while (due_ >= kPairBytes && pairs_left_ > 0) {
      due_ -= kPairBytes;
      --pairs_left_;
      FetchLine(at_);
      FetchLine(at_ + to_second_);
      at_ += step_;
    }
  }

 private:
  static constexpr size_t kPairBytes = 2 * kCacheLine;

  const std::byte* at_ = nullptr;
  size_t to_second_ = kCacheLine;
  size_t step_ = kPairBytes;
  size_t pairs_left_ = 0;
  size_t due_ = 0;  // Bytes.
};

// What is fetched while the rows of a matrix are worked on in order: `next`,
// where the caller knows what will be read after them, or those of the matrix
// itself that are still to come.
class RowFetcher {
 public:
  // Rows of `row_bytes` at data + r * stride_bytes; `next`: as much memory as
  // they take, or null.
  RowFetcher(const std::byte* data, size_t stride_bytes, size_t row_bytes,
             size_t num_rows, const std::byte* next)
      : data_(data),
        stride_bytes_(stride_bytes),
        row_bytes_(row_bytes),
        num_rows_(num_rows) {
    if (next != nullptr) {
      lines_ = LineFetcher(next, num_rows * row_bytes);
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
  void BeginRows(size_t r) {
    const bool apart = stride_bytes_ != row_bytes_;
    const size_t ahead =
        (apart ? kBytesAhead / 6 : kBytesAhead) / (row_bytes_ + 1) + 1;
    rows_left_ = apart ? 1 : ahead;
    const size_t first = std::min(num_rows_, r + ahead);
    lines_ = LineFetcher(data_ + first * stride_bytes_,
                         std::min(rows_left_, num_rows_ - first) * row_bytes_);
  }

  const std::byte* data_;
  size_t stride_bytes_;
  size_t row_bytes_;
  size_t num_rows_;
  size_t rows_left_ = 0;  // That `lines_` is for.
  LineFetcher lines_;
};

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_PREFETCH_H_
