// RMSNorm, and the addition of a residual.
#ifndef FLASHELM_KERNELS_NORM_H_
#define FLASHELM_KERNELS_NORM_H_

#include <cstddef>

namespace flashelm {

// out = weight * (x * (1 / sqrt(mean(x^2) + eps))): normalised first, then
// multiplied by the weight, as the reference model does. The mean's sum is a
// dot product in the canonical order of matmul.h.
//   x, weight, out  [n]; out may be x
// n may be 0. x^2 must not overflow when summed. Differs from
// reference::RmsNorm by at most (n / 64 + 8) epsilon of each element.
//
// Derivation. Let u = epsilon / 2, a rounding's relative error. Squares have
// one sign, so their sum errs by a relative (n / 32 + 6) u to first order, see
// MatMul(); dividing by n and adding eps round once each, and the root halves
// all of that: (n / 64 + 4) u. The root, its inverse and the two products round
// once each: (n / 64 + 8) u. The bound is twice that; half of it is for the
// products of errors and the reference's doubles, up to 2^24 elements, which a
// float counts exactly. Underflow is not counted: mean + eps, and both products
// of an element, have to be normal numbers or exact.
void RmsNorm(const float* x, const float* weight, size_t n, float eps,
             float* out);

// y += x.
//   x, y  [n]; x may be y
void AddInPlace(const float* x, size_t n, float* y);

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_NORM_H_
