// How fast this machine multiplies weights that are in RAM.
#ifndef FLASHELM_CORE_COMPUTE_RATE_H_
#define FLASHELM_CORE_COMPUTE_RATE_H_

#include <chrono>
#include <cstdint>
#include <functional>

#include "core/base/status.h"
#include "core/model_file.h"

namespace flashelm {

struct ComputeRateOptions {
  uint32_t num_threads = 1;  // The caller's included.
  uint32_t batch = 1;        // Tokens of a batch, for the second figure.
  // Spent on each of the two figures, for each encoding.
  std::chrono::nanoseconds duration = std::chrono::milliseconds(150);
};

struct ComputeRate {
  double bytes_per_second = 0;  // Weights, with one token.
  // Weights times tokens, with many tokens at once.
  double batch_bytes_per_second = 0;
  uint64_t buffer_bytes = 0;  // That were gone through.
};

// Runs the engine's product over a buffer with rows, encodings and, up to a
// size that no cache holds, bytes of this model's: the rate is that of all its
// matrices, each encoding by its share. Takes that buffer of memory, at most a
// quarter of what is free.
// kResourceExhausted: no memory, no threads.
Result<ComputeRate> MeasureComputeRate(const ModelFile& model,
                                       const ComputeRateOptions& options);

// How many times longer computing with the encoding that most weights have
// takes while `action` runs on this thread; for options.duration it is measured
// alone before. Errors as above, and those of `action`.
Result<double> MeasureComputeSlowdown(const ModelFile& model,
                                      const ComputeRateOptions& options,
                                      const std::function<Status()>& action);

}  // namespace flashelm

#endif  // FLASHELM_CORE_COMPUTE_RATE_H_
