// Sums of scaled rows of quantized weights, in integers: how an FFN adds up the
// down columns of its neurons.
//
// Canonical arithmetic. Rows come in blocks of 32, of which the last may be
// short. For a token with the factors f[i], a block and a group g of 32 columns
// with codes c[i][k] and scales d[i] (d[i] / 16 for q8), see weight_view.h,
//
//   p[i] = f[i] * d[i]
//   amax = max |p[i]| over the rows of the block
//   a[i] = p[i] * (127 / amax), rounded to nearest, ties to even
//   y[k] = fma(sum of a[i] c[i][k] over the block, amax / 127, y[k])
//
// each operation rounded to f32, the sum exact. With amax < 2^-80 all a[i] are
// 0; where a p[i] is a NaN or an infinity, the group becomes NaN. Blocks are
// added in ascending order. As in matmul.h the bits do not depend on the number
// of tokens, the split of columns over threads or the alignment; they do depend
// on where blocks begin, so callers let them begin at multiples of 32 neurons.
//
// Error. With u = 2^-24, p[i] errs by a relative u, its code by 1/2 + 382 u
// (see quant_matmul.h), so a block differs from the sum of exact products by at
// most
//   (amax / 253 + 2^-80) sum of |c[i][k]|
// and each block's addition rounds once (twice without a fused multiply-add).
#ifndef FLASHELM_KERNELS_QUANT_SUM_H_
#define FLASHELM_KERNELS_QUANT_SUM_H_

#include <cstddef>

#include "kernels/weight_view.h"

namespace flashelm {

// Rows whose sum is exact.
inline constexpr size_t kQuantSumRows = 32;

// y[t * y_stride + k] += sum over rows i of factors[t * factors_stride + i] *
// w[i][k], blocks counted from row 0.
//   w        [num_rows, num_cols]    q8 or q4, rows at any address
//   factors  [num_tokens, num_rows]  token t begins at factors + t * stride
//   y        [num_tokens, num_cols]  overlaps neither input
// Sizes may be 0; num_cols is a multiple of 32. Nothing past the end of a row's
// codes or scales is read. Uses 32 KiB of stack.
void AddQuantRows(const WeightView& w, size_t num_rows, size_t num_cols,
                  const float* factors, size_t factors_stride,
                  size_t num_tokens, float* y, size_t y_stride);

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_QUANT_SUM_H_
