#include "kernels/matmul.h"

#include <algorithm>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {

// Rows and tokens of a block of a batch, chosen so that its partial sums
// (kNumVectors each) and operands fit in the 32 registers of AVX3 and NEON or
// the 16 of the others.
#if HWY_TARGET <= HWY_AVX3
constexpr size_t kBatchRows = 4;
constexpr size_t kBatchTokens = 3;
#elif HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_NEON
constexpr size_t kBatchRows = 1;
constexpr size_t kBatchTokens = 3;
#else
constexpr size_t kBatchRows = 1;
constexpr size_t kBatchTokens = 1;
#endif

template <class W, size_t kRows, size_t kTokens>
HWY_INLINE void MatMulBlock(const std::byte* rows, size_t stride_bytes,
                            size_t num_cols, const float* x, size_t x_stride,
                            size_t num_tokens, float* out, size_t out_stride) {
  size_t t = 0;
  for (; num_tokens - t >= kTokens; t += kTokens) {
    Dots<W, kRows, kTokens>(rows, stride_bytes, x + t * x_stride, x_stride,
                            num_cols, out + t * out_stride, out_stride);
  }
  if constexpr (kTokens > 1) {
    for (; t < num_tokens; ++t) {
      Dots<W, kRows, 1>(rows, stride_bytes, x + t * x_stride, x_stride,
                        num_cols, out + t * out_stride, out_stride);
    }
  }
}

template <class W, size_t kRows, size_t kTokens>
HWY_NOINLINE void MatMulRows(const WeightView& w, size_t num_rows,
                             size_t num_cols, const float* x, size_t x_stride,
                             size_t num_tokens, float* out, size_t out_stride) {
  size_t r = 0;
  for (; num_rows - r >= kRows; r += kRows) {
    MatMulBlock<W, kRows, kTokens>(w.data + r * w.stride_bytes, w.stride_bytes,
                                   num_cols, x, x_stride, num_tokens, out + r,
                                   out_stride);
  }
  if constexpr (kRows > 1) {
    for (; r < num_rows; ++r) {
      MatMulBlock<W, 1, kTokens>(w.data + r * w.stride_bytes, w.stride_bytes,
                                 num_cols, x, x_stride, num_tokens, out + r,
                                 out_stride);
    }
  }
}

template <class W>
HWY_INLINE void MatMulOf(const WeightView& w, size_t num_rows, size_t num_cols,
                         const float* x, size_t x_stride, size_t num_tokens,
                         float* out, size_t out_stride) {
  if (num_tokens < kBatchTokens) {
    // One row at a time: DRAM then sees one ascending stream, which is up to
    // twice as fast as two or four rows in turn (measured on an EPYC).
    MatMulRows<W, 1, 1>(w, num_rows, num_cols, x, x_stride, num_tokens, out,
                        out_stride);
  } else {
    MatMulRows<W, kBatchRows, kBatchTokens>(w, num_rows, num_cols, x, x_stride,
                                            num_tokens, out, out_stride);
  }
}

void MatMul(const WeightView& w, size_t num_rows, size_t num_cols,
            const float* x, size_t x_stride, size_t num_tokens, float* out,
            size_t out_stride) {
  if (w.type == WeightType::kBf16) {
    MatMulOf<Bf16>(w, num_rows, num_cols, x, x_stride, num_tokens, out,
                   out_stride);
  } else {
    MatMulOf<float>(w, num_rows, num_cols, x, x_stride, num_tokens, out,
                    out_stride);
  }
}

// Adds kRows rows to kTokens tokens at the columns of one vector.
template <class W, size_t kRows, size_t kTokens, class D>
HWY_INLINE void AddRowsToColumns(D d, const std::byte* column,
                                 size_t stride_bytes,
                                 const float* HWY_RESTRICT scale,
                                 size_t scale_stride, float* HWY_RESTRICT y,
                                 size_t y_stride) {
  hn::Vec<D> rows[kRows];
  HWY_UNROLL(8)
  for (size_t r = 0; r < kRows; ++r) {
    rows[r] = LoadElements<W>(d, column + r * stride_bytes);
  }
  HWY_UNROLL(4)
  for (size_t t = 0; t < kTokens; ++t) {
    auto sum = hn::LoadU(d, y + t * y_stride);
    HWY_UNROLL(8)
    for (size_t r = 0; r < kRows; ++r) {
      sum = hn::MulAdd(hn::Set(d, scale[t * scale_stride + r]), rows[r], sum);
    }
    hn::StoreU(sum, d, y + t * y_stride);
  }
}

