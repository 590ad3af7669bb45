// Products of a weight matrix with the activations of one or many tokens.
//
// Canonical order. Every dot product of f32 or bf16 elements, here, in RMSNorm
// and in attention, is computed as
//
//   partial[j] = 0                                        for j in [0, 32)
//   partial[k % 32] = fma(w[k], x[k], partial[k % 32])    k ascending
//   partial[j] += partial[j + half]      for half = 16, 8, 4, 2, 1; j < half
//   result = partial[0]
//
// whatever the SIMD target, the number of tokens, the split of rows over
// threads and the alignment. So one token has the same bits alone and in a
// batch, and all targets with a fused multiply-add agree bit for bit (tested
// for AVX2 and AVX3). The targets without one (SSE4, EMU128, SCALAR)
// keep the order but round each product first; they agree with each other.
#ifndef FLASHELM_KERNELS_MATMUL_H_
#define FLASHELM_KERNELS_MATMUL_H_

#include <cstddef>
#include <span>

#include "kernels/weight_view.h"

namespace flashelm {

// out[t * out_stride + r] = dot(row r of w, token t of x), in canonical order.
//   w    [num_rows, num_cols]    f32 or bf16, rows at any address
//   x    [num_tokens, num_cols]  token t begins at x + t * x_stride
//   out  [num_tokens, num_rows]  token t begins at out + t * out_stride;
//                                overlaps neither input
//   next  memory that will be read soon, which one token fetches meanwhile;
//         empty for rows of w alone
// Sizes may be 0; no columns give zeros. Nothing past the end of a row or of a
// token is read. Batches are several times faster with packed_matmul.h. Differs
// from reference::MatMul by at most (num_cols / 32 + 7) epsilon times the sum
// of the magnitudes added, plus num_cols times the least subnormal.
//
// Derivation. Let u = epsilon / 2, a rounding's relative error. A product has
// ceil(num_cols / 32) roundings in its partial sum, also without a fused
// multiply-add, where its own is one more but the first sum, with 0, is exact;
// and 5 in the tree: k < num_cols / 32 + 6. They make at most k u / (1 - k u),
// below 2 k u = k epsilon up to 2^27 columns; one epsilon more is for the
// doubles of the reference. Each product also loses half a least subnormal,
// which the roundings after it at most double.
void MatMul(const WeightView& w, size_t num_rows, size_t num_cols,
            const float* x, size_t x_stride, size_t num_tokens, float* out,
            size_t out_stride, std::span<const std::byte> next = {});

// y[t * y_stride + d] += scale[t * scale_stride + i] * w[i][d], one fused
// multiply-add per row, rows i ascending, for every d on its own. So the rows
// may be given in several calls, in order, and the columns split over threads
// by moving w and y, with the same bits. A quantized weight is its code times
// its scale, which is exact.
//   w      [num_rows, num_cols]    of any encoding, rows at any address; whole
//                                  groups where it is quantized
//   scale  [num_tokens, num_rows]  token t begins at scale + t * scale_stride
//   y      [num_tokens, num_cols]  token t begins at y + t * y_stride;
//                                  overlaps neither input
//   next   as in MatMul()
// Sizes may be 0. Nothing past the end of a row is read. Uses 33 KiB of stack.
// Targets agree as in MatMul. Differs from reference::AddScaledRows by at most
// (num_rows + 1) epsilon times the sum of the magnitudes added, plus num_rows
// times the least subnormal.
//
// Derivation, with u and the rest as in MatMul(). What y held passes one
// rounding a row, and a product without a fused multiply-add one more, its own:
// k = num_rows + 1 at most. The bound is 2 k u; half of it is for products of
// errors and the reference's doubles, up to 2^22 rows.
void AddScaledRows(const WeightView& w, size_t num_rows, size_t num_cols,
                   const float* scale, size_t scale_stride, size_t num_tokens,
                   float* y, size_t y_stride,
                   std::span<const std::byte> next = {});

// The same for one token and rows that lie anywhere, with the same bits: row i
// begins at rows[i], its scales `scales_offset` bytes behind that. Many rows at
// once are faster than one by one: y is loaded and stored for several, and the
// next ones are fetched meanwhile.
//   rows   [num_rows]
//   scale  [num_rows]
//   y      [num_cols]
void AddScaledRowsAt(const std::byte* const* rows, WeightType type,
                     size_t scales_offset, size_t num_rows, size_t num_cols,
                     const float* scale, float* y);

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_MATMUL_H_
