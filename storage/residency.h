// Which weights stay in DRAM, and which pass through the ring.
#ifndef FLASHELM_STORAGE_RESIDENCY_H_
#define FLASHELM_STORAGE_RESIDENCY_H_

#include <cstdint>
#include <vector>

#include "storage/weight_file.h"

namespace flashelm {

// How one segment's resident and streamed records lie between each other: the
// segment is cut into pieces of both, in turn, resident ones first, spread
// evenly, so that whoever goes through it never computes for long without
// taking a chunk from the ring. A few slots keep the device busy then, and so
// small a ring stays in the processor's caches. All counts are in records.
class SegmentResidency {
 public:
  // Consecutive records that are all resident, or are all streamed.
  struct Piece {
    bool is_resident = false;
    uint64_t first_record = 0;  // Of the segment.
    uint64_t num_records = 0;
    uint64_t first_resident = 0;  // Resident records of the segment before it.
  };

  // Of `segment`, so many records are resident: whole units, or all; likewise
  // `chunk_records`, at least 1 where any record is streamed.
  SegmentResidency(const Segment& segment, uint64_t num_resident,
                   uint64_t chunk_records);

  // The piece around a record, which must be one of the segment's, from that
  // record on. A streamed one ends with the chunk that the record is in.
  Piece PieceAt(uint64_t record) const;

  // The first streamed record from `record` on, or the segment's end.
  uint64_t NextStreamed(uint64_t record) const;

 private:
  // Records before the pieces of pair `pair`; of num_pairs_, all.
  uint64_t ResidentBefore(uint64_t pair) const;
  uint64_t StreamedBefore(uint64_t pair) const;
  uint64_t PairOf(uint64_t record) const;

  uint64_t num_records_ = 0;
  uint64_t num_resident_ = 0;
  uint64_t unit_records_ = 1;
  uint64_t chunk_records_ = 0;
  uint64_t num_chunks_ = 0;
  uint64_t num_pairs_ = 1;
};

struct ResidencyPlan {
  // Per segment of the file: how many of its records stay in DRAM. A multiple
  // of the segment's unit_records(), or all of them.
  std::vector<uint64_t> resident_records;
  // Most records of each segment that one read brings; the same rule. Segments
  // that are not all resident need one, also in `apart`.
  std::vector<uint64_t> chunk_records;
  // The segments that every sweep reads whole, in order, and the one that only
  // some sweeps read after them (the output head). Others are never streamed:
  // they are resident, or in `apart`.
  std::vector<uint32_t> sweep;
  uint32_t head = 0;
  // Segments whose records are planar in DRAM: all of them are resident and are
  // read by sweeps, and they can be (CanBePlanar()).
  std::vector<uint32_t> planar;
  // Segments that are read by someone else, or not at all: none of their
  // records is resident.
  std::vector<uint32_t> apart;
  // The ring. No slots are needed when everything in the sweep is resident.
  uint32_t num_slots = 0;
  uint64_t slot_bytes = 0;  // A multiple of kIoAlignment.

  SegmentResidency Residency(const std::vector<Segment>& segments,
                             uint32_t index) const {
    return {segments[index], resident_records[index], chunk_records[index]};
  }
  // Bytes that one sweep streams, head included or not.
  uint64_t StreamedBytes(const std::vector<Segment>& segments,
                         bool with_head) const;
  // Reads that bring those of a sweep with its head.
  uint64_t StreamedReads(const std::vector<Segment>& segments) const;
  // Memory for the resident records: each segment in whole pages.
  uint64_t ResidentBytes(const std::vector<Segment>& segments) const;
  uint64_t RingBytes() const { return num_slots * slot_bytes; }
  // Segments that a sweep goes through, the head included.
  size_t NumSteps() const { return sweep.size() + 1; }
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_RESIDENCY_H_
