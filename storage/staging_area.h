// Where reads of different sizes go, until their bytes are used.
#ifndef FLASHELM_STORAGE_STAGING_AREA_H_
#define FLASHELM_STORAGE_STAGING_AREA_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "core/base/memory.h"
#include "core/base/status.h"

namespace flashelm {

// Memory given out in blocks of whole pages, which come back in any order.
// Allocates nothing after its creation. Used by one thread.
class StagingArea {
 public:
  // Bytes that Create() charges for an area of `bytes`.
  static uint64_t NumBytes(uint64_t bytes);

  // `bytes`: a multiple of kIoAlignment. `budget` outlives the area.
  // kResourceExhausted: the budget has less.
  static Result<StagingArea> Create(uint64_t bytes, MemoryBudget& budget);

  // A block of `bytes`, a multiple of kIoAlignment and not 0, aligned to it.
  // Null: nowhere are so many bytes free side by side. As long as all blocks
  // come back, a block up to the area's size is given at last.
  std::byte* Take(uint64_t bytes);
  // Gives back a block from Take().
  void Give(const std::byte* block);

  // The memory itself, for whoever outlives this; no block is used afterwards.
  AlignedBuffer TakeMemory() { return std::move(data_); }

  std::span<std::byte> bytes() const { return data_.bytes(); }

 private:
  StagingArea() = default;
  // The first page of `count` free ones in a row inside [begin, end), or end.
  uint64_t FindFree(uint64_t begin, uint64_t end, uint64_t count) const;

  AlignedBuffer data_;
  AlignedBuffer table_;
  // Per page: of the first page of a block, the block's pages; else 0.
  std::span<uint32_t> block_pages_;
  uint64_t next_ = 0;  // Where the block taken last ends.
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_STAGING_AREA_H_
