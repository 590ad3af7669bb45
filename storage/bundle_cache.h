// Bundles of recent tokens, in fixed slots.
#ifndef FLASHELM_STORAGE_BUNDLE_CACHE_H_
#define FLASHELM_STORAGE_BUNDLE_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/base/memory.h"
#include "core/base/status.h"

namespace flashelm {

struct BundleCacheOptions {
  // "As long as its slot is not needed."
  static constexpr uint32_t kNoWindow = UINT32_MAX;

  uint64_t num_records = 0;  // Of the segment, which record ids are below.
  uint64_t record_bytes = 0;
  // Records held at once; more than there are records are not taken.
  uint64_t num_slots = 0;
  // A record stays for so many tokens after the last one that used it; with 0
  // only that token itself finds it.
  uint32_t window_tokens = kNoWindow;
  // Records that stay once they are there. In any order, at most num_slots.
  std::span<const uint32_t> hot = {};
};

struct BundleCacheStats {
  uint64_t num_tokens = 0;
  uint64_t num_hits = 0;    // Active records that were there.
  uint64_t num_misses = 0;  // And those that were not.
  uint64_t num_inserted = 0;
  uint64_t num_evicted = 0;  // For want of slots; not those that left with age.
};

// The cache of one segment. A record that is active is used at that token; the
// slots go to those used last, and to hot ones. What is in them says only what
// has to be read: never what is computed.
//
// All memory is taken once. A token costs time in proportion to the records
// that are active. Used by one thread.
class BundleCache {
 public:
  // Bytes that Create() charges.
  static uint64_t NumBytes(const BundleCacheOptions& options);

  // `budget` outlives the cache; `options.hot` is not kept.
  // kInvalidArgument: 2^32 - 1 records or more, hot records twice, beyond the
  // last record or more than slots. kResourceExhausted: the budget has less.
  static Result<BundleCache> Create(const BundleCacheOptions& options,
                                    MemoryBudget& budget);

  // Begins a token, which uses no records yet.
  void BeginToken();
  // The token uses the records `active`, each of them once in all calls. Writes
  // those that are not there to `missing`, in their order, which has room for
  // all, and returns their number. The others stay for the length of the token.
  size_t Use(std::span<const uint32_t> active, std::span<uint32_t> missing);
  // Both.
  size_t BeginToken(std::span<const uint32_t> active,
                    std::span<uint32_t> missing) {
    BeginToken();
    return Use(active, missing);
  }

  // The record, [record_bytes], aligned to 64 bytes, or null. Lasts until the
  // token after the last one that used it, and of a hot record for ever.
  const std::byte* Find(uint32_t record) const {
    const uint32_t slot = slot_of_[record];
    return slot == kNone ? nullptr : SlotData(slot);
  }

  // Copies a record of the current token's active set that is not there to a
  // slot, and returns where it is, lasting as with Find(). Null: all slots have
  // records of this token or hot ones.
  const std::byte* Insert(uint32_t record, const std::byte* data);

  uint64_t num_slots() const { return slots_.size(); }
  uint64_t num_held() const { return slots_.size() - num_free_; }
  const BundleCacheStats& stats() const { return stats_; }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Slot {
    uint64_t last_used;  // Number of a token.
    uint32_t record;
    uint32_t is_hot;
    // The neighbours in the list of those that may be evicted: used later, and
    // earlier. Of a free slot, `earlier` is another free one.
    uint32_t later;
    uint32_t earlier;
  };

  BundleCache() = default;

  std::byte* SlotData(uint32_t slot) const {
    return data_.data() + slot * slot_bytes_;
  }
  bool IsHot(uint32_t record) const {
    return (is_hot_[record / 8] >> (record % 8) & 1) != 0;
  }
  void Unlink(uint32_t slot);
  void LinkAsLatest(uint32_t slot);
  // Makes a slot free that may be evicted.
  void Free(uint32_t slot);

  uint64_t record_bytes_ = 0;
  uint64_t slot_bytes_ = 0;
  uint64_t window_tokens_ = 0;
  AlignedBuffer data_;
  AlignedBuffer tables_;  // What the spans below point to.
  std::span<Slot> slots_;
  std::span<uint32_t> slot_of_;  // Per record, or kNone.
  std::span<uint8_t> is_hot_;    // A bit for each record.
  uint32_t latest_ = kNone;      // The ends of the list.
  uint32_t earliest_ = kNone;
  uint32_t first_free_ = kNone;
  uint64_t num_free_ = 0;
  uint64_t token_ = 0;  // Number of the current one; the first is 1.
  BundleCacheStats stats_;
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_BUNDLE_CACHE_H_
