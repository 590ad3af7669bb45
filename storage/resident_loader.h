// Reading the records that stay in DRAM.
#ifndef FLASHELM_STORAGE_RESIDENT_LOADER_H_
#define FLASHELM_STORAGE_RESIDENT_LOADER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "core/base/cancel.h"
#include "core/base/status.h"
#include "storage/record_verifier.h"
#include "storage/residency.h"
#include "storage/slot_reads.h"
#include "storage/sweep_sequence.h"
#include "storage/weight_file.h"

namespace flashelm {

// Reads run some way ahead of the check of what they brought. All that it
// refers to outlives it. Used by one thread, for one Load().
class ResidentLoader {
 public:
  using ProgressFunction = std::function<void(uint64_t done, uint64_t total)>;

  static constexpr uint32_t kDepth = 8;  // Reads in flight at most.

  // Reads with the tags [first_tag, first_tag + kDepth). `progress` may be
  // empty.
  ResidentLoader(const WeightFile& file, const ResidencyPlan& plan,
                 const SweepSequence& sequence, SlotReads& reads,
                 uint32_t first_tag, RecordVerifier& verifier,
                 const ProgressFunction& progress);

  // Fills `target`, [plan.ResidentBytes()]: the resident records of a segment
  // behind those of the one before, from a page's begin on. kCancelled: as
  // asked. kUnavailable: a read failed, was not answered in time, or brought
  // other bytes than were written. After an error reads may be in flight.
  Status Load(std::byte* target, const CancelToken& cancel);

  uint64_t num_bytes() const { return num_bytes_; }  // Read and checked.

 private:
  struct Chunk {
    uint32_t segment;
    uint64_t first;
    uint64_t count;
    std::byte* target;
  };

  Status LoadSegment(uint32_t index, std::byte* target,
                     const CancelToken& cancel);
  // Submits a chunk's read, once there is room for it.
  Status Submit(const Chunk& chunk);
  // Waits for the oldest chunk and compares it with its checksums.
  Status CheckOne();

  const WeightFile& file_;
  const ResidencyPlan& plan_;
  const SweepSequence& sequence_;
  SlotReads& reads_;
  const uint32_t first_tag_;
  RecordVerifier& verifier_;
  const ProgressFunction& progress_;
  const uint64_t total_bytes_;

  std::array<Chunk, kDepth> chunks_;
  uint64_t num_submitted_ = 0;
  uint64_t num_checked_ = 0;
  uint64_t num_bytes_ = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_RESIDENT_LOADER_H_
