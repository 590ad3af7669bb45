// The samples of a layer as a predictor sees them.
#ifndef FLASHELM_CORE_LAYER_SAMPLES_H_
#define FLASHELM_CORE_LAYER_SAMPLES_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/activation_spool.h"
#include "core/base/status.h"
#include "predictor/low_rank_trainer.h"

namespace flashelm {

// Samples of a spool with the neurons in a new order: order[new place] = place
// in the spool; empty: as it is. They go to training or to measuring in runs,
// since neighbours in a text are alike. Spool and order outlive it. One thread.
class LayerSamples {
 public:
  static constexpr uint32_t kRun = 32;
  // One run of so many, or the last of fewer, is for measuring.
  static constexpr uint32_t kMeasuredEvery = 8;

  LayerSamples(const ActivationSpool& spool, uint32_t layer,
               std::span<const uint32_t> order);

  uint32_t ffn_dim() const { return ffn_dim_; }
  uint32_t model_dim() const { return model_dim_; }
  uint32_t num_runs() const;
  uint32_t RunSamples(uint32_t run) const;
  bool IsMeasured(uint32_t run) const;

  // Samples [first, first + count), at most kRun. Errors as
  // ActivationSpool::Read().
  //   x       [count, model_dim]
  //   labels  [count, ffn_dim]
  Status Read(uint32_t first, uint32_t count, float* x, uint8_t* labels);

 private:
  const ActivationSpool& spool_;
  const uint32_t layer_;
  const std::span<const uint32_t> order_;
  const uint32_t model_dim_;
  const uint32_t ffn_dim_;
  std::vector<uint8_t> unordered_;  // [kRun, ffn_dim]
};

// Those for training, in sequence. `samples` outlives it.
class TrainingSource final : public SampleSource {
 public:
  explicit TrainingSource(LayerSamples& samples) : samples_(samples) {}

  Status Rewind() override;
  Result<size_t> Next(size_t max_samples, float* x, uint8_t* labels) override;

 private:
  LayerSamples& samples_;
  uint32_t run_ = 0;
  uint32_t done_in_run_ = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_LAYER_SAMPLES_H_
