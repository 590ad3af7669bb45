#include "kernels/matmul.h"

#include <algorithm>
#include <cstddef>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/dot-inl.h"
#include "kernels/weights-inl.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {

// Rows and tokens of a tile: their sums and operands fill the 32 registers of
// AVX3 and NEON, or the 16 of the others. The fewer loads for each product the
// better: with 7 for 12 a core of the Zen 4 kind makes 51 GMAC/s of 58, with 10
// for 24 it makes 55.
#if HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr size_t kTileRows = 4;
constexpr size_t kTileTokens = 6;
#else
constexpr size_t kTileRows = 2;
constexpr size_t kTileTokens = 4;
#endif

// One row at a time: the loads of two or four rows in turn are up to twice as
// slow (measured on an EPYC).
template <class W>
HWY_NOINLINE void MatMulByRow(const WeightView& w, size_t num_rows,
                              size_t num_cols, const float* x, size_t x_stride,
                              size_t num_tokens, float* out, size_t out_stride,
                              std::span<const std::byte> next) {
  RowFetcher fetcher(w.data, w.stride_bytes, num_cols * sizeof(W), num_rows,
                     next);
  for (size_t r = 0; r < num_rows; ++r) {
    const std::byte* row = w.data + r * w.stride_bytes;
    LineFetcher& lines = fetcher.BeginRow(r);
    for (size_t t = 0; t < num_tokens; ++t) {
      Dots<W, 1, 1>(row, w.stride_bytes, x + t * x_stride, x_stride, num_cols,
                    out + t * out_stride + r, out_stride,
                    t == 0 ? &lines : nullptr);
    }
  }
}

// Columns that are multiplied before others, and rows: the part of the tokens,
// 12 KiB, stays in the nearest cache while these rows, 16 KiB of bf16, are
// multiplied with it. Where tokens came from the second level for every four
// rows, two cores of a Turin made 0.59 of their peak, with blocks 0.74.
constexpr size_t kColsTogether = 512;
constexpr size_t kRowsTogether = 16;

using Partials = float[kNumPartials];

// Adds columns [begin, end) of kRows rows times kTokens tokens to their partial
// sums, or begins with these. Only one vector of the partial sums of each
// product is in registers at a time, so that more products share a load.
// `fetch`: as many rows after these are fetched meanwhile.
//   begin, end  multiples of kNumPartials
//   partials    [kRows][kTokens]
template <class W, size_t kRows, size_t kTokens>
HWY_INLINE void MatMulTile(const std::byte* rows, size_t stride_bytes,
                           size_t begin, size_t end,
                           const float* HWY_RESTRICT x, size_t x_stride,
                           bool fetch, Partials* HWY_RESTRICT partials) {
  const VectorTag d;
  HWY_UNROLL(1)
  for (size_t i = 0; i < kNumPartials; i += kLanes) {
    Vector sums[kRows][kTokens];
    HWY_UNROLL(4)
    for (size_t r = 0; r < kRows; ++r) {
      HWY_UNROLL(6)
      for (size_t t = 0; t < kTokens; ++t) {
        sums[r][t] = begin == 0 ? hn::Zero(d)
                                : hn::Load(d, partials[r * kTokens + t] + i);
      }
    }
    const bool fetch_now = fetch && i == 0;
    for (size_t k = begin + i; k < end; k += kNumPartials) {
      if (fetch_now) {
        FetchRows(rows + kRows * stride_bytes + k * sizeof(W), stride_bytes,
                  kRows, kNumPartials * sizeof(W));
      }
      Vector weights[kRows];
      HWY_UNROLL(4)
      for (size_t r = 0; r < kRows; ++r) {
        weights[r] =
            LoadElements<W>(d, rows + r * stride_bytes + k * sizeof(W));
      }
      HWY_UNROLL(6)
      for (size_t t = 0; t < kTokens; ++t) {
        const Vector xs = hn::LoadU(d, x + t * x_stride + k);
        HWY_UNROLL(4)
        for (size_t r = 0; r < kRows; ++r) {
          sums[r][t] = hn::MulAdd(weights[r], xs, sums[r][t]);
        }
      }
    }
    HWY_UNROLL(4)
    for (size_t r = 0; r < kRows; ++r) {
      HWY_UNROLL(6)
      for (size_t t = 0; t < kTokens; ++t) {
        hn::Store(sums[r][t], d, partials[r * kTokens + t] + i);
      }
    }
  }
}

