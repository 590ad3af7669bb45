// What went into the FFNs of a model, and which neurons it made active, on
// disk.
#ifndef FLASHELM_CORE_ACTIVATION_SPOOL_H_
#define FLASHELM_CORE_ACTIVATION_SPOOL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/base/memory.h"
#include "core/base/status.h"
#include "core/ffn_observer.h"
#include "core/model_config.h"
#include "storage/scratch_file.h"

namespace flashelm {

struct SpoolOptions {
  std::string beside;       // The temporary file is in this path's directory.
  uint64_t num_tokens = 0;  // That will be computed, each BOS included.
  uint32_t max_samples = 4096;
  uint32_t max_batch = 512;  // Tokens that are computed at once.
  // 0: a neuron is active where its gate is positive, as with ReLU. Else those
  // of the part `kept_fraction` with the largest |SiLU(gate)| * importance are,
  // per token.
  double kept_fraction = 0;
  std::vector<std::vector<float>> importance;  // [ffn_dim] by layer; finite.
};

// Keeps a sample of the tokens, spread over the text: for each layer the FFN's
// input in bf16, and a bit for each neuron. Samples of a layer lie together, in
// the order of the tokens. RAM is taken for one batch alone.
class ActivationSpool final : public FfnObserver {
 public:
  // Bytes of RAM while the model runs, and of the file.
  static uint64_t NumBytes(const ModelConfig& config,
                           const SpoolOptions& options);
  static uint64_t FileBytes(const ModelConfig& config,
                            const SpoolOptions& options);
  // Samples to train with: as many as a file of a gigabyte has, but 4096 to
  // 16384.
  static uint32_t TrainingSamples(const ModelConfig& config);

  // kInvalidArgument: no token or sample. kResourceExhausted: the budget has
  // less than NumBytes(), or the disk less than FileBytes().
  static Result<std::unique_ptr<ActivationSpool>> Create(
      const ModelConfig& config, SpoolOptions options, MemoryBudget& budget);

  void BeginBatch(size_t num_tokens) override;
  void OnInputs(uint32_t layer, size_t num_tokens, const float* inputs,
                size_t stride) override;
  void OnGates(uint32_t layer, uint32_t first, size_t count, size_t num_tokens,
               const float* gates, size_t stride) override;
  // kResourceExhausted: the disk is full.
  Status EndLayer(uint32_t layer) override;

  // After the last batch: gives back the RAM. kInternal: tokens are missing.
  Status Finish();

  uint32_t num_samples() const { return num_samples_; }
  const ModelConfig& config() const { return config_; }

  // Samples [first, first + count) of a layer, with the file's order of
  // neurons. Several threads may read at once.
  //   x       [count, model_dim]
  //   labels  [count, ffn_dim]  1 where the neuron is active, else 0
  Status Read(uint32_t layer, uint32_t first, uint32_t count, float* x,
              uint8_t* labels) const;

 private:
  ActivationSpool(const ModelConfig& config, SpoolOptions options,
                  ScratchFile file);

  static uint32_t NumSamples(const SpoolOptions& options);
  static uint64_t MaxBatchSamples(const SpoolOptions& options);
  // The token that is sample i.
  uint64_t TokenOf(uint32_t sample) const;
  void FindActive(uint32_t layer, const float* gates, std::byte* bits);

  const ModelConfig config_;  // Of its own: it outlives the engine.
  const SpoolOptions options_;
  const uint32_t num_samples_;
  ScratchFile file_;
  std::vector<uint64_t> offset_bytes_;  // By layer, in the file.

  AlignedBuffer buffer_;          // For the three that follow.
  float* gates_ = nullptr;        // [samples of a batch, largest ffn_dim]
  float* scratch_ = nullptr;      // Three times the largest ffn_dim.
  std::byte* records_ = nullptr;  // As they will be written.
  // Of the batch: its first sample, and which of its tokens are samples.
  uint32_t first_sample_ = 0;
  std::vector<uint32_t> batch_tokens_;
  uint64_t first_token_ = 0;
  uint64_t num_in_batch_ = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_ACTIVATION_SPOOL_H_
