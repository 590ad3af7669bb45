#include "storage/residency.h"

#include <algorithm>
#include <cassert>

#include "core/base/checked_math.h"
#include "core/base/types.h"

namespace flashelm {

SegmentResidency::SegmentResidency(const Segment& segment,
                                   uint64_t num_resident,
                                   uint64_t chunk_records)
    : num_records_(segment.num_records),
      num_resident_(num_resident),
      unit_records_(segment.unit_records()),
      chunk_records_(chunk_records) {
  assert(num_resident <= num_records_);
  if (num_resident == num_records_) return;
  num_chunks_ = CeilDiv(num_records_ - num_resident, chunk_records);
  // No piece is smaller than about a chunk, for the sake of calls and reads.
  num_pairs_ = std::max<uint64_t>(
      1, std::min(num_chunks_, CeilDiv(num_resident, chunk_records)));
}

uint64_t SegmentResidency::ResidentBefore(uint64_t pair) const {
  if (pair == num_pairs_) return num_resident_;
  return num_resident_ / unit_records_ * pair / num_pairs_ * unit_records_;
}

uint64_t SegmentResidency::StreamedBefore(uint64_t pair) const {
  if (pair == num_pairs_) return num_records_ - num_resident_;
  return num_chunks_ * pair / num_pairs_ * chunk_records_;
}

uint64_t SegmentResidency::PairOf(uint64_t record) const {
  uint64_t low = 0;
  uint64_t high = num_pairs_;
  while (high - low > 1) {
    const uint64_t middle = low + (high - low) / 2;
    if (ResidentBefore(middle) + StreamedBefore(middle) <= record) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

SegmentResidency::Piece SegmentResidency::PieceAt(uint64_t record) const {
  assert(record < num_records_);
  const uint64_t pair = PairOf(record);
  const uint64_t resident_before = ResidentBefore(pair);
  const uint64_t resident_end = ResidentBefore(pair + 1);
  const uint64_t begin = resident_before + StreamedBefore(pair);
  // Where the pair's streamed records begin.
  const uint64_t middle = begin + (resident_end - resident_before);
  if (record < middle) {
    return {true, record, middle - record, resident_before + (record - begin)};
  }
  const uint64_t end = resident_end + StreamedBefore(pair + 1);
  const uint64_t chunk_end =
      middle + ((record - middle) / chunk_records_ + 1) * chunk_records_;
  return {false, record, std::min(chunk_end, end) - record, resident_end};
}

uint64_t SegmentResidency::NextStreamed(uint64_t record) const {
  while (record < num_records_) {
    const Piece piece = PieceAt(record);
    if (!piece.is_resident) break;
    record += piece.num_records;
  }
  return record;
}

uint64_t ResidencyPlan::StreamedBytes(const std::vector<Segment>& segments,
                                      bool with_head) const {
  const auto streamed = [&](uint32_t index) {
    return (segments[index].num_records - resident_records[index]) *
           segments[index].stride_bytes;
  };
  uint64_t total = with_head ? streamed(head) : 0;
  for (const uint32_t index : sweep) total += streamed(index);
  return total;
}

uint64_t ResidencyPlan::StreamedReads(
    const std::vector<Segment>& segments) const {
  const auto reads = [&](uint32_t index) -> uint64_t {
    const uint64_t streamed =
        segments[index].num_records - resident_records[index];
    return streamed == 0 ? 0 : CeilDiv(streamed, chunk_records[index]);
  };
  uint64_t total = reads(head);
  for (const uint32_t index : sweep) total += reads(index);
  return total;
}

uint64_t ResidencyPlan::ResidentBytes(
    const std::vector<Segment>& segments) const {
  uint64_t total = 0;
  for (size_t i = 0; i < segments.size(); ++i) {
    total +=
        RoundUp(resident_records[i] * segments[i].stride_bytes, kIoAlignment);
  }
  return total;
}

}  // namespace flashelm
