// The activations of one batch.
#ifndef FLASHELM_CORE_SCRATCH_H_
#define FLASHELM_CORE_SCRATCH_H_

#include <cstdint>

#include "core/base/memory.h"
#include "core/model_config.h"

namespace flashelm {

// Neurons whose products are summed before they join the residual stream. The
// order of summation is part of the result, so this is a constant.
inline constexpr uint32_t kFfnBlock = 256;

// All buffers that a forward pass writes, for `batch` tokens; row t of each
// belongs to token t. Taken once. Thread-compatible.
struct Scratch {
  static uint64_t NumBytes(const ModelConfig& config, uint32_t batch,
                           uint32_t logit_rows);
  // kResourceExhausted: the budget has less.
  static Result<Scratch> Create(const ModelConfig& config, uint32_t batch,
                                uint32_t logit_rows, MemoryBudget& budget);

  float* x = nullptr;  // [batch, model_dim] residual stream
  // Two that are never needed at once share their memory.
  float* normed = nullptr;     // [batch, model_dim]
  float* attention = nullptr;  // [batch, max query_dim], over normed
  float* qkv = nullptr;        // [batch, max qkv_dim]
  float* partial = nullptr;    // [batch, model_dim] to be added to x, over qkv
  float* gate = nullptr;       // [batch, kFfnBlock], over qkv
  float* up = nullptr;         // [batch, kFfnBlock], over qkv
  float* cos = nullptr;        // [batch, head_dim / 2]
  float* sin = nullptr;        // [batch, head_dim / 2]
  float* logits = nullptr;     // [logit_rows, vocab_size]
  uint64_t qkv_stride = 0;
  uint64_t attention_stride = 0;

 private:
  AlignedBuffer buffer_;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_SCRATCH_H_
