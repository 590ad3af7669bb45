// Whom the forward pass tells what the FFNs of a model do.
#ifndef FLASHELM_CORE_FFN_OBSERVER_H_
#define FLASHELM_CORE_FFN_OBSERVER_H_

#include <cstddef>
#include <cstdint>

#include "core/base/status.h"

namespace flashelm {

// Sees every token that is computed, in batches. Calls come from the thread
// that runs the model, in the order of the functions here, but for OnGates().
class FfnObserver {
 public:
  virtual ~FfnObserver() = default;

  // Before a batch of tokens goes through the layers.
  virtual void BeginBatch(size_t num_tokens) = 0;
  // The normed inputs of a layer's FFN: those of token t begin at
  // inputs + t * stride.
  virtual void OnInputs(uint32_t layer, size_t num_tokens, const float* inputs,
                        size_t stride) = 0;
  // Gates of neurons [first, first + count), before the activation: those of
  // token t begin at gates + t * stride. From any thread; calls for different
  // neurons may overlap, and all neurons come once.
  virtual void OnGates(uint32_t layer, uint32_t first, size_t count,
                       size_t num_tokens, const float* gates,
                       size_t stride) = 0;
  // After all gates of a layer. An error ends the forward pass.
  virtual Status EndLayer(uint32_t layer) = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_FFN_OBSERVER_H_
