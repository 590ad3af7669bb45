#include "predictor/neuron_order.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace flashelm {

std::vector<uint32_t> OrderByCoActivation(std::span<const uint64_t> samples,
                                          size_t num_words) {
  const auto num_neurons = static_cast<uint32_t>(samples.size() / num_words);
  std::vector<uint32_t> sizes(num_neurons);
  std::vector<uint32_t> left;  // Neurons that have no place yet, ascending.
  std::vector<uint32_t> order;
  order.reserve(num_neurons);
  for (uint32_t i = 0; i < num_neurons; ++i) {
    for (size_t w = 0; w < num_words; ++w) {
      sizes[i] +=
          static_cast<uint32_t>(std::popcount(samples[i * num_words + w]));
    }
    if (sizes[i] > 0) left.push_back(i);
  }
  const auto first = std::max_element(
      left.begin(), left.end(),
      [&](uint32_t a, uint32_t b) { return sizes[a] < sizes[b]; });
  if (first != left.end()) {
    order.push_back(*first);
    left.erase(first);
  }
  while (!left.empty()) {
    const uint32_t last = order.back();
    const uint64_t* bits = samples.data() + last * num_words;
    // Fractions are compared by multiplying crosswise: no rounding.
    size_t best = 0;
    uint64_t best_common = 0;
    uint64_t best_all = 1;
    bool has_best = false;
    for (size_t i = 0; i < left.size(); ++i) {
      const uint64_t* others = samples.data() + left[i] * num_words;
      uint64_t common = 0;
      for (size_t w = 0; w < num_words; ++w) {
        common += static_cast<uint64_t>(std::popcount(bits[w] & others[w]));
      }
      const uint64_t all = sizes[last] + sizes[left[i]] - common;
      if (!has_best || common * best_all > best_common * all) {
        has_best = true;
        best = i;
        best_common = common;
        best_all = all;
      }
    }
    order.push_back(left[best]);
    left.erase(left.begin() + static_cast<std::ptrdiff_t>(best));
  }
  for (uint32_t i = 0; i < num_neurons; ++i) {
    if (sizes[i] == 0) order.push_back(i);
  }
  return order;
}

std::vector<uint32_t> OrderByFrequency(std::span<const uint32_t> counts) {
  std::vector<uint32_t> order(counts.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return counts[a] > counts[b];
  });
  return order;
}

}  // namespace flashelm
