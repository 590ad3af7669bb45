// The activations of one batch.
#ifndef FLASHELM_CORE_SCRATCH_H_
#define FLASHELM_CORE_SCRATCH_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/base/checked_math.h"
#include "core/base/memory.h"
#include "core/model_config.h"
#include "kernels/quant_sum.h"

namespace flashelm {

// Neurons whose gates are computed before their columns are added. With one
// token there is little to compute before threads wait for each other again, so
// that they take more of them at a time.
inline constexpr uint32_t kFfnTile = 256;
inline constexpr uint32_t kFfnTileOfOneToken = 2048;

constexpr uint32_t FfnTile(size_t num_tokens) {
  return num_tokens == 1 ? kFfnTileOfOneToken : kFfnTile;
}

// The FFN's sum over neurons is that of so many ranges, each summed from zero,
// which join the residual stream in order. The order of summation is part of
// the result, so this is a constant: enough for as many threads to share one
// token's neurons without waiting for each other.
inline constexpr uint32_t kFfnRanges = 16;

// Where range `range` of [0, kFfnRanges] begins: the ranges are about equal,
// whole blocks of the neurons that quantized columns are added in, but for the
// layer's last block. Of few neurons some are empty.
constexpr uint32_t FfnRangeBegin(uint32_t ffn_dim, uint32_t range) {
  const uint64_t num_blocks = CeilDiv(ffn_dim, kQuantSumRows);
  return static_cast<uint32_t>(std::min<uint64_t>(
      range * num_blocks / kFfnRanges * kQuantSumRows, ffn_dim));
}

// The end of the range that a neuron is in.
constexpr uint32_t FfnRangeEnd(uint32_t ffn_dim, uint32_t neuron) {
  const uint64_t num_blocks = CeilDiv(ffn_dim, kQuantSumRows);
  const uint64_t next_block = neuron / kQuantSumRows + 1;
  return FfnRangeBegin(ffn_dim, static_cast<uint32_t>(CeilDiv(
                                    next_block * kFfnRanges, num_blocks)));
}

struct ScratchShape {
  uint32_t batch = 1;  // Tokens.
  uint32_t logit_rows = 1;
  uint32_t num_threads = 1;
  bool has_quantized = false;  // Whether any matrix is.
  bool has_floats = true;      // Whether any is of floats.
  uint32_t context = 1;        // Positions of the cache.
  // Whether a layer's gates are kept, or which of its neurons are computed.
  bool has_gates = false;
  bool has_ups = false;  // Whether all ups of a layer are.
};

// All buffers that a forward pass writes, for a batch of tokens; row t of each
// belongs to token t. Taken once. Thread-compatible.
struct Scratch {
  static uint64_t NumBytes(const ModelConfig& config,
                           const ScratchShape& shape);
  // kResourceExhausted: the budget has less.
  static Result<Scratch> Create(const ModelConfig& config,
                                const ScratchShape& shape,
                                MemoryBudget& budget);

  float* x = nullptr;  // [batch, model_dim] residual stream
  // Two that are never needed at once share their memory.
  float* normed = nullptr;     // [batch, model_dim]
  float* attention = nullptr;  // [batch, max query_dim], over normed
  float* qkv = nullptr;        // [batch, max qkv_dim]
  float* partial = nullptr;    // [batch, model_dim] to be added to x, over qkv
  float* gate = nullptr;       // [tokens, FfnTile(tokens)], over qkv
  float* up = nullptr;         // [tokens, FfnTile(tokens)], over qkv
  // All gates of a layer, or 0 for neurons that are left out and 1 for others,
  // [batch, gates_stride]; null unless has_gates.
  float* gates = nullptr;
  // All ups of a layer, in the same shape; null unless has_ups.
  float* ups = nullptr;
  float* cos = nullptr;     // [batch, head_dim / 2]
  float* sin = nullptr;     // [batch, head_dim / 2]
  float* ranges = nullptr;  // [kFfnRanges, model_dim] of one token
  // Segments of attention: of one token, for each kv head; of several, for
  // each thread. [kv head or thread, segment, attention_part_floats]
  float* attention_parts = nullptr;
  // The batch as PackTokens() leaves it, [batch, widest product's columns];
  // null for a few tokens, and where all matrices are quantized.
  float* packed = nullptr;
  float* logits = nullptr;  // [logit_rows, vocab_size]
  // The batch as int8, and the quantized down columns that wait for the rest of
  // their block, [kQuantSumRows] rows of model_dim; null where no matrix is
  // quantized.
  std::byte* quantized = nullptr;
  std::byte* kept_rows = nullptr;
  uint64_t qkv_stride = 0;
  uint64_t gates_stride = 0;  // The widest layer's ffn_dim.
  uint64_t attention_stride = 0;
  uint64_t attention_part_floats = 0;
  uint64_t attention_head_floats = 0;  // All segments of a kv head or thread.

  // Takes over the logits of another scratch of as many rows, which stay where
  // they are; that one is not used any more.
  void KeepLogitsOf(Scratch& other);

  // What a thread multiplies batches in; null where batches have one token.
  std::byte* workspace(uint32_t part) const {
    return workspaces_ == nullptr ? nullptr
                                  : workspaces_ + part * workspace_bytes_;
  }

 private:
  AlignedBuffer buffer_;
  AlignedBuffer logits_buffer_;
  std::byte* workspaces_ = nullptr;
  uint64_t workspace_bytes_ = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_SCRATCH_H_
