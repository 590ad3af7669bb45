#include "storage/bundle_cache.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "core/base/checked_math.h"
#include "core/base/types.h"

namespace flashelm {
namespace {

// Records are read by vectors, which should not cross cache lines.
constexpr uint64_t kSlotAlignment = 64;

uint64_t NumSlots(const BundleCacheOptions& options) {
  return std::min(options.num_slots, options.num_records);
}

uint64_t SlotBytes(const BundleCacheOptions& options) {
  return RoundUp(options.record_bytes, kSlotAlignment);
}

}  // namespace

uint64_t BundleCache::NumBytes(const BundleCacheOptions& options) {
  const uint64_t num_slots = NumSlots(options);
  return RoundUp(num_slots * SlotBytes(options), kIoAlignment) +
         RoundUp(
             num_slots * sizeof(Slot) + options.num_records * sizeof(uint32_t),
             kIoAlignment);
}

uint64_t BundleCache::NumSlotBytes(uint64_t record_bytes) {
  return RoundUp(record_bytes, kSlotAlignment) + sizeof(Slot);
}

Result<BundleCache> BundleCache::Create(const BundleCacheOptions& options,
                                        MemoryBudget& budget) {
  const uint64_t num_slots = NumSlots(options);
  if (options.num_records >= kNone) {
    return InvalidArgument("a cache for ", options.num_records,
                           " records, their ids have 32 bits");
  }
  if (!CheckedMul(num_slots, SlotBytes(options))) {
    return InvalidArgument("a cache of ", num_slots, " slots of ",
                           options.record_bytes, " bytes");
  }
  BundleCache cache;
  cache.record_bytes_ = options.record_bytes;
  cache.slot_bytes_ = SlotBytes(options);
  cache.window_tokens_ = options.window_tokens;
  FLASHELM_ASSIGN_OR_RETURN(
      cache.data_, AlignedBuffer::Create(num_slots * cache.slot_bytes_, budget,
                                         "bundle cache"));
  const uint64_t slot_table_bytes = num_slots * sizeof(Slot);
  const uint64_t record_table_bytes = options.num_records * sizeof(uint32_t);
  FLASHELM_ASSIGN_OR_RETURN(
      cache.tables_,
      AlignedBuffer::Create(slot_table_bytes + record_table_bytes, budget,
                            "bundle cache tables"));
  std::byte* at = cache.tables_.data();
  cache.slots_ = {reinterpret_cast<Slot*>(at), num_slots};
  at += slot_table_bytes;
  cache.slot_of_ = {reinterpret_cast<uint32_t*>(at), options.num_records};
  std::ranges::fill(cache.slot_of_, kNone);
  // Slot 0 is taken first.
  for (uint64_t slot = num_slots; slot > 0; --slot) {
    cache.slots_[slot - 1].record = kNone;
    cache.slots_[slot - 1].earlier = cache.first_free_;
    cache.first_free_ = static_cast<uint32_t>(slot - 1);
  }
  return cache;
}

void BundleCache::Unlink(List& list, uint32_t slot) {
  const Slot& info = slots_[slot];
  (info.later == kNone ? list.latest : slots_[info.later].earlier) =
      info.earlier;
  (info.earlier == kNone ? list.earliest : slots_[info.earlier].later) =
      info.later;
}

void BundleCache::LinkAsLatest(List& list, uint32_t slot) {
  slots_[slot].later = kNone;
  slots_[slot].earlier = list.latest;
  (list.latest == kNone ? list.earliest : slots_[list.latest].later) = slot;
  list.latest = slot;
}

void BundleCache::JoinLists() {
  if (current_.earliest == kNone) return;
  slots_[current_.earliest].earlier = earlier_.latest;
  (earlier_.latest == kNone ? earlier_.earliest
                            : slots_[earlier_.latest].later) =
      current_.earliest;
  earlier_.latest = current_.latest;
  current_ = List();
}

void BundleCache::Free(uint32_t slot) {
  Unlink(earlier_, slot);
  slot_of_[slots_[slot].record] = kNone;
  slots_[slot].record = kNone;
  slots_[slot].earlier = first_free_;
  first_free_ = slot;
}

void BundleCache::BeginToken() {
  ++token_;
  ++stats_.num_tokens;
  JoinLists();
  if (window_tokens_ != BundleCacheOptions::kNoWindow) {
    // The list is in the order of use, so those that are too old end it.
    while (earlier_.earliest != kNone &&
           token_ - slots_[earlier_.earliest].last_used > window_tokens_) {
      Free(earlier_.earliest);
    }
  }
}

size_t BundleCache::Use(std::span<const uint32_t> active,
                        std::span<uint32_t> missing) {
  assert(missing.size() >= active.size());
  size_t num_missing = 0;
  for (const uint32_t record : active) {
    const uint32_t slot = slot_of_[record];
    if (slot == kNone) {
      missing[num_missing++] = record;
      continue;
    }
    Slot& info = slots_[slot];
    info.last_used = token_;
    info.chances = std::min(info.chances + 1, kMaxChances);
    Unlink(earlier_, slot);
    LinkAsLatest(current_, slot);
  }
  stats_.num_hits += active.size() - num_missing;
  stats_.num_misses += num_missing;
  return num_missing;
}

const std::byte* BundleCache::Insert(uint32_t record, const std::byte* data) {
  assert(slot_of_[record] == kNone);
  if (first_free_ == kNone) {
    if (earlier_.earliest == kNone) return nullptr;
    // Ends, as every round takes a chance away.
    while (window_tokens_ == BundleCacheOptions::kNoWindow &&
           slots_[earlier_.earliest].chances > 0) {
      const uint32_t slot = earlier_.earliest;
      --slots_[slot].chances;
      Unlink(earlier_, slot);
      LinkAsLatest(earlier_, slot);
    }
    Free(earlier_.earliest);
    ++stats_.num_evicted;
  }
  const uint32_t slot = first_free_;
  Slot& info = slots_[slot];
  first_free_ = info.earlier;
  info.record = record;
  info.last_used = token_;
  info.chances = 0;
  LinkAsLatest(current_, slot);
  slot_of_[record] = slot;
  ++stats_.num_inserted;
  std::memcpy(SlotData(slot), data, record_bytes_);
  return SlotData(slot);
}

}  // namespace flashelm
