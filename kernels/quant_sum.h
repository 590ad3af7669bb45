// Sums of scaled rows of quantized weights, in integers: how an FFN adds up the
// down columns of its neurons.
//
// Canonical arithmetic. Rows come in blocks of 32, of which the last may be
// short. For a token with the factors f[i], a block and a group of 32 columns
// with codes c[i][k] and scales d[i] (d[i] / 16 for q8), see weight_view.h,
//
//   F = max |f[i]|, D = max |d[i]|      over the rows of the block
//   e[i] = f[i] * (127 / F)             0 where F < 2^-80
//   r[i] = d[i] * (1 / D)               0 where D = 0
//   a[i] = e[i] * r[i], rounded to nearest, ties to even
//   y[k] = fma(sum of a[i] c[i][k] over the block, (F / 127) * D, y[k])
//
// each operation rounded to f32, but for the product in a[i] where the target
// has a fused multiply-add, and for the sum, which is exact. F / 127 counts as
// 0 where F < 2^-80, and as NaN where F is not finite. Blocks are added in
// ascending order. As in matmul.h the bits do not depend on the number of
// tokens, the split of columns over threads or the alignment, and all targets
// with a fused multiply-add agree; they do depend on where blocks begin, so
// callers let them begin at multiples of 32 neurons.
//
// Error. With u = 2^-24, e[i] errs by at most 127 * 3 u, r[i] by 2 u, their
// product by another 127 u, and rounding it by 1/2, the unit by a relative 2 u.
// So a block differs from the sum of exact products by at most
//   (F D / 253 + 2^-80 D) sum of |c[i][k]|
// and each block's addition rounds once (twice without a fused multiply-add),
// if nothing overflows.
#ifndef FLASHELM_KERNELS_QUANT_SUM_H_
#define FLASHELM_KERNELS_QUANT_SUM_H_

#include <cstddef>
#include <span>

#include "kernels/weight_view.h"

namespace flashelm {

// Rows whose sum is exact.
inline constexpr size_t kQuantSumRows = 32;

// Bytes that a call of AddQuantRows() with more than one token works in; about
// 180 KiB, on some SIMD targets less.
size_t QuantSumWorkspaceBytes();

// y[t * y_stride + k] += sum over rows i of factors[t * factors_stride + i] *
// w[i][k], blocks counted from row 0.
//   w          [num_rows, num_cols]    q8 or q4, rows at any address, scales
//                                      finite
//   factors    [num_tokens, num_rows]  token t begins at factors + t * stride
//   workspace  [QuantSumWorkspaceBytes()]  64-byte aligned, one a thread; null
//              will do for a single token
//   y          [num_tokens, num_cols]  overlaps neither input
//   next       memory that will be read soon, which one token fetches
//              meanwhile; empty for rows of w alone
// Sizes may be 0; num_cols is a multiple of 32. Nothing past the end of a row's
// codes or scales is read. Uses 8 KiB of stack. Batches are fastest with 256
// rows.
void AddQuantRows(const WeightView& w, size_t num_rows, size_t num_cols,
                  const float* factors, size_t factors_stride,
                  size_t num_tokens, std::byte* workspace, float* y,
                  size_t y_stride, std::span<const std::byte> next = {});

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_QUANT_SUM_H_
