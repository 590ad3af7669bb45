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
         RoundUp(num_slots * sizeof(Slot) +
                     options.num_records * sizeof(uint32_t) +
                     CeilDiv(options.num_records, 8),
                 kIoAlignment);
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
  if (options.hot.size() > num_slots) {
    return InvalidArgument("a cache of ", num_slots, " slots for ",
                           options.hot.size(), " hot records");
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
      AlignedBuffer::Create(slot_table_bytes + record_table_bytes +
                                CeilDiv(options.num_records, 8),
                            budget, "bundle cache tables"));
  std::byte* at = cache.tables_.data();
  cache.slots_ = {reinterpret_cast<Slot*>(at), num_slots};
  at += slot_table_bytes;
  cache.slot_of_ = {reinterpret_cast<uint32_t*>(at), options.num_records};
  at += record_table_bytes;
  cache.is_hot_ = {reinterpret_cast<uint8_t*>(at),
                   CeilDiv(options.num_records, 8)};
  std::ranges::fill(cache.slot_of_, kNone);
  for (const uint32_t record : options.hot) {
    if (record >= options.num_records || cache.IsHot(record)) {
      return InvalidArgument("hot record ", record, " of ", options.num_records,
                             " twice, or none");
    }
    cache.is_hot_[record / 8] |= static_cast<uint8_t>(1u << (record % 8));
  }
  // Slot 0 is taken first.
  for (uint64_t slot = num_slots; slot > 0; --slot) {
    cache.slots_[slot - 1].record = kNone;
    cache.slots_[slot - 1].earlier = cache.first_free_;
    cache.first_free_ = static_cast<uint32_t>(slot - 1);
  }
  cache.num_free_ = num_slots;
  return cache;
}

void BundleCache::Unlink(uint32_t slot) {
  const Slot& info = slots_[slot];
  (info.later == kNone ? latest_ : slots_[info.later].earlier) = info.earlier;
  (info.earlier == kNone ? earliest_ : slots_[info.earlier].later) = info.later;
}

void BundleCache::LinkAsLatest(uint32_t slot) {
  slots_[slot].later = kNone;
  slots_[slot].earlier = latest_;
  (latest_ == kNone ? earliest_ : slots_[latest_].later) = slot;
  latest_ = slot;
}

void BundleCache::Free(uint32_t slot) {
  Unlink(slot);
  slot_of_[slots_[slot].record] = kNone;
  slots_[slot].record = kNone;
  slots_[slot].earlier = first_free_;
  first_free_ = slot;
  ++num_free_;
}

void BundleCache::BeginToken() {
  ++token_;
  ++stats_.num_tokens;
  // The list is in the order of use, so those that are too old end it.
  while (earliest_ != kNone &&
         token_ - slots_[earliest_].last_used > window_tokens_ &&
         window_tokens_ != BundleCacheOptions::kNoWindow) {
    Free(earliest_);
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
    slots_[slot].last_used = token_;
    if (slots_[slot].is_hot != 0) continue;
    Unlink(slot);
    LinkAsLatest(slot);
  }
  stats_.num_hits += active.size() - num_missing;
  stats_.num_misses += num_missing;
  return num_missing;
}

const std::byte* BundleCache::Insert(uint32_t record, const std::byte* data) {
  assert(slot_of_[record] == kNone);
  if (num_free_ == 0) {
    if (earliest_ == kNone || slots_[earliest_].last_used == token_) {
      return nullptr;
    }
    Free(earliest_);
    ++stats_.num_evicted;
  }
  const uint32_t slot = first_free_;
  Slot& info = slots_[slot];
  first_free_ = info.earlier;
  --num_free_;
  info.record = record;
  info.last_used = token_;
  info.is_hot = IsHot(record) ? 1 : 0;
  if (info.is_hot == 0) LinkAsLatest(slot);
  slot_of_[record] = slot;
  ++stats_.num_inserted;
  std::memcpy(SlotData(slot), data, record_bytes_);
  return SlotData(slot);
}

}  // namespace flashelm
