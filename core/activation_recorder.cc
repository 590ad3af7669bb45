#include "core/activation_recorder.h"

#include <algorithm>
#include <atomic>

#include "core/base/checked_math.h"
#include "core/base/types.h"

namespace flashelm {
namespace {

uint64_t LayerBytes(const LayerConfig& layer) {
  return layer.ffn_dim * (ActivationRecorder::kSampleWords * sizeof(uint64_t) +
                          2 * sizeof(uint32_t));
}

}  // namespace

uint64_t ActivationRecorder::NumBytes(const ModelConfig& config) {
  uint64_t total = 0;
  for (const LayerConfig& layer : config.layers) total += LayerBytes(layer);
  return RoundUp(total, kIoAlignment);
}

Result<std::unique_ptr<ActivationRecorder>> ActivationRecorder::Create(
    const ModelConfig& config, uint64_t num_tokens, MemoryBudget& budget) {
  std::unique_ptr<ActivationRecorder> recorder(new ActivationRecorder(config));
  FLASHELM_ASSIGN_OR_RETURN(
      recorder->buffer_,
      AlignedBuffer::Create(NumBytes(config), budget, "recorded activations"));
  std::byte* at = recorder->buffer_.data();
  for (const LayerConfig& layer : config.layers) {
    auto* samples = reinterpret_cast<uint64_t*>(at);
    recorder->samples_.push_back(samples);
    recorder->counts_.push_back(reinterpret_cast<uint32_t*>(
        samples + uint64_t{layer.ffn_dim} * kSampleWords));
    recorder->last_used_.push_back(recorder->counts_.back() + layer.ffn_dim);
    at += LayerBytes(layer);
  }
  recorder->reused_after_.resize(config.layers.size());
  recorder->step_ = std::max<uint64_t>(1, CeilDiv(num_tokens, kSampleTokens));
  return recorder;
}

void ActivationRecorder::BeginBatch(size_t num_tokens) {
  num_tokens_ += num_in_batch_;
  num_in_batch_ = num_tokens;
}

void ActivationRecorder::OnGates(uint32_t layer, uint32_t first, size_t count,
                                 size_t num_tokens, const float* gates,
                                 size_t stride) {
  std::array<uint64_t, kMostWindow> reused_after = {};
  for (size_t i = 0; i < count; ++i) {
    const size_t neuron = first + i;
    uint64_t* bits = samples_[layer] + neuron * kSampleWords;
    uint32_t num_active = 0;
    uint32_t& last_used = last_used_[layer][neuron];
    for (size_t t = 0; t < num_tokens; ++t) {
      if (!(gates[t * stride + i] > 0)) continue;
      ++num_active;
      const uint64_t token = num_tokens_ + t;
      const uint64_t after = token - last_used;
      if (last_used > 0 && after < kMostWindow) ++reused_after[after];
      last_used = static_cast<uint32_t>(token) + 1;
      const uint64_t sample = token / step_;
      if (token % step_ == 0 && sample < kSampleTokens) {
        bits[sample / 64] |= uint64_t{1} << (sample % 64);
      }
    }
    counts_[layer][neuron] += num_active;
  }
  // Other threads may be told of other neurons now.
  for (size_t i = 0; i < kMostWindow; ++i) {
    std::atomic_ref(reused_after_[layer][i])
        .fetch_add(reused_after[i], std::memory_order_relaxed);
  }
}

std::span<const uint32_t> ActivationRecorder::counts(uint32_t layer) const {
  return {counts_[layer], config_.layers[layer].ffn_dim};
}

double ActivationRecorder::fresh_fraction(uint32_t layer, size_t window) const {
  uint64_t num_active = 0;
  for (const uint32_t count : counts(layer)) num_active += count;
  if (num_active == 0) return 1;
  uint64_t num_reused = 0;
  for (size_t i = 0; i < window; ++i) num_reused += reused_after_[layer][i];
  return 1 - static_cast<double>(num_reused) / static_cast<double>(num_active);
}

std::span<const uint64_t> ActivationRecorder::samples(uint32_t layer) const {
  return {samples_[layer],
          uint64_t{config_.layers[layer].ffn_dim} * kSampleWords};
}

}  // namespace flashelm
