// The order of a layer's neurons in the file.
#ifndef FLASHELM_PREDICTOR_NEURON_ORDER_H_
#define FLASHELM_PREDICTOR_NEURON_ORDER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace flashelm {

// Neurons that are active for the same tokens side by side, so that their
// bundles are read together: a greedy path that goes on to the neuron most like
// the last one (intersection over union of their tokens), from the one that is
// active most often; the lower index where two are alike. Neurons without any
// token come last, in their order.
//   samples  [num_neurons, num_words]  a bit for each token of a sample
// Returns order[new place] = neuron. Takes time with the square of the number
// of neurons, memory with the number.
std::vector<uint32_t> OrderByCoActivation(std::span<const uint64_t> samples,
                                          size_t num_words);

// The most often active first; the lower index where two are alike.
std::vector<uint32_t> OrderByFrequency(std::span<const uint32_t> counts);

}  // namespace flashelm

#endif  // FLASHELM_PREDICTOR_NEURON_ORDER_H_