// At most kRowsTogether rows, `cols_together` columns after the other.
template <class W, size_t kTokens>
HWY_NOINLINE void MatMulBlock(const WeightView& w, size_t num_rows,
                              size_t num_cols, size_t cols_together,
                              const float* x, size_t x_stride, bool fetch,
                              float* out, size_t out_stride) {
  alignas(kCacheLine) Partials partials[kRowsTogether * kTokens];
  for (size_t begin = 0; begin < num_cols; begin += cols_together) {
    const size_t end = std::min(begin + cols_together, num_cols);
    size_t r = 0;
    const auto multiply = [&](auto rows) HWY_ATTR {
      for (; num_rows - r >= rows(); r += rows()) {
        MatMulTile<W, rows(), kTokens>(w.data + r * w.stride_bytes,
                                       w.stride_bytes, begin, end, x, x_stride,
                                       fetch, partials + r * kTokens);
      }
    };
    multiply(std::integral_constant<size_t, kTileRows>());
    multiply(std::integral_constant<size_t, 1>());
  }
  for (size_t t = 0; t < kTokens; ++t) {
    for (size_t r = 0; r < num_rows; ++r) {
      Vector sums[kNumVectors];
      HWY_UNROLL(32)
      for (size_t i = 0; i < kNumVectors; ++i) {
        sums[i] = hn::Load(VectorTag(), partials[r * kTokens + t] + i * kLanes);
      }
      out[t * out_stride + r] = ReducePartials(sums);
    }
  }
}

template <class W, size_t kTokens>
HWY_INLINE void MatMulPanel(const WeightView& w, size_t num_rows,
                            size_t num_cols, size_t cols_together,
                            const float* x, size_t x_stride, bool fetch,
                            float* out, size_t out_stride) {
  for (size_t r = 0; r < num_rows; r += kRowsTogether) {
    MatMulBlock<W, kTokens>(
        Submatrix(w, r, 0), std::min(kRowsTogether, num_rows - r), num_cols,
        cols_together, x, x_stride, fetch, out + r, out_stride);
  }
}

// Weights that stay in the second-level cache while all tokens of a batch are
// multiplied with them.
constexpr size_t kPanelBytes = size_t{384} << 10;

template <class W>
HWY_INLINE void MatMulBatch(const WeightView& w, size_t num_rows,
                            size_t num_cols, const float* x, size_t x_stride,
                            size_t num_tokens, float* out, size_t out_stride) {
  const size_t panel_rows = std::max<size_t>(
      kTileRows, kPanelBytes / (num_cols * sizeof(W)) / kTileRows * kTileRows);
  // Few tokens wait for DRAM, where a tile's rows are fetched while the one
  // before is multiplied: whole rows give it the time.
  constexpr size_t kFewTokens = 8;
  const size_t cols_together =
      num_tokens > kFewTokens ? kColsTogether : num_cols;
  for (size_t r = 0; r < num_rows; r += panel_rows) {
    const WeightView panel = Submatrix(w, r, 0);
    const size_t rows = std::min(panel_rows, num_rows - r);
    size_t t = 0;
    const auto multiply = [&](auto tokens) HWY_ATTR {
      // Two tiles of 4 are faster than one of 6 and one of 2.
      for (;
           num_tokens - t >= tokens() && (tokens() < 6 || num_tokens - t != 8);
           t += tokens()) {
        MatMulPanel<W, tokens()>(panel, rows, num_cols, cols_together,
                                 x + t * x_stride, x_stride, /*fetch=*/t == 0,
                                 out + t * out_stride + r, out_stride);
      }
    };
    multiply(std::integral_constant<size_t, kTileTokens>());
    if constexpr (kTileTokens > 4) {
      multiply(std::integral_constant<size_t, 4>());
    }
    multiply(std::integral_constant<size_t, 2>());
    multiply(std::integral_constant<size_t, 1>());
  }
}

template <class W>
HWY_INLINE void MatMulOf(const WeightView& w, size_t num_rows, size_t num_cols,
                         const float* x, size_t x_stride, size_t num_tokens,
                         float* out, size_t out_stride,
                         std::span<const std::byte> next) {
  constexpr size_t kMinBatch = 3;
  if (num_tokens < kMinBatch || num_cols == 0 || num_cols % kNumPartials != 0) {
    MatMulByRow<W>(w, num_rows, num_cols, x, x_stride, num_tokens, out,
                   out_stride, next);
  } else {
    MatMulBatch<W>(w, num_rows, num_cols, x, x_stride, num_tokens, out,
                   out_stride);
  }
}

void MatMul(const WeightView& w, size_t num_rows, size_t num_cols,
            const float* x, size_t x_stride, size_t num_tokens, float* out,
            size_t out_stride, std::span<const std::byte> next) {
  if (w.type == WeightType::kBf16) {
    MatMulOf<Bf16>(w, num_rows, num_cols, x, x_stride, num_tokens, out,
                   out_stride, next);
  } else {
    MatMulOf<float>(w, num_rows, num_cols, x, x_stride, num_tokens, out,
                    out_stride, next);
  }
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flashelm {

HWY_EXPORT(MatMul);

void MatMul(const WeightView& w, size_t num_rows, size_t num_cols,
            const float* x, size_t x_stride, size_t num_tokens, float* out,
            size_t out_stride, std::span<const std::byte> next) {
  HWY_DYNAMIC_DISPATCH(MatMul)
  (w, num_rows, num_cols, x, x_stride, num_tokens, out, out_stride, next);
}

}  // namespace flashelm
#endif  // HWY_ONCE
