#include "core/pins.h"

#include <algorithm>

#include "core/base/checked_math.h"
#include "core/base/types.h"

namespace flashelm {
namespace {

uint64_t PageBytes(const Segment& segment, uint64_t num_records) {
  return RoundUp(num_records * segment.stride_bytes, kIoAlignment);
}

// The most records that take `bytes` at most, where the others are streamed in
// chunks that are full, but for one that ends with the segment.
uint64_t RecordsWithin(const Segment& segment, uint64_t chunk_records,
                       uint64_t bytes) {
  const uint64_t all = segment.num_records;
  if (PageBytes(segment, all) <= bytes) return all;
  const uint64_t unit = segment.unit_records();
  const uint64_t most = RoundDown(bytes / segment.stride_bytes, unit);
  const uint64_t streamed = CeilDiv(all - most, chunk_records) * chunk_records;
  // `most` is of whole units, so rounding up does not pass it.
  return RoundUp(all - std::min(all, streamed), unit);
}

}  // namespace

void PinEvenly(const std::vector<Segment>& segments,
               std::span<const uint32_t> order, uint64_t bytes,
               ResidencyPlan& plan) {
  std::vector<uint64_t>& resident = plan.resident_records;
  double total = 0;
  for (const uint32_t index : order) {
    const Segment& segment = segments[index];
    total += static_cast<double>(PageBytes(segment, segment.num_records));
  }
  const double share = std::min(1.0, static_cast<double>(bytes) / total);
  double passed = 0;
  uint64_t used = 0;
  for (const uint32_t index : order) {
    const Segment& segment = segments[index];
    passed += static_cast<double>(PageBytes(segment, segment.num_records));
    // What chunks leave of a segment's share is for those after it.
    const uint64_t due = std::min(bytes, static_cast<uint64_t>(share * passed));
    resident[index] =
        RecordsWithin(segment, plan.chunk_records[index], due - used);
    used += PageBytes(segment, resident[index]);
  }
  bool pinned_more = true;
  while (pinned_more) {
    pinned_more = false;
    for (const uint32_t index : order) {
      const Segment& segment = segments[index];
      const uint64_t more = std::min(segment.num_records,
                                     resident[index] + segment.unit_records());
      const uint64_t more_bytes =
          PageBytes(segment, more) - PageBytes(segment, resident[index]);
      if (more > resident[index] && more_bytes <= bytes - used) {
        resident[index] = more;
        used += more_bytes;
        pinned_more = true;
      }
    }
  }
}

}  // namespace flashelm
