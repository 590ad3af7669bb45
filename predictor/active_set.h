// Sets of neurons as sorted arrays of ids, in memory of the caller.
#ifndef FLASHELM_PREDICTOR_ACTIVE_SET_H_
#define FLASHELM_PREDICTOR_ACTIVE_SET_H_

#include <cstddef>
#include <cstdint>
#include <span>

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

// What is in a or in b, and how much that is.
//   out  [a.size() + b.size()], overlaps neither
size_t SetUnion(std::span<const uint32_t> a, std::span<const uint32_t> b,
                uint32_t* out);

// What is in a but not in b, and how much that is.
//   out  [a.size()], overlaps neither
size_t SetDifference(std::span<const uint32_t> a, std::span<const uint32_t> b,
                     uint32_t* out);

// How many are in a and in b.
size_t IntersectionSize(std::span<const uint32_t> a,
                        std::span<const uint32_t> b);

}  // namespace flashelm

#endif  // FLASHELM_PREDICTOR_ACTIVE_SET_H_
