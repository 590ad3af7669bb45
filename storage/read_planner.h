// Few reads for many records.
#ifndef FLASHELM_STORAGE_READ_PLANNER_H_
#define FLASHELM_STORAGE_READ_PLANNER_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "storage/weight_format.h"

namespace flashelm {

// Of a device that is kept busy: n reads take n * request_ns and 1 ns for every
// bytes_per_ns bytes.
struct ReadCost {
  double request_ns = 10e3;   // Of one more request, whatever its size.
  double bytes_per_ns = 1.3;  // Of single reads anywhere.
  // Of large reads one after the other. 0: as anywhere.
  double sequential_bytes_per_ns = 0;
};

// Consecutive records of a segment, and the pages of the file that cover them.
struct PlannedRead {
  uint64_t first_record = 0;  // Wanted.
  uint64_t num_records = 0;   // Up to the last wanted one, gaps included.
  uint64_t offset_bytes = 0;  // In the file; multiples of kIoAlignment.
  uint64_t num_bytes = 0;
  size_t num_wanted = 0;  // Of the ids, so many are in this read.
};

// Merges wanted records of one segment: what lies between two of them is read
// too where that takes no longer than one more request would. Allocates
// nothing. Immutable, so thread-safe.
class ReadPlanner {
 public:
  // Reads have at most `max_read_bytes`, except that a record is never split.
  // `cost`: neither is negative.
  ReadPlanner(const Segment& segment, const ReadCost& cost,
              uint64_t max_read_bytes);
  // Reads all that lies between the first wanted record and the last, one read
  // after the other, at the sequential rate.
  static ReadPlanner Whole(const Segment& segment, const ReadCost& cost,
                           uint64_t max_read_bytes);

  // Bytes of the pages that any single record of the segment needs at most.
  static uint64_t MaxRecordBytes(const Segment& segment);

  // The first read for `ids`, ascending records of the segment, at least one.
  PlannedRead PlanFirst(std::span<const uint32_t> ids) const;

  // How long all reads for `ids` take, by the cost, each planned when the one
  // before it is.
  double PredictNs(std::span<const uint32_t> ids) const;

 private:
  uint64_t offset_bytes_;
  uint64_t stride_bytes_;
  uint64_t max_read_bytes_;
  double request_ns_;
  double bytes_per_ns_;
  double max_gap_bytes_;
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_READ_PLANNER_H_
