#include "core/scratch.h"

#include <algorithm>

#include "core/base/checked_math.h"
#include "core/base/types.h"

namespace flashelm {
namespace {

constexpr uint64_t kFloatsPerCacheLine = 16;

uint64_t MaxQkvDim(const ModelConfig& config) {
  uint64_t most = 0;
  for (const auto& layer : config.layers) {
    most = std::max(most, config.qkv_dim(layer));
  }
  return most;
}

// Calls visit(pointer member, floats) for every buffer, in memory order.
template <class Visit>
void ForEachBuffer(const ModelConfig& config, uint32_t batch,
                   uint32_t logit_rows, const Visit& visit) {
  const uint64_t tokens = batch;
  visit(&Scratch::x, tokens * config.model_dim);
  visit(&Scratch::normed,
        tokens * std::max<uint64_t>(config.model_dim, config.max_query_dim()));
  visit(&Scratch::qkv,
        std::max(tokens * MaxQkvDim(config),
                 RoundUp(tokens * config.model_dim, kFloatsPerCacheLine) +
                     2 * tokens * kFfnBlock));
  visit(&Scratch::cos, tokens * (config.head_dim / 2));
  visit(&Scratch::sin, tokens * (config.head_dim / 2));
  visit(&Scratch::logits, uint64_t{logit_rows} * config.vocab_size);
}

}  // namespace

uint64_t Scratch::NumBytes(const ModelConfig& config, uint32_t batch,
                           uint32_t logit_rows) {
  uint64_t floats = 0;
  ForEachBuffer(config, batch, logit_rows,
                [&](float* Scratch::*, uint64_t count) {
                  floats += RoundUp(count, kFloatsPerCacheLine);
                });
  return RoundUp(floats * sizeof(float), kIoAlignment);
}

Result<Scratch> Scratch::Create(const ModelConfig& config, uint32_t batch,
                                uint32_t logit_rows, MemoryBudget& budget) {
  Scratch scratch;
  FLASHELM_ASSIGN_OR_RETURN(
      scratch.buffer_,
      AlignedBuffer::Create(NumBytes(config, batch, logit_rows), budget,
                            "activations"));
  float* at = scratch.buffer_.As<float>().data();
  ForEachBuffer(config, batch, logit_rows,
                [&](float* Scratch::*member, uint64_t count) {
                  scratch.*member = at;
                  at += RoundUp(count, kFloatsPerCacheLine);
                });
  scratch.attention = scratch.normed;
  scratch.partial = scratch.qkv;
  scratch.gate = scratch.partial + RoundUp(uint64_t{batch} * config.model_dim,
                                           kFloatsPerCacheLine);
  scratch.up = scratch.gate + uint64_t{batch} * kFfnBlock;
  scratch.qkv_stride = MaxQkvDim(config);
  scratch.attention_stride = config.max_query_dim();
  return scratch;
}

}  // namespace flashelm
