// Reading the records that stay in DRAM.
#ifndef FLASHELM_STORAGE_RESIDENT_LOADER_H_
#define FLASHELM_STORAGE_RESIDENT_LOADER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "core/base/status.h"
#include "storage/record_verifier.h"
#include "storage/residency.h"
#include "storage/slot_reads.h"
#include "storage/sweep_sequence.h"
#include "storage/weight_file.h"

namespace flashelm {

// Reads run some way ahead of the check of what they brought. All that it
// refers to outlives it. Used by one thread, for one Load() or LoadRun().
class ResidentLoader {
 public:
  using ProgressFunction = std::function<void(uint64_t done, uint64_t total)>;

  static constexpr uint32_t kDepth = 8;  // Reads in flight at most.

  // Reads with the tags [first_tag, first_tag + kDepth). Resident records of
  // segment i go to targets[i], one behind the other.
  ResidentLoader(const WeightFile& file, const SweepSequence& sequence,
                 SlotReads& reads, uint32_t first_tag, RecordVerifier& verifier,
                 std::span<std::byte* const> targets);

  // Reads all that a plan has resident; `progress` may be empty. kCancelled: as
  // `reads` was asked. kUnavailable: a read failed, was not answered in time,
  // or brought other bytes than were written. After an error reads may be in
  // flight.
  Status Load(const ResidencyPlan& plan, const ProgressFunction& progress);

  // Reads resident records [first, first + count) of a segment: of one piece,
  // whole load units (SweepSequence::LoadUnit()) but at its end. Errors as
  // Load().
  Status LoadRun(uint32_t segment, uint64_t first, uint64_t count);

  uint64_t num_bytes() const { return num_bytes_; }  // Read and checked.

 private:
  struct Chunk {
    uint32_t segment;
    uint64_t first;
    uint64_t count;
    std::byte* target;
  };

  // Of one piece, that begins `first_resident` resident records behind the
  // segment's first. The last reads may be in flight afterwards.
  Status BeginRun(uint32_t segment, uint64_t first, uint64_t count,
                  uint64_t first_resident);
  Status LoadSegment(uint32_t index);
  Status CheckAll();
  // Submits a chunk's read, once there is room for it.
  Status Submit(const Chunk& chunk);
  // Waits for the oldest chunk and compares it with its checksums.
  Status CheckOne();

  const WeightFile& file_;
  const SweepSequence& sequence_;
  SlotReads& reads_;
  const uint32_t first_tag_;
  RecordVerifier& verifier_;
  const std::span<std::byte* const> targets_;
  // Of Load().
  const ProgressFunction* progress_ = nullptr;
  uint64_t total_bytes_ = 0;

  std::array<Chunk, kDepth> chunks_;
  uint64_t num_submitted_ = 0;
  uint64_t num_checked_ = 0;
  uint64_t num_bytes_ = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_RESIDENT_LOADER_H_
