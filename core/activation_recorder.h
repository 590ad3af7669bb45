// Which neurons were active for which tokens of a text.
#ifndef FLASHELM_CORE_ACTIVATION_RECORDER_H_
#define FLASHELM_CORE_ACTIVATION_RECORDER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/base/memory.h"
#include "core/base/status.h"
#include "core/ffn_observer.h"
#include "core/model_config.h"

namespace flashelm {

// Counts how often each neuron is active, and keeps for each one the tokens of
// a sample for which it was, a bit for each: of activations themselves nothing
// is stored. A neuron is active where its gate is positive, which is exact for
// ReLU; for SwiGLU it is a guess at which neurons go together.
class ActivationRecorder final : public FfnObserver {
 public:
  // Tokens of the sample, spread evenly over the text.
  static constexpr uint32_t kSampleTokens = 1024;
  static constexpr uint32_t kSampleWords = kSampleTokens / 64;
  // Tokens that a window has at most, of those that fresh_fraction() knows.
  static constexpr size_t kMostWindow = 16;

  static uint64_t NumBytes(const ModelConfig& config);
  // kResourceExhausted: the budget has less.
  static Result<std::unique_ptr<ActivationRecorder>> Create(
      const ModelConfig& config, uint64_t num_tokens, MemoryBudget& budget);

  void BeginBatch(size_t num_tokens) override;
  void OnInputs(uint32_t /*layer*/, size_t /*num_tokens*/,
                const float* /*inputs*/, size_t /*stride*/) override {}
  void OnGates(uint32_t layer, uint32_t first, size_t count, size_t num_tokens,
               const float* gates, size_t stride) override;
  Status EndLayer(uint32_t /*layer*/) override { return OkStatus(); }

  uint64_t num_tokens() const { return num_tokens_ + num_in_batch_; }
  // [ffn_dim]: tokens for which each neuron was active.
  std::span<const uint32_t> counts(uint32_t layer) const;
  // [ffn_dim, kSampleWords]: neuron i's bits begin at i * kSampleWords.
  std::span<const uint64_t> samples(uint32_t layer) const;
  // Of the neurons that are active for a token, the part that was not for any
  // of the `window` tokens before it; 1 <= window <= kMostWindow. All 1 where
  // none was ever active.
  double fresh_fraction(uint32_t layer, size_t window) const;

 private:
  explicit ActivationRecorder(const ModelConfig& config) : config_(config) {}

  const ModelConfig& config_;
  AlignedBuffer buffer_;
  std::vector<uint64_t*> samples_;  // By layer, into buffer_.
  std::vector<uint32_t*> counts_;
  // One more than the token that each neuron was last active for; 0: none.
  std::vector<uint32_t*> last_used_;
  // How often a neuron was active that had been so many tokens, less one,
  // before.
  std::vector<std::array<uint64_t, kMostWindow>> reused_after_;
  uint64_t step_ = 1;        // Every step_-th token is of the sample.
  uint64_t num_tokens_ = 0;  // Before the batch.
  uint64_t num_in_batch_ = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_ACTIVATION_RECORDER_H_
