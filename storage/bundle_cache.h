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
};

struct BundleCacheStats {
  uint64_t num_tokens = 0;
  uint64_t num_hits = 0;    // Active records that were there.
  uint64_t num_misses = 0;  // And those that were not.
  uint64_t num_inserted = 0;
  uint64_t num_evicted = 0;  // For want of slots; not those that left with age.
};

// The cache of one segment. A record that is active is used at that token. With
// a window, the slot that was used longest ago goes to another record. Without
// one, records collect a chance each time they are found, up to kMaxChances,
// and where one would have to go it gives up a chance instead and counts as
// used just now: so those that come back often outlast those that came once,
// which spares about a tenth of the reads where few tokens miss much. What is
// in the slots says only what has to be read: never what is computed.
//
// All memory is taken once. A token costs time in proportion to the records
// that are active, on average. Used by one thread.
class BundleCache {
 public:
  static constexpr uint32_t kMaxChances = 7;

  // Bytes that Create() charges.
  static uint64_t NumBytes(const BundleCacheOptions& options);
  // What one more slot adds to that; twice, a sum of them is rounded up to
  // kIoAlignment.
  static uint64_t NumSlotBytes(uint64_t record_bytes);

  // `budget` outlives the cache.
  // kInvalidArgument: 2^32 - 1 records or more. kResourceExhausted: the budget
  // has less.
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
  // token after the last one that used it.
  const std::byte* Find(uint32_t record) const {
    const uint32_t slot = slot_of_[record];
    return slot == kNone ? nullptr : SlotData(slot);
  }

  // Copies a record of the current token's active set that is not there to a
  // slot, and returns where it is, lasting as with Find(). Null: all slots have
  // records of this token.
  const std::byte* Insert(uint32_t record, const std::byte* data);

  uint64_t num_slots() const { return slots_.size(); }
  const BundleCacheStats& stats() const { return stats_; }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Slot {
    uint64_t last_used;  // Number of a token.
    uint32_t record;
    uint32_t chances;
    // The neighbours in the list that it is in: used later, and earlier. Of a
    // free slot, `earlier` is another free one.
    uint32_t later;
    uint32_t earlier;
  };
  // Slots in the order of their use.
  struct List {
    uint32_t latest = kNone;
    uint32_t earliest = kNone;
  };

  BundleCache() = default;

  std::byte* SlotData(uint32_t slot) const {
    return data_.data() + slot * slot_bytes_;
  }
  void Unlink(List& list, uint32_t slot);
  void LinkAsLatest(List& list, uint32_t slot);
  // Puts all of `current_` behind `earlier_`.
  void JoinLists();
  // Makes a slot of `earlier_` free.
  void Free(uint32_t slot);

  uint64_t record_bytes_ = 0;
  uint64_t slot_bytes_ = 0;
  uint64_t window_tokens_ = 0;
  AlignedBuffer data_;
  AlignedBuffer tables_;  // What the spans below point to.
  std::span<Slot> slots_;
  std::span<uint32_t> slot_of_;  // Per record, or kNone.
  List earlier_;  // Used before the current token: may be evicted.
  List current_;  // Used by it.
  uint32_t first_free_ = kNone;
  uint64_t token_ = 0;  // Number of the current one; the first is 1.
  BundleCacheStats stats_;
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_BUNDLE_CACHE_H_
