#include "core/scratch.h"

#include <algorithm>
#include <utility>

#include "core/base/checked_math.h"
#include "core/base/types.h"
#include "kernels/attention.h"
#include "kernels/packed_matmul.h"
#include "kernels/prefetch.h"
#include "kernels/quant_matmul.h"

namespace flashelm {
namespace {

constexpr uint64_t kFloatsPerCacheLine = kCacheLine / sizeof(float);

uint64_t MaxQkvDim(const ModelConfig& config) {
  uint64_t most = 0;
  for (const auto& layer : config.layers) {
    most = std::max(most, config.qkv_dim(layer));
  }
  return most;
}

uint64_t MaxFfnDim(const ModelConfig& config) {
  uint64_t most = 0;
  for (const auto& layer : config.layers) {
    most = std::max<uint64_t>(most, layer.ffn_dim);
  }
  return most;
}

// Columns of the widest product.
uint64_t MaxCols(const ModelConfig& config) {
  return std::max<uint64_t>(config.model_dim, config.max_query_dim());
}

uint64_t PartFloats(const ModelConfig& config) {
  return AttentionPartFloats(config.num_gqa_groups, config.head_dim);
}

// Kv heads of one token, or threads that each take whole heads of many.
uint64_t AttentionWorkers(const ModelConfig& config,
                          const ScratchShape& shape) {
  uint64_t most = shape.batch > 1 ? shape.num_threads : 1;
  for (const auto& layer : config.layers) {
    most = std::max<uint64_t>(most, layer.num_kv_heads);
  }
  return most;
}

// Values of the neurons of a tile, for a batch of so many tokens or fewer.
uint64_t TileFloats(uint64_t tokens) {
  return std::max<uint64_t>(tokens * kFfnTile, kFfnTileOfOneToken);
}

bool IsPacked(const ScratchShape& shape) {
  return shape.has_floats && shape.batch >= kMinPackedTokens;
}

// Calls visit(pointer member, floats) for every buffer of floats, in memory
// order.
template <class Visit>
void ForEachBuffer(const ModelConfig& config, const ScratchShape& shape,
                   const Visit& visit) {
  const uint64_t tokens = shape.batch;
  visit(&Scratch::x, tokens * config.model_dim);
  visit(&Scratch::normed, tokens * MaxCols(config));
  visit(&Scratch::qkv,
        std::max(tokens * MaxQkvDim(config),
                 RoundUp(tokens * config.model_dim, kFloatsPerCacheLine) +
                     2 * TileFloats(tokens)));
  visit(&Scratch::gates, shape.has_gates ? tokens * MaxFfnDim(config) : 0);
  visit(&Scratch::ups, shape.has_ups ? tokens * MaxFfnDim(config) : 0);
  visit(&Scratch::cos, tokens * (config.head_dim / 2));
  visit(&Scratch::sin, tokens * (config.head_dim / 2));
  visit(&Scratch::ranges, uint64_t{kFfnRanges} * config.model_dim);
  visit(&Scratch::attention_parts, AttentionWorkers(config, shape) *
                                       NumAttentionSegments(shape.context) *
                                       PartFloats(config));
  visit(&Scratch::packed, IsPacked(shape) ? tokens * MaxCols(config) : 0);
}

uint64_t LogitBytes(const ModelConfig& config, const ScratchShape& shape) {
  return RoundUp(uint64_t{shape.logit_rows} * config.vocab_size * sizeof(float),
                 kIoAlignment);
}

uint64_t FloatBytes(const ModelConfig& config, const ScratchShape& shape) {
  uint64_t floats = 0;
  ForEachBuffer(config, shape, [&](float* Scratch::*, uint64_t count) {
    floats += RoundUp(count, kFloatsPerCacheLine);
  });
  return floats * sizeof(float);
}

uint64_t QuantizedBytes(const ModelConfig& config, const ScratchShape& shape) {
  if (!shape.has_quantized) return 0;
  return QuantizedTokensBytes(MaxCols(config), shape.batch);
}

uint64_t KeptRowsBytes(const ModelConfig& config, const ScratchShape& shape) {
  if (!shape.has_quantized) return 0;
  return RoundUp(kQuantSumRows * RowBytes(WeightType::kQ8, config.model_dim),
                 kCacheLine);
}

uint64_t WorkspaceBytes(const ModelConfig& config, const ScratchShape& shape) {
  if (!shape.has_quantized || shape.batch == 1) return 0;
  return RoundUp(std::max(QuantMatMulWorkspaceBytes(MaxCols(config)),
                          QuantSumWorkspaceBytes()),
                 kCacheLine);
}

uint64_t BufferBytes(const ModelConfig& config, const ScratchShape& shape) {
  return RoundUp(FloatBytes(config, shape) + QuantizedBytes(config, shape) +
                     KeptRowsBytes(config, shape) +
                     shape.num_threads * WorkspaceBytes(config, shape),
                 kIoAlignment);
}

}  // namespace

uint64_t Scratch::NumBytes(const ModelConfig& config,
                           const ScratchShape& shape) {
  return BufferBytes(config, shape) + LogitBytes(config, shape);
}

Result<Scratch> Scratch::Create(const ModelConfig& config,
                                const ScratchShape& shape,
                                MemoryBudget& budget) {
  Scratch scratch;
  FLASHELM_ASSIGN_OR_RETURN(
      scratch.buffer_,
      AlignedBuffer::Create(BufferBytes(config, shape), budget, "activations"));
  FLASHELM_ASSIGN_OR_RETURN(
      scratch.logits_buffer_,
      AlignedBuffer::Create(LogitBytes(config, shape), budget, "logits"));
  scratch.logits = scratch.logits_buffer_.As<float>().data();
  float* at = scratch.buffer_.As<float>().data();
  ForEachBuffer(config, shape, [&](float* Scratch::*member, uint64_t count) {
    scratch.*member = at;
    at += RoundUp(count, kFloatsPerCacheLine);
  });
  if (!IsPacked(shape)) scratch.packed = nullptr;
  std::byte* bytes = scratch.buffer_.data() + FloatBytes(config, shape);
  if (shape.has_quantized) {
    scratch.quantized = bytes;
    scratch.kept_rows = bytes + QuantizedBytes(config, shape);
  }
  scratch.workspace_bytes_ = WorkspaceBytes(config, shape);
  if (scratch.workspace_bytes_ > 0) {
    scratch.workspaces_ =
        bytes + QuantizedBytes(config, shape) + KeptRowsBytes(config, shape);
  }
  scratch.attention = scratch.normed;
  scratch.partial = scratch.qkv;
  scratch.gate =
      scratch.partial +
      RoundUp(uint64_t{shape.batch} * config.model_dim, kFloatsPerCacheLine);
  scratch.up = scratch.gate + TileFloats(shape.batch);
  scratch.qkv_stride = MaxQkvDim(config);
  scratch.gates_stride = MaxFfnDim(config);
  scratch.attention_stride = config.max_query_dim();
  scratch.attention_part_floats = PartFloats(config);
  scratch.attention_head_floats =
      NumAttentionSegments(shape.context) * scratch.attention_part_floats;
  return scratch;
}

void Scratch::KeepLogitsOf(Scratch& other) {
  std::swap(logits_buffer_, other.logits_buffer_);
  std::swap(logits, other.logits);
}

}  // namespace flashelm
