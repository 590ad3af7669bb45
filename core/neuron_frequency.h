// How often each neuron was active when a file was calibrated.
#ifndef FLASHELM_CORE_NEURON_FREQUENCY_H_
#define FLASHELM_CORE_NEURON_FREQUENCY_H_

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/memory.h"
#include "core/base/status.h"
#include "core/model_file.h"

namespace flashelm {

// Of all layers, read without the rest of their records and so without their
// checksums, which are compared when an engine loads them.
class NeuronFrequency {
 public:
  // None at all for a file that has none. `budget` outlives the result.
  // kUnavailable: a read failed.
  // kDataLoss: a number that is no frequency. kResourceExhausted: the
  // budget or the system has less.
  static Result<NeuronFrequency> Read(const ModelFile& model,
                                      MemoryBudget& budget);

  bool is_known() const { return !layers_.empty(); }
  // [ffn_dim] of a layer, from 0 to 1; empty where none is known.
  std::span<const float> of_layer(uint32_t layer) const {
    return is_known() ? layers_[layer] : std::span<const float>();
  }

 private:
  AlignedBuffer values_;
  std::vector<std::span<const float>> layers_;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_NEURON_FREQUENCY_H_
