#include "tests/storage/test_plans.h"

#include <algorithm>
#include <utility>

#include "core/base/checked_math.h"
#include "storage/planar.h"
#include "tests/storage/model_builder.h"

namespace flashelm {

const std::vector<Segment>& SharedSegments() {
  static const WeightFile weights = SharedTestModel().Open();
  return weights.segments();
}

ResidencyPlan MakePlan(const std::vector<Segment>& segments,
                       std::vector<uint64_t> resident,
                       std::vector<uint64_t> chunks, uint32_t num_slots) {
  ResidencyPlan plan;
  plan.head = kTestHead;
  for (uint32_t i = 0; i < segments.size(); ++i) {
    if (i != kTestHead) plan.sweep.push_back(i);
    if (resident[i] == segments[i].num_records) continue;
    plan.slot_bytes = std::max(
        plan.slot_bytes, RoundUp(std::min(chunks[i], segments[i].num_records) *
                                     segments[i].stride_bytes,
                                 kIoAlignment));
  }
  plan.resident_records = std::move(resident);
  plan.chunk_records = std::move(chunks);
  plan.num_slots = num_slots;
  return plan;
}

ResidencyPlan StreamingPlan(const std::vector<Segment>& segments,
                            uint32_t num_slots) {
  std::vector<uint64_t> chunks;
  for (const Segment& segment : segments) {
    chunks.push_back(std::min(segment.unit_records(), segment.num_records));
  }
  return MakePlan(segments, std::vector<uint64_t>(segments.size(), 0),
                  std::move(chunks), num_slots);
}

bool IsPlanarOf(const Segment& segment, std::span<const std::byte> records,
                const std::byte* planar) {
  while (!records.empty()) {
    const uint64_t block_bytes = std::min<uint64_t>(
        records.size(), kPlanarRecords * segment.stride_bytes);
    const std::byte* next = planar;
    for (const Part& part : segment.parts) {
      for (uint64_t at = 0; at < block_bytes; at += segment.stride_bytes) {
        const auto row =
            records.subspan(at + part.offset_bytes, part.num_bytes());
        if (!std::equal(row.begin(), row.end(), next)) return false;
        next += row.size();
      }
    }
    records = records.subspan(block_bytes);
    planar += block_bytes;
  }
  return true;
}

}  // namespace flashelm
