// Products of a weight matrix with the activations of a batch, whose tokens are
// packed beforehand, once for all rows: in the order that a tile of the product
// reads them, as in K. Goto and R. van de Geijn, "Anatomy of High-Performance
// Matrix Multiplication", ACM TOMS 34(3), 2008. In the canonical order of
// matmul.h, so that a token has the same bits as in MatMul().
#ifndef FLASHELM_KERNELS_PACKED_MATMUL_H_
#define FLASHELM_KERNELS_PACKED_MATMUL_H_

#include <cstddef>

#include "kernels/weight_view.h"

namespace flashelm {

// Fewer tokens do not fill a tile.
inline constexpr size_t kMinPackedTokens = 4;

// Whether a batch can be packed, in [num_tokens, num_cols] floats: whole
// vectors of columns on all targets.
constexpr bool CanPackTokens(size_t num_cols, size_t num_tokens) {
  return num_tokens >= kMinPackedTokens && num_cols > 0 && num_cols % 32 == 0;
}

// Packs the tokens [first, last) of `num_tokens`, for weights of `type`, f32 or
// bf16. All of them together are what PackedMatMul() takes; they can be packed
// in several calls, also at the same time.
//   x    [num_tokens, num_cols]  token t begins at x + t * x_stride
//   out  [num_tokens, num_cols]  64-byte aligned, apart from x
// CanPackTokens(num_cols, num_tokens). How `out` is arranged is for
// PackedMatMul() alone to know, on the same SIMD target.
void PackTokens(WeightType type, const float* x, size_t x_stride,
                size_t num_cols, size_t first, size_t last, size_t num_tokens,
                float* out);

// out[t * out_stride + r] = dot(row r of w, token t), in canonical order.
//   w       [num_rows, num_cols]  of the type that tokens were packed for, rows
//           at any address
//   tokens  what PackTokens() wrote
//   out     [num_tokens, num_rows]  token t begins at out + t * out_stride;
//           overlaps no input
// There may be no rows. Nothing past the end of a row is read. Uses 25 KiB of
// stack. Fastest where num_rows is a multiple of 16, and as slow with 1 as with
// 4. The error is that of MatMul().
void PackedMatMul(const WeightView& w, size_t num_rows, size_t num_cols,
                  const float* tokens, size_t num_tokens, float* out,
                  size_t out_stride);

// The same for rows of `type` that lie anywhere, with the same bits: many at
// once are faster than one by one.
//   rows  [num_rows]
void PackedMatMulAt(const std::byte* const* rows, WeightType type,
                    size_t num_rows, size_t num_cols, const float* tokens,
                    size_t num_tokens, float* out, size_t out_stride);

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_PACKED_MATMUL_H_
