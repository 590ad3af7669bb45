#include "kernels/matmul.h"

#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {

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

void MatMul(const WeightView& w, size_t num_rows, size_t num_cols,
            const float* x, size_t x_stride, size_t num_tokens, float* out,
            size_t out_stride, std::span<const std::byte> next) {
  if (w.type == WeightType::kBf16) {
    MatMulByRow<Bf16>(w, num_rows, num_cols, x, x_stride, num_tokens, out,
                      out_stride, next);
  } else {
    MatMulByRow<float>(w, num_rows, num_cols, x, x_stride, num_tokens, out,
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
