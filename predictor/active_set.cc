#include "predictor/active_set.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace flashelm {

size_t SelectAbove(const float* scores, uint32_t num_neurons, float threshold,
                   uint32_t* active) {
  size_t count = 0;
  // Without a branch, which would be mispredicted for many neurons.
  for (uint32_t i = 0; i < num_neurons; ++i) {
    active[count] = i;
    count += scores[i] > threshold ? 1 : 0;
  }
  return count;
}

size_t SelectLargest(const float* scores, uint32_t num_neurons, size_t num_kept,
                     float* scratch, uint32_t* active) {
  num_kept = std::min<size_t>(num_kept, num_neurons);
  if (num_kept == 0) return 0;
  // NaN has no place in an order.
  const auto key = [&](uint32_t i) {
    return std::isnan(scores[i]) ? -std::numeric_limits<float>::infinity()
                                 : scores[i];
  };
  for (uint32_t i = 0; i < num_neurons; ++i) scratch[i] = key(i);
  float* last = scratch + (num_kept - 1);
  std::nth_element(scratch, last, scratch + num_neurons, std::greater<>());
  const float least = *last;
  // Of those that are equal to the least one kept, so many are kept.
  auto num_least = 1 + std::count(scratch, last, least);
  size_t count = 0;
  for (uint32_t i = 0; i < num_neurons; ++i) {
    const bool is_least = key(i) == least && num_least > 0;
    if (is_least) --num_least;
    if (key(i) > least || is_least) active[count++] = i;
  }
  return count;
}

}  // namespace flashelm
