// Rotary position embedding over a whole head.
#ifndef FLASHELM_KERNELS_ROPE_H_
#define FLASHELM_KERNELS_ROPE_H_

#include <cstddef>
#include <cstdint>

namespace flashelm {

// The cosine and sine of position * theta^(-2d / head_dim) for d in
// [0, head_dim / 2). Each step is rounded to f32 in the order of the reference
// model: 1 / theta^(2d / head_dim), times the position, then cosf and sinf.
// That is less exact than a double and closer to the model as it was trained.
//   cos_out, sin_out  [head_dim / 2]
void RopeAngles(uint32_t position, float theta, size_t head_dim, float* cos_out,
                float* sin_out);

// Rotates the pairs (d, d + head_dim / 2) of one head in place. Products and
// sums are rounded one by one, so all SIMD targets give the same bits.
//   cos, sin  [head_dim / 2]
//   x         [head_dim], head_dim even; overlaps neither input
// Differs from reference::Rope by at most 2 epsilon times the sum of the
// magnitudes added: a product and the sum round once each, by half an epsilon,
// which makes one; the other is for the product of both errors. Underflow is
// not counted: products have to be normal numbers or exact.
void Rope(const float* cos, const float* sin, size_t head_dim, float* x);

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_ROPE_H_
