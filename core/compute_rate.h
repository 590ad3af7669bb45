// How fast this machine computes a model whose weights are in RAM.
#ifndef FLASHELM_CORE_COMPUTE_RATE_H_
#define FLASHELM_CORE_COMPUTE_RATE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "core/base/memory.h"
#include "core/base/status.h"
#include "core/memory_plan.h"
#include "core/model_file.h"
#include "kernels/attention.h"

namespace flashelm {

struct ComputeRateOptions {
  uint32_t num_threads = 1;  // The caller's included.
  uint32_t batch = 1;        // Tokens of a batch, for the second figure.
  KvType kv_type = KvType::kF32;
  // Spent on each of the two figures, besides as much to warm up.
  std::chrono::nanoseconds duration = std::chrono::milliseconds(150);
};

struct ComputeRate {
  double bytes_per_second = 0;  // Weights, with one token.
  // Weights times tokens, with many tokens at once.
  double batch_bytes_per_second = 0;
  uint64_t buffer_bytes = 0;  // That were gone through.
  // The first one while what is not resident is read, where that was measured.
  std::optional<double> streaming_bytes_per_second;
};

// Memory that stands in for the weights of a model, whatever they are. Filled
// as far as it was asked for, once: several measurements after each other share
// it. Used by one thread.
class StandInWeights {
 public:
  // For plans of `model`, which may be a shape without a file: as many bytes as
  // its weights have, or several times as many as any cache, where memory
  // allows. kResourceExhausted: no memory.
  static Result<StandInWeights> Create(const ModelFile& model);

  // What a token goes through within a plan of that model: as many bytes as the
  // weights in RAM and the ring have, as far as there are so many, and two of
  // the largest record at least. Valid as long as this object.
  std::span<const std::byte> Within(const ModelFile& model,
                                    const MemoryPlan& plan);

 private:
  StandInWeights() = default;

  std::unique_ptr<MemoryBudget> budget_;
  AlignedBuffer buffer_;
  uint64_t filled_bytes_ = 0;
};

// Runs the forward pass itself as it would go within that plan, through a
// stand-in for the weights. So it counts all that a token costs but reading:
// attention to some hundred positions, norms, threads that wait for each other,
// chunks. `model` may be a shape without a file. kResourceExhausted: no memory,
// no threads.
Result<ComputeRate> MeasureComputeRate(const ModelFile& model,
                                       const MemoryPlan& plan,
                                       StandInWeights& weights,
                                       const ComputeRateOptions& options);

// The same for generated tokens with what the plan streams read from the file,
// as a run reads it, by `io`: bytes of all weights that tokens go through, per
// second. For some tokens, or a part of one where it takes long; within
// options.duration or a few times that. Errors as above and of reading.
Result<double> MeasureStreamingRate(const ModelFile& model,
                                    const MemoryPlan& plan,
                                    StandInWeights& weights,
                                    const ComputeRateOptions& options,
                                    IoBackend io);

// How many times longer computing takes while `action` runs on this thread; for
// options.duration it is measured alone before. Errors as above, and those of
// `action`.
Result<double> MeasureComputeSlowdown(const ModelFile& model,
                                      const MemoryPlan& plan,
                                      StandInWeights& weights,
                                      const ComputeRateOptions& options,
                                      const std::function<Status()>& action);

}  // namespace flashelm

#endif  // FLASHELM_CORE_COMPUTE_RATE_H_
