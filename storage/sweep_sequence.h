// The order in which sweeps bring the streamed records of a model.
#ifndef FLASHELM_STORAGE_SWEEP_SEQUENCE_H_
#define FLASHELM_STORAGE_SWEEP_SEQUENCE_H_

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "core/base/checked_math.h"
#include "core/base/status.h"
#include "storage/planar.h"
#include "storage/residency.h"
#include "storage/weight_file.h"

namespace flashelm {

// Bytes of the file that hold records [first, first + count): whole pages, as
// runs begin at a page and a segment's last page is padded.
inline uint64_t RunPageBytes(const Segment& segment, uint64_t count) {
  return RoundUp(count * segment.stride_bytes, kIoAlignment);
}

// kInvalidArgument: a plan against the rules of ResidencyPlan, or one whose
// slots are too small for its chunks.
Status CheckResidencyPlan(const WeightFile& file, const ResidencyPlan& plan);

// A chunk in a sequence of sweeps.
struct SweepCursor {
  uint64_t sweep = 0;   // Number of the sweep; the first is 1.
  size_t step = 0;      // The plan's sweep, then the head.
  uint64_t record = 0;  // Of the step's segment.
};

// Sweeps without end, one like the other but that only some have the head, and
// how far they have begun. Used by one thread; allocates nothing after its
// construction.
class SweepSequence {
 public:
  // Of a plan that keeps to the rules. The file outlives it.
  SweepSequence(const WeightFile& file, const ResidencyPlan& plan);

  // The next sweep has begun.
  void Begin(bool with_head) {
    ++sweep_;
    with_head_ = with_head;
  }
  uint64_t sweep() const { return sweep_; }  // Number of the one begun last.
  SweepCursor NextSweep() const { return {sweep_ + 1, 0, 0}; }

  // Moves to the first chunk at or after the cursor; false when the cursor
  // reaches a sweep whose length is not known yet.
  bool Settle(SweepCursor& cursor) const;
  // Records that the chunk at a settled cursor has.
  uint64_t ChunkRecords(const SweepCursor& cursor) const;

  uint32_t SegmentAt(size_t step) const { return steps_[step]; }
  // Whether the segment is the head or in the plan's sweep, and where.
  bool Contains(uint32_t segment) const {
    return steps_[step_of_[segment]] == segment;
  }
  uint32_t StepOf(uint32_t segment) const { return step_of_[segment]; }
  const SegmentResidency& Residency(uint32_t segment) const {
    return residency_[segment];
  }
  bool IsPlanar(uint32_t segment) const { return is_planar_[segment]; }
  // The fewest resident records that can be loaded on their own, which lie
  // together with no others.
  uint64_t LoadUnit(uint32_t segment) const {
    const uint64_t unit = segments_[segment].unit_records();
    return IsPlanar(segment) ? std::lcm(unit, kPlanarRecords) : unit;
  }

 private:
  const std::vector<Segment>& segments_;
  std::vector<uint32_t> steps_;              // The head comes last.
  std::vector<uint32_t> step_of_;            // Per segment, where it is one.
  std::vector<SegmentResidency> residency_;  // Per segment.
  std::vector<bool> is_planar_;              // Per segment.
  uint64_t sweep_ = 0;
  bool with_head_ = false;  // Whether that one ends with the head.
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_SWEEP_SEQUENCE_H_
