#include "core/kv_cache.h"

#include "core/base/checked_math.h"
#include "core/base/types.h"

namespace flashelm {
namespace {

uint64_t LayerBytes(const ModelConfig& config, const LayerConfig& layer,
                    uint32_t context, KvType type) {
  return 2 * config.kv_dim(layer) * context * ElementBytes(type);
}

}  // namespace

uint64_t KvCache::NumBytes(const ModelConfig& config, uint32_t context,
                           KvType type) {
  uint64_t total = 0;
  for (const LayerConfig& layer : config.layers) {
    total += LayerBytes(config, layer, context, type);
  }
  return RoundUp(total, kIoAlignment);
}

Result<KvCache> KvCache::Create(const ModelConfig& config, uint32_t context,
                                KvType type, MemoryBudget& budget) {
  KvCache cache;
  uint64_t at = 0;
  for (const LayerConfig& layer : config.layers) {
    cache.layer_offset_.push_back(at);
    at += LayerBytes(config, layer, context, type);
  }
  FLASHELM_ASSIGN_OR_RETURN(cache.buffer_,
                            AlignedBuffer::Create(at, budget, "KV cache"));
  cache.context_ = context;
  cache.head_dim_ = config.head_dim;
  cache.element_bytes_ = ElementBytes(type);
  cache.type_ = type;
  return cache;
}

uint64_t KvCache::HeadOffset(uint32_t layer, uint32_t kv_head) const {
  return layer_offset_[layer] +
         2 * uint64_t{kv_head} * context_ * head_dim_ * element_bytes_;
}

void KvCache::Store(uint32_t layer, uint32_t kv_head, uint32_t position,
                    const float* key, const float* value) {
  const uint64_t at = uint64_t{position} * head_dim_ * element_bytes_;
  const uint64_t values_at = uint64_t{context_} * head_dim_ * element_bytes_;
  std::byte* head = buffer_.data() + HeadOffset(layer, kv_head);
  StoreKv(key, head_dim_, type_, head + at);
  StoreKv(value, head_dim_, type_, head + values_at + at);
}

const std::byte* KvCache::keys(uint32_t layer, uint32_t kv_head) const {
  return buffer_.data() + HeadOffset(layer, kv_head);
}

const std::byte* KvCache::values(uint32_t layer, uint32_t kv_head) const {
  return keys(layer, kv_head) + uint64_t{context_} * head_dim_ * element_bytes_;
}

std::byte* KvCache::mutable_keys(uint32_t layer, uint32_t kv_head) {
  return buffer_.data() + HeadOffset(layer, kv_head);
}

std::byte* KvCache::mutable_values(uint32_t layer, uint32_t kv_head) {
  return mutable_keys(layer, kv_head) +
         uint64_t{context_} * head_dim_ * element_bytes_;
}

}  // namespace flashelm
