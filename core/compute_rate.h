// How fast this machine multiplies weights that are in RAM.
#ifndef FLASHELM_CORE_COMPUTE_RATE_H_
#define FLASHELM_CORE_COMPUTE_RATE_H_

#include <chrono>
#include <cstdint>

#include "core/base/status.h"
#include "core/model_file.h"

namespace flashelm {

struct ComputeRateOptions {
  uint32_t num_threads = 1;  // The caller's included.
  uint32_t batch = 1;        // Tokens of a batch, for the second figure.
  // Spent on each of the two figures.
  std::chrono::nanoseconds duration = std::chrono::milliseconds(150);
};

struct ComputeRate {
  double bytes_per_second = 0;  // Weights, with one token.
  // Weights times tokens, with many tokens at once.
  double batch_bytes_per_second = 0;
  uint64_t buffer_bytes = 0;  // That were gone through.
};

// Runs the engine's product over a buffer with rows, encoding and, up to a
// size that no cache holds, bytes of this model's. Takes that buffer of memory,
// at most a quarter of what is free.
// kResourceExhausted: no memory, no threads.
Result<ComputeRate> MeasureComputeRate(const ModelFile& model,
                                       const ComputeRateOptions& options);

}  // namespace flashelm

#endif  // FLASHELM_CORE_COMPUTE_RATE_H_
