// Products of a quantized weight matrix with the activations of one or many
// tokens, in integers: the activations are quantized too, to eight bits.
//
// Canonical arithmetic. A token x becomes, for every group g of 32 columns,
//
//   amax    = max |x[k]| of the group
//   s[g]    = amax / 127
//   a[k]    = x[k] * (127 / amax), rounded to nearest, ties to even
//
// each operation rounded to f32; 0 for all of a group with amax < 2^-80, and a
// scale that is NaN (with codes 0) for a group that has a NaN or an infinity.
// A row with codes c (n - 8 of q4, q of q8) and scales d (d / 16 for q8), see
// weight_view.h, then gives, with G groups,
//
//   partial[j] = 0                                     for j in [0, 8)
//   partial[g % 8] = fma(sum of c[k] a[k] over group g, d[g] * s[g],
//                        partial[g % 8])               g ascending
//   partial[j] += partial[j + half]        for half = 4, 2, 1; j < half
//   result = partial[0]
//
// where the sum is exact and d[g] * s[g] is rounded to f32. As in matmul.h the
// bits do not depend on the number of tokens, the split of rows over threads
// or the alignment, all targets with a fused multiply-add agree, and those
// without round each product first.
//
// Error. Let u = 2^-24. 127 / amax and its product with x[k] err by at most
// 127 (2u + u^2), the rounding by 1/2, and s[g] by a relative u, so
//   |x[k] - s[g] a[k]| <= amax / 127 (1/2 + 382 u) < amax / 253,
// or less than 2^-80 where the group counts as zeros. A term of the sum is
// rounded when its scales are multiplied (twice without a fused multiply-add),
// at most ceil(G / 8) times in its partial sum and 3 times in the tree. Since
// |s[g] a[k]| <= amax (1 + u), the result differs from the product of the
// exact weights w and x by at most
//   sum over g of (amax[g] / 253 + 2^-80 + (G / 8 + 6) 2^-23 amax[g])
//                 * (sum of |w[k]| over the group)
// if nothing overflows.
#ifndef FLASHELM_KERNELS_QUANT_MATMUL_H_
#define FLASHELM_KERNELS_QUANT_MATMUL_H_

#include <cstddef>
#include <span>

#include "kernels/weight_view.h"

namespace flashelm {

// Bytes of `num_tokens` quantized tokens.
size_t QuantizedTokensBytes(size_t num_cols, size_t num_tokens);

// Quantizes the tokens [first, last) of `num_tokens`. All of them together are
// what QuantMatMul() takes; they can be quantized in several calls, also at
// the same time.
//   x    [num_tokens, num_cols]  token t begins at x + t * x_stride
//   out  [QuantizedTokensBytes(num_cols, num_tokens)]  64-byte aligned
// num_cols is a multiple of 32. How `out` is arranged is for QuantMatMul()
// alone to know.
void QuantizeTokens(const float* x, size_t x_stride, size_t num_cols,
                    size_t first, size_t last, size_t num_tokens,
                    std::byte* out);

// Bytes that a call of QuantMatMul() works in, for any number of rows and
// tokens: 36 times num_cols.
size_t QuantMatMulWorkspaceBytes(size_t num_cols);

// out[t * out_stride + r] = dot(row r of w, token t).
//   w          [num_rows, num_cols]  q8 or q4, rows at any address
//   tokens     what QuantizeTokens() wrote, 64-byte aligned
//   workspace  [QuantMatMulWorkspaceBytes(num_cols)]  64-byte aligned; one for
//              each thread
//   out        [num_tokens, num_rows]  overlaps no input
//   next       memory that will be read soon, which one token fetches
//              meanwhile; empty for rows of w alone
// Sizes may be 0; no columns give zeros. num_cols is a multiple of 32. Nothing
// past the end of a row's codes or scales is read. Batches are fastest where
// num_rows is a multiple of 32, and far slower where it is below 16.
void QuantMatMul(const WeightView& w, size_t num_rows, size_t num_cols,
                 const std::byte* tokens, size_t num_tokens,
                 std::byte* workspace, float* out, size_t out_stride,
                 std::span<const std::byte> next = {});

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_QUANT_MATMUL_H_
