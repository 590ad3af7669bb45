// Sets of neurons as sorted arrays of ids, in memory of the caller.
#ifndef FLASHELM_PREDICTOR_ACTIVE_SET_H_
#define FLASHELM_PREDICTOR_ACTIVE_SET_H_

#include <cstddef>
#include <cstdint>

namespace flashelm {

// A set is ascending, without repetition. No function here allocates.

// The neurons whose score is above `threshold`, and their number. A score that
// is NaN is not above it.
//   scores  [num_neurons]
//   active  [num_neurons], all of which may be overwritten
size_t SelectAbove(const float* scores, uint32_t num_neurons, float threshold,
                   uint32_t* active);

// Selects the min(num_kept, num_neurons) neurons of the largest scores, of
// equal ones those with the lower index. Returns their number. A score that is
// NaN counts as the least.
//   scores   [num_neurons]
//   scratch  [num_neurons]  overlaps no input
//   active   [num_neurons], all of which may be overwritten
size_t SelectLargest(const float* scores, uint32_t num_neurons, size_t num_kept,
                     float* scratch, uint32_t* active);

}  // namespace flashelm

#endif  // FLASHELM_PREDICTOR_ACTIVE_SET_H_
