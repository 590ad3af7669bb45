#include "kernels/matmul.h"

#include <algorithm>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/dot-inl.h"
#include "kernels/weights-inl.h"

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
    Dots<W, kRows, kTokens, kRows == 1 && kTokens == 1>(
        rows, stride_bytes, x + t * x_stride, x_stride, num_cols,
        out + t * out_stride, out_stride);
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

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flashelm {

HWY_EXPORT(MatMul);

void MatMul(const WeightView& w, size_t num_rows, size_t num_cols,
            const float* x, size_t x_stride, size_t num_tokens, float* out,
            size_t out_stride) {
  HWY_DYNAMIC_DISPATCH(MatMul)
  (w, num_rows, num_cols, x, x_stride, num_tokens, out, out_stride);
}

}  // namespace flashelm
#endif  // HWY_ONCE
