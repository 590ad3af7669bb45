#include "storage/staging_area.h"

#include <cassert>

#include "core/base/checked_math.h"
#include "core/base/types.h"

namespace flashelm {

uint64_t StagingArea::NumBytes(uint64_t bytes) {
  return bytes + RoundUp(bytes / kIoAlignment * sizeof(uint32_t), kIoAlignment);
}

Result<StagingArea> StagingArea::Create(uint64_t bytes, MemoryBudget& budget) {
  assert(bytes % kIoAlignment == 0);
  StagingArea area;
  FLASHELM_ASSIGN_OR_RETURN(
      area.data_, AlignedBuffer::Create(bytes, budget, "read staging"));
  const uint64_t num_pages = bytes / kIoAlignment;
  FLASHELM_ASSIGN_OR_RETURN(
      area.table_, AlignedBuffer::Create(num_pages * sizeof(uint32_t), budget,
                                         "read staging table"));
  area.block_pages_ = area.table_.As<uint32_t>().first(num_pages);
  return area;
}

uint64_t StagingArea::FindFree(uint64_t begin, uint64_t end,
                               uint64_t count) const {
  uint64_t first = begin;
  for (uint64_t page = begin; page < end;) {
    if (block_pages_[page] != 0) {
      page += block_pages_[page];
      first = page;
    } else if (++page - first == count) {
      return first;
    }
  }
  return end;
}

std::byte* StagingArea::Take(uint64_t bytes) {
  assert(bytes > 0 && bytes % kIoAlignment == 0);
  const uint64_t count = bytes / kIoAlignment;
  const uint64_t end = block_pages_.size();
  // From the last block on, as the oldest ones are the first to come back; no
  // block lies across its end, where the second look begins again.
  uint64_t page = FindFree(next_, end, count);
  if (page == end) page = FindFree(0, end, count);
  if (page == end) return nullptr;
  block_pages_[page] = static_cast<uint32_t>(count);
  next_ = page + count;
  return data_.data() + page * kIoAlignment;
}

void StagingArea::Give(const std::byte* block) {
  const auto page = static_cast<uint64_t>(block - data_.data()) / kIoAlignment;
  assert(block_pages_[page] != 0);
  block_pages_[page] = 0;
}

}  // namespace flashelm
