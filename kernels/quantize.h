// Numbers to codes with a scale for every group: the rows of weight_view.h.
#ifndef FLASHELM_KERNELS_QUANTIZE_H_
#define FLASHELM_KERNELS_QUANTIZE_H_

#include <cstddef>

#include "kernels/weight_view.h"

namespace flashelm {

// The largest magnitude that both formats have with either sign: 7 times the
// largest F16.
inline constexpr float kMaxQuantized = 7 * 65504.0f;

// What quantizing did to values.
struct QuantizationError {
  double squared_error = 0;  // Sum of squared differences to what is stored.
  double squared_sum = 0;    // Of the values themselves.
};

// Writes `values` as a row of `type`, kQ8 or kQ4: codes, then scales.
//   values  [num_elements]  whole groups; magnitudes up to kMaxQuantized
//   row     [RowBytes(type, num_elements)], at any address
// The scale of a group is chosen for the least squared error of the group in
// that format, always with the codes nearest to value / scale and with the
// scale as F16 has it. Tried are
//   - 0, with codes of 0: what a group of zeros gets;
//   - scales for which the value of the largest magnitude has the first or the
//     last code, and others around them;
//   - from the best of these, as long as it helps, the closed-form optimum for
//     the codes found, sum(value * code) / sum(code^2).
// So no group is worse than with the extreme value on the first or the last
// code. Equal input gives equal bytes and errors on every SIMD target.
// Tries 20 (q4) or 32 (q8) scales for each group, and up to 3 optima;
// docs/ARCHITECTURE.md has the time.
QuantizationError QuantizeRow(WeightType type, const float* values,
                              size_t num_elements, std::byte* row);

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_QUANTIZE_H_
