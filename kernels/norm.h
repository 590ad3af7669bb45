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
void RmsNorm(const float* x, const float* weight, size_t n, float eps,
             float* out);

// y += x.
//   x, y  [n]; x may be y
void AddInPlace(const float* x, size_t n, float* y);

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_NORM_H_
