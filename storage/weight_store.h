// The weights of a model while it runs: some stay in DRAM, the rest passes
// through a ring of slots, in the order in which a token uses them.
#ifndef FLASHELM_STORAGE_WEIGHT_STORE_H_
#define FLASHELM_STORAGE_WEIGHT_STORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/base/cancel.h"
#include "core/base/memory.h"
#include "core/base/status.h"
#include "storage/async_reader.h"
#include "storage/weight_file.h"

namespace flashelm {

// Consecutive records of one segment, in DRAM.
struct RecordRun {
  uint64_t first_record = 0;
  uint64_t num_records = 0;
  const std::byte* data = nullptr;  // Record r at (r - first) * stride_bytes.
};

// What stays and what streams.
struct ResidencyPlan {
  // Per segment of the file: its first so many records stay in DRAM. A multiple
  // of the segment's unit_records(), or all of them.
  std::vector<uint64_t> resident_records;
  // Most records of each segment that one read brings; the same rule. Only
  // segments that stream need one.
  std::vector<uint64_t> chunk_records;
  // The segments that every sweep reads whole, in order, and the one that only
  // some sweeps read after them (the output head). Others are never streamed.
  std::vector<uint32_t> sweep;
  uint32_t head = 0;
  // The ring. No slots are needed when everything in the sweep is resident.
  uint32_t num_slots = 0;
  uint64_t slot_bytes = 0;  // A multiple of kIoAlignment.

  // Bytes that one sweep streams, head included or not.
  uint64_t StreamedBytes(const std::vector<Segment>& segments,
                         bool with_head) const;
  // Memory for the resident records: each segment in whole pages.
  uint64_t ResidentBytes(const std::vector<Segment>& segments) const;
  uint64_t RingBytes() const { return num_slots * slot_bytes; }
};

// Bytes that a WeightStore takes besides records and ring: the checksum table,
// a bit for each checksum, and room for one block of the head segment.
uint64_t WeightStoreOverheadBytes(const WeightFile& file,
                                  const ResidencyPlan& plan);

struct WeightStoreStats {
  uint64_t stream_bytes = 0;  // Read since Load(), rows looked up included.
  uint64_t num_reads = 0;
  uint64_t io_busy_ns = 0;      // With at least one read in flight.
  uint64_t io_wait_ns = 0;      // With the caller waiting for one.
  uint64_t resident_bytes = 0;  // Loaded once, by Load().
};

// Reads go ahead of the caller by the whole ring, across the end of a sweep
// too, since the next one begins like the last. Every record is compared with
// its checksum when this process first reads it. Used by one thread.
class WeightStore {
 public:
  using ProgressFunction = std::function<void(uint64_t done, uint64_t total)>;

  // Reads in flight at most, and so the least depth of the reader.
  static uint32_t MaxReadsInFlight(const ResidencyPlan& plan);

  // Charges everything to `budget`; reads only the checksum table. `file`,
  // `reader` and `budget` outlive the store.
  // kInvalidArgument: a plan against the rules above. kResourceExhausted: the
  // budget has less. kDataLoss: the checksum table is damaged.
  static Result<std::unique_ptr<WeightStore>> Create(const WeightFile& file,
                                                     const ResidencyPlan& plan,
                                                     AsyncReader& reader,
                                                     MemoryBudget& budget);
  ~WeightStore();
  WeightStore(const WeightStore&) = delete;
  WeightStore& operator=(const WeightStore&) = delete;

  // Reads the resident records. Once, before anything else.
  // kUnavailable: a read failed, or brought other bytes than were written.
  Status Load(const CancelToken& cancel, const ProgressFunction& progress);

  // Starts a sweep; `with_head` says whether it ends with the head segment.
  // The sweep before is complete or was given up with Abort().
  Status BeginSweep(bool with_head);

  // The records of a segment from `first_record` on, as many as lie together.
  // Inside a sweep, segments come in the plan's order and records in theirs.
  // The run lasts until the next call of any member. kUnavailable: as Load();
  // the sweep is over, and the next one starts afresh.
  Result<RecordRun> Next(uint32_t segment, uint64_t first_record);

  // Gives up the current sweep, if there is one.
  void Abort();

  // One record of the head segment, wherever it is; lasts until the next call
  // of FindHeadRecord(). Errors as Next().
  Result<const std::byte*> FindHeadRecord(uint64_t record);

  // A resident record of a segment that the sweep leaves out.
  const std::byte* ResidentRecord(uint32_t segment, uint64_t record) const;

  WeightStoreStats stats() const;

 private:
  // The next chunk of a sequence of sweeps.
  struct Cursor {
    uint64_t sweep = 0;   // Number of the sweep.
    size_t step = 0;      // Index into steps: plan.sweep, then the head.
    uint64_t record = 0;  // Of the step's segment.
  };
  // A read in flight, or done and not looked at yet.
  struct Read {
    bool is_done = false;
    uint32_t segment = 0;
    uint64_t offset_bytes = 0;
    uint64_t expected_bytes = 0;
    size_t num_bytes = 0;
    Status status;
  };

  WeightStore(const WeightFile& file, ResidencyPlan plan, AsyncReader& reader);

  // Moves to the first chunk at or after the cursor; false when the cursor
  // reaches a sweep whose length is not known yet.
  bool Settle(Cursor& cursor) const;
  // Records that the chunk at a settled cursor has.
  uint64_t ChunkRecords(const Cursor& cursor) const;
  Status Allocate(MemoryBudget& budget);
  // Gives the slot that the caller held back to the ring, and starts reads
  // until the ring is full.
  Status FillRing();
  // Starts reading records [first, first + count) of a segment to `target`.
  Status SubmitRead(uint32_t tag, uint32_t segment, uint64_t first,
                    uint64_t count, std::byte* target);
  // Waits until the read `tag` is done and looks at how it went.
  Status WaitFor(uint32_t tag);
  Status VerifyOnce(uint32_t segment, uint64_t first, uint64_t count,
                    const std::byte* data);
  Status Fail(Status status);

  const WeightFile& file_;
  const ResidencyPlan plan_;
  AsyncReader& reader_;
  std::vector<uint32_t> steps_;

  AlignedBuffer resident_;
  std::vector<uint64_t> resident_at_;  // Per segment: byte in resident_.
  AlignedBuffer ring_;
  AlignedBuffer checksums_;
  AlignedBuffer verified_;  // A bit for each 4 bytes of the table.
  AlignedBuffer row_;       // For FindHeadRecord(): the unit that begins at
  uint64_t row_first_ = UINT64_MAX;  // this record.

  std::vector<Read> reads_;  // By tag: ring slots first, row_ last.
  Cursor taken_;             // The chunk that the caller gets next.
  Cursor submitted_;         // The chunk that is read next.
  uint64_t num_taken_ = 0;   // Chunks, counted since the ring was last empty.
  uint64_t num_submitted_ = 0;
  bool holds_slot_ = false;  // The caller looks at the chunk taken last.
  uint64_t sweep_ = 0;       // Number of the sweep begun last.
  bool with_head_ = false;   // Whether that one ends with the head.

  uint64_t io_wait_ns_ = 0;
  uint64_t resident_bytes_ = 0;
  ReaderStats after_load_;
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_WEIGHT_STORE_H_