template <class W, size_t kRows, size_t kTokens>
HWY_INLINE void AddRowsToTokens(const std::byte* rows, size_t stride_bytes,
                                size_t num_cols,
                                const float* HWY_RESTRICT scale,
                                size_t scale_stride, float* HWY_RESTRICT y,
                                size_t y_stride) {
  size_t c = 0;
  for (; num_cols - c >= kLanes; c += kLanes) {
    AddRowsToColumns<W, kRows, kTokens>(VectorTag(), rows + c * sizeof(W),
                                        stride_bytes, scale, scale_stride,
                                        y + c, y_stride);
  }
  for (; c < num_cols; ++c) {
    AddRowsToColumns<W, kRows, kTokens>(LaneTag(), rows + c * sizeof(W),
                                        stride_bytes, scale, scale_stride,
                                        y + c, y_stride);
  }
}

template <class W, size_t kRows>
HWY_INLINE void AddRows(const std::byte* rows, size_t stride_bytes,
                        size_t num_cols, const float* HWY_RESTRICT scale,
                        size_t scale_stride, size_t num_tokens,
                        float* HWY_RESTRICT y, size_t y_stride) {
  // No more tokens at once: their strides are often multiples of 4 KiB, and the
  // tokens then share one set of the first-level cache.
  constexpr size_t kTokens = 4;
  size_t t = 0;
  for (; num_tokens - t >= kTokens; t += kTokens) {
    AddRowsToTokens<W, kRows, kTokens>(rows, stride_bytes, num_cols,
                                       scale + t * scale_stride, scale_stride,
                                       y + t * y_stride, y_stride);
  }
  for (; t < num_tokens; ++t) {
    AddRowsToTokens<W, kRows, 1>(rows, stride_bytes, num_cols,
                                 scale + t * scale_stride, scale_stride,
                                 y + t * y_stride, y_stride);
  }
}

template <class W>
HWY_NOINLINE void AddScaledRowsOf(const WeightView& w, size_t num_rows,
                                  size_t num_cols, const float* scale,
                                  size_t scale_stride, size_t num_tokens,
                                  float* y, size_t y_stride) {
  // Eight rows at a time: y is loaded and stored once for all of them, and
  // each is read from its beginning to its end. A batch takes fewer columns at
  // a time, so that its part of y stays in the cache.
  constexpr size_t kRows = 8;
  const size_t cols_at_once =
      num_tokens > 1 ? 512 : std::max<size_t>(num_cols, 1);
  for (size_t c = 0; c < num_cols; c += cols_at_once) {
    const size_t cols = std::min(cols_at_once, num_cols - c);
    const std::byte* columns = w.data + c * sizeof(W);
    size_t i = 0;
    for (; num_rows - i >= kRows; i += kRows) {
      AddRows<W, kRows>(columns + i * w.stride_bytes, w.stride_bytes, cols,
                        scale + i, scale_stride, num_tokens, y + c, y_stride);
    }
    for (; i < num_rows; ++i) {
      AddRows<W, 1>(columns + i * w.stride_bytes, w.stride_bytes, cols,
                    scale + i, scale_stride, num_tokens, y + c, y_stride);
    }
  }
}

void AddScaledRows(const WeightView& w, size_t num_rows, size_t num_cols,
                   const float* scale, size_t scale_stride, size_t num_tokens,
                   float* y, size_t y_stride) {
  if (w.type == WeightType::kBf16) {
    AddScaledRowsOf<Bf16>(w, num_rows, num_cols, scale, scale_stride,
                          num_tokens, y, y_stride);
  } else {
    AddScaledRowsOf<float>(w, num_rows, num_cols, scale, scale_stride,
                           num_tokens, y, y_stride);
  }
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flashelm {

HWY_EXPORT(MatMul);
HWY_EXPORT(AddScaledRows);

void MatMul(const WeightView& w, size_t num_rows, size_t num_cols,
            const float* x, size_t x_stride, size_t num_tokens, float* out,
            size_t out_stride) {
  HWY_DYNAMIC_DISPATCH(MatMul)
  (w, num_rows, num_cols, x, x_stride, num_tokens, out, out_stride);
}

void AddScaledRows(const WeightView& w, size_t num_rows, size_t num_cols,
                   const float* scale, size_t scale_stride, size_t num_tokens,
                   float* y, size_t y_stride) {
  HWY_DYNAMIC_DISPATCH(AddScaledRows)
  (w, num_rows, num_cols, scale, scale_stride, num_tokens, y, y_stride);
}

}  // namespace flashelm
#endif  // HWY_ONCE
