#include "storage/read_planner.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/base/checked_math.h"
#include "core/base/types.h"

namespace flashelm {

ReadPlanner::ReadPlanner(const Segment& segment, const ReadCost& cost,
                         uint64_t max_read_bytes)
    : offset_bytes_(segment.offset_bytes),
      stride_bytes_(segment.stride_bytes),
      max_read_bytes_(max_read_bytes),
      request_ns_(cost.request_ns),
      bytes_per_ns_(cost.bytes_per_ns),
      max_gap_bytes_(cost.request_ns * cost.bytes_per_ns) {
  assert(cost.request_ns >= 0 && cost.bytes_per_ns >= 0);
}

ReadPlanner ReadPlanner::Whole(const Segment& segment, const ReadCost& cost,
                               uint64_t max_read_bytes) {
  ReadPlanner planner(segment, cost, max_read_bytes);
  if (cost.sequential_bytes_per_ns > 0) {
    planner.bytes_per_ns_ = cost.sequential_bytes_per_ns;
  }
  planner.max_gap_bytes_ = std::numeric_limits<double>::infinity();
  return planner;
}

uint64_t ReadPlanner::MaxRecordBytes(const Segment& segment) {
  // Records begin at multiples of `step` inside a page, so at worst at the
  // last of them.
  const uint64_t step = std::gcd(segment.stride_bytes, kIoAlignment);
  const uint64_t any =
      RoundUp(kIoAlignment - step + segment.stride_bytes, kIoAlignment);
  return std::min(any, RoundUp(segment.num_bytes(), kIoAlignment));
}

PlannedRead ReadPlanner::PlanFirst(std::span<const uint32_t> ids) const {
  assert(!ids.empty());
  // A segment begins at a page, so its pages are the file's.
  const auto begin_of = [&](uint64_t record) {
    return RoundDown(record * stride_bytes_, kIoAlignment);
  };
  const auto end_of = [&](uint64_t record) {
    return RoundUp((record + 1) * stride_bytes_, kIoAlignment);
  };
  const uint64_t begin = begin_of(ids[0]);
  uint64_t end = end_of(ids[0]);
  size_t count = 1;
  for (; count < ids.size(); ++count) {
    assert(ids[count] > ids[count - 1]);
    const uint64_t next = begin_of(ids[count]);
    const uint64_t next_end = end_of(ids[count]);
    // Whoever shares a page, or begins where the last one ends, has no gap.
    const uint64_t gap = next > end ? next - end : 0;
    if (static_cast<double>(gap) > max_gap_bytes_ ||
        next_end - begin > max_read_bytes_) {
      break;
    }
    end = next_end;
  }
  return {ids[0], uint64_t{ids[count - 1]} - ids[0] + 1, offset_bytes_ + begin,
          end - begin, count};
}

double ReadPlanner::PredictNs(std::span<const uint32_t> ids) const {
  if (ids.empty()) return 0;
  double num_reads = 0;
  double num_bytes = 0;
  if (std::isinf(max_gap_bytes_)) {
    // The device moves along the whole span, whatever is left out of it.
    const uint64_t span_bytes =
        RoundUp((ids.back() + uint64_t{1}) * stride_bytes_, kIoAlignment) -
        RoundDown(ids[0] * stride_bytes_, kIoAlignment);
    num_reads = static_cast<double>(CeilDiv(span_bytes, max_read_bytes_));
    num_bytes = static_cast<double>(span_bytes);
  } else {
    while (!ids.empty()) {
      const PlannedRead read = PlanFirst(ids);
      num_reads += 1;
      num_bytes += static_cast<double>(read.num_bytes);
      ids = ids.subspan(read.num_wanted);
    }
  }
  return num_reads * request_ns_ + num_bytes / bytes_per_ns_;
}

}  // namespace flashelm
