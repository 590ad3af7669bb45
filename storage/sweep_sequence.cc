#include "storage/sweep_sequence.h"

#include <algorithm>

namespace flashelm {
namespace {

bool IsWholeUnits(const Segment& segment, uint64_t records) {
  return records % segment.unit_records() == 0 ||
         records == segment.num_records;
}

}  // namespace

Status CheckResidencyPlan(const WeightFile& file, const ResidencyPlan& plan) {
  const std::vector<Segment>& segments = file.segments();
  if (plan.resident_records.size() != segments.size() ||
      plan.chunk_records.size() != segments.size() ||
      plan.head >= segments.size()) {
    return InvalidArgument(file.path(), ": a residency plan for ",
                           plan.resident_records.size(), " of ",
                           segments.size(), " segments");
  }
  if (plan.slot_bytes % kIoAlignment != 0 ||
      !CheckedMul(plan.num_slots, plan.slot_bytes)) {
    return InvalidArgument(file.path(), ": a ring of ", plan.num_slots,
                           " slots of ", plan.slot_bytes,
                           " bytes, expected whole pages of ", kIoAlignment);
  }
  std::vector<bool> in_sweep(segments.size(), false);
  in_sweep[plan.head] = true;
  for (const uint32_t index : plan.sweep) {
    if (index >= segments.size() || in_sweep[index]) {
      return InvalidArgument(file.path(), ": segment ", index,
                             " twice in a sweep, or none");
    }
    in_sweep[index] = true;
  }
  std::vector<bool> is_apart(segments.size(), false);
  for (const uint32_t index : plan.apart) {
    if (index >= segments.size() || in_sweep[index] ||
        plan.resident_records[index] > 0) {
      return InvalidArgument(file.path(), ": segment ", index,
                             " is read apart and by a sweep, or there is none");
    }
    is_apart[index] = true;
  }
  for (size_t i = 0; i < segments.size(); ++i) {
    const Segment& segment = segments[i];
    const uint64_t resident = plan.resident_records[i];
    const uint64_t chunk = plan.chunk_records[i];
    const bool is_whole = resident == segment.num_records;
    if (resident > segment.num_records || !IsWholeUnits(segment, resident) ||
        (!is_whole && chunk == 0) ||
        (!is_whole && !is_apart[i] &&
         (!in_sweep[i] || plan.num_slots == 0 ||
          !IsWholeUnits(segment, chunk) ||
          RunPageBytes(segment, std::min(chunk, segment.num_records)) >
              plan.slot_bytes))) {
      return InvalidArgument(file.path(), ": ", segment.Describe(), " with ",
                             resident, " resident records of ",
                             segment.num_records, " and chunks of ", chunk,
                             " for slots of ", plan.slot_bytes, " bytes");
    }
  }
  for (const uint32_t index : plan.planar) {
    if (index >= segments.size() || !in_sweep[index] || index == plan.head ||
        plan.resident_records[index] < segments[index].num_records ||
        !CanBePlanar(segments[index])) {
      return InvalidArgument(file.path(), ": segment ", index,
                             " is planar, but not of parts of one size, not "
                             "all resident, or in no sweep");
    }
  }
  return OkStatus();
}

SweepSequence::SweepSequence(const WeightFile& file, const ResidencyPlan& plan)
    : segments_(file.segments()), steps_(plan.sweep) {
  steps_.push_back(plan.head);
  step_of_.resize(segments_.size());
  for (uint32_t step = 0; step < steps_.size(); ++step) {
    step_of_[steps_[step]] = step;
  }
  for (uint32_t i = 0; i < step_of_.size(); ++i) {
    residency_.push_back(plan.Residency(segments_, i));
  }
  is_planar_.resize(segments_.size());
  for (const uint32_t index : plan.planar) is_planar_[index] = true;
}

bool SweepSequence::Settle(SweepCursor& cursor) const {
  const size_t head_step = steps_.size() - 1;
  while (true) {
    if (cursor.step > head_step) {
      cursor = SweepCursor{cursor.sweep + 1, 0, 0};
    }
    if (cursor.step == head_step) {
      if (cursor.sweep > sweep_) return false;
      if (!with_head_) {
        cursor = SweepCursor{cursor.sweep + 1, 0, 0};
        continue;
      }
    }
    const uint32_t index = steps_[cursor.step];
    cursor.record = residency_[index].NextStreamed(cursor.record);
    if (cursor.record < segments_[index].num_records) return true;
    ++cursor.step;
    cursor.record = 0;
  }
}

uint64_t SweepSequence::ChunkRecords(const SweepCursor& cursor) const {
  return residency_[steps_[cursor.step]].PieceAt(cursor.record).num_records;
}

}  // namespace flashelm
