// Keys and values of past positions.
#ifndef FLASHELM_CORE_KV_CACHE_H_
#define FLASHELM_CORE_KV_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/base/memory.h"
#include "core/model_config.h"
#include "kernels/attention.h"

namespace flashelm {

// Each layer has room for its own number of kv heads. Within a layer, one head
// after the other: keys [context, head_dim], then values likewise. Positions
// are overwritten freely; whoever reads knows how many are valid.
// Thread-compatible.
class KvCache {
 public:
  // What Create() charges, in bytes.
  static uint64_t NumBytes(const ModelConfig& config, uint32_t context,
                           KvType type);

  // kResourceExhausted: the budget has less.
  static Result<KvCache> Create(const ModelConfig& config, uint32_t context,
                                KvType type, MemoryBudget& budget);

  // Stores one position of one head: `key` and `value`, [head_dim] each.
  void Store(uint32_t layer, uint32_t kv_head, uint32_t position,
             const float* key, const float* value);

  // The first position of a head, [context, head_dim] elements of type().
  const std::byte* keys(uint32_t layer, uint32_t kv_head) const;
  const std::byte* values(uint32_t layer, uint32_t kv_head) const;

  // The same to be filled from elsewhere.
  std::byte* mutable_keys(uint32_t layer, uint32_t kv_head);
  std::byte* mutable_values(uint32_t layer, uint32_t kv_head);

  KvType type() const { return type_; }
  uint32_t context() const { return context_; }

 private:
  // Byte in the buffer of a head's keys; its values follow them.
  uint64_t HeadOffset(uint32_t layer, uint32_t kv_head) const;

  AlignedBuffer buffer_;
  std::vector<uint64_t> layer_offset_;
  uint32_t context_ = 0;
  uint32_t head_dim_ = 0;
  uint64_t element_bytes_ = 0;
  KvType type_ = KvType::kF32;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_KV_CACHE_H_
