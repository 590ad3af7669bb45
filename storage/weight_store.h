// The weights of a model while it runs: some stay in DRAM, the rest passes
// through a ring of slots, in the order in which a token uses them.
#ifndef FLASHELM_STORAGE_WEIGHT_STORE_H_
#define FLASHELM_STORAGE_WEIGHT_STORE_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/base/cancel.h"
#include "core/base/memory.h"
#include "core/base/status.h"
#include "storage/async_reader.h"
#include "storage/file_mapping.h"
#include "storage/record_verifier.h"
#include "storage/residency.h"
#include "storage/resident_loader.h"
#include "storage/reuse_tuner.h"
#include "storage/slot_reads.h"
#include "storage/sweep_sequence.h"
#include "storage/sweep_trace.h"
#include "storage/weight_file.h"

namespace flashelm {

// Consecutive records of one segment, in DRAM.
struct RecordRun {
  uint64_t first_record = 0;
  uint64_t num_records = 0;
  // Record r at (r - first_record) * stride_bytes, unless they are planar
  // (planar.h): then the run begins with a block and ends with one.
  const std::byte* data = nullptr;
  bool is_planar = false;
};

// Bytes that a WeightStore takes besides records and ring: its verifier, and
// room for one block of the head segment.
uint64_t WeightStoreOverheadBytes(const WeightFile& file,
                                  const ResidencyPlan& plan);

struct WeightStoreStats {
  // Read since Load(), rows looked up and what was dropped included.
  uint64_t stream_bytes = 0;
  uint64_t num_reads = 0;
  uint64_t io_busy_ns = 0;      // With at least one read in flight.
  uint64_t io_wait_ns = 0;      // With the caller waiting for one.
  uint64_t resident_bytes = 0;  // Read by Load(), once.
  // Of buffers that reads which were given up may still write to.
  uint64_t unanswered_bytes = 0;
};

class WeightStore;

struct WeightStoreOptions {
  // How long a read may take before the device counts as failed.
  std::chrono::nanoseconds read_timeout = std::chrono::seconds(30);
  // Bytes of the ring to be read at a time, at least two slots. 0:
  // WeightStore::UsualWindowBytes().
  uint64_t window_bytes = 0;
  // Where to note what happened when; may be null. Outlives the store.
  SweepTrace* trace = nullptr;
  // A store of the same file that the new one takes the place of, with another
  // plan. What no plan changes is shared: checksums, those found right, and the
  // records outside of sweeps. Any other resident record is read when a sweep
  // first comes to it, so Load() is not called. Null: a first store. Need not
  // outlive Create().
  const WeightStore* before = nullptr;
};

struct StandInOptions {
  // Asked before every run: true ends the sweep with kCancelled. May be empty.
  std::function<bool()> is_over;
  // Counts bytes of records handed out by Next(); may be null. Outlives the
  // store.
  uint64_t* num_bytes = nullptr;
  // Where both are there, what the plan streams is read from the file, through
  // a ring charged to `budget`; both outlive the store. Null: nothing is read.
  AsyncReader* reader = nullptr;
  MemoryBudget* budget = nullptr;
};

// Reads go ahead of the caller by the whole ring, across the end of a sweep
// too, since the next one begins like the last. Every record is compared with
// its checksum when this process first reads it. Used by one thread.
//
// A read that is not answered in time is given up, and its slot is not used
// again until the answer comes after all; the other slots go on.
class WeightStore {
 public:
  using ProgressFunction = ResidentLoader::ProgressFunction;

  // Reads in flight at most, and so the least depth of the reader.
  static uint32_t MaxReadsInFlight(const ResidencyPlan& plan);
  // As many bytes at a time as keep a device busy, also while nobody takes ends
  // from it since all compute: 8 MiB, and of a large ring two thirds. The other
  // slots fill while the caller is the slower one.
  static uint64_t UsualWindowBytes(const ResidencyPlan& plan);

  // Charges everything to `budget`; reads only the checksum table. `file`,
  // `reader` and `budget` outlive the store.
  // kInvalidArgument: a plan against the rules above. kResourceExhausted: the
  // budget has less. kDataLoss: the checksum table is damaged.
  static Result<std::unique_ptr<WeightStore>> Create(
      const WeightFile& file, const ResidencyPlan& plan, AsyncReader& reader,
      MemoryBudget& budget, const WeightStoreOptions& options = {});
  // A store without reader or budget: all records lie in a mapping of the file,
  // where the system keeps what it likes. Only `sweep`, `head` and
  // `chunk_records` of the plan are used; a damaged record is found as it is
  // first used. The baseline to measure against: a file cut short, or a device
  // that fails, ends the process with SIGBUS.
  static Result<std::unique_ptr<WeightStore>> CreateMapped(
      const WeightFile& file, const ResidencyPlan& plan, MemoryBudget& budget,
      const WeightStoreOptions& options = {});
  // A store to measure with, which loads nothing: it hands out records as the
  // plan's runs and chunks would come, but all that are resident, or all that
  // there are, lie in `weights`, one over the other, whose bytes stand in for
  // any. Nothing is verified. `weights` outlives it, and holds two of any
  // record at least. Errors as Create(), but for checksums.
  static Result<std::unique_ptr<WeightStore>> CreateStandIn(
      const WeightFile& file, const ResidencyPlan& plan,
      std::span<const std::byte> weights, StandInOptions options);

  // Waits for reads in flight, for a while; gives the memory of those that do
  // not end to the reader, which EndReader() has to end then.
  ~WeightStore();
  WeightStore(const WeightStore&) = delete;
  WeightStore& operator=(const WeightStore&) = delete;

  // Reads the resident records. Once, before anything else, unless the store
  // follows another. kUnavailable: a read failed, was not answered in time, or
  // brought other bytes than were written.
  Status Load(const CancelToken& cancel, const ProgressFunction& progress);

  // Lets reads into the ring get cheaper, which may take its memory at once.
  // Not before a store that this one follows is gone.
  void RegisterBuffers();

  // Between sweeps: gives the memory of resident records back to the system,
  // but for those outside of sweeps. They are read again when a sweep comes to
  // them, unless reads of a call before that are not answered stand in the way.
  // Nothing where the file is mapped. kResourceExhausted: memory is locked.
  Status DropResident();

  // Ends every call from here on with kCancelled once it is set, also one that
  // waits for a read; such reads are given up as those that are not answered in
  // time. Null, as at first: nothing does. Stays valid until it is replaced.
  void set_cancel(const CancelToken* cancel) { reads_.set_cancel(cancel); }

  // Starts a sweep; `with_head` says whether it ends with the head segment.
  // The sweep before is complete or was given up with Abort().
  Status BeginSweep(bool with_head);

  // Says that the last run of a complete sweep is not looked at any more, so
  // that reading goes on while the caller does something else.
  Status EndSweep();

  // The records of a segment from `first_record` on, as many as lie together.
  // Inside a sweep, segments come in the plan's order and records in theirs.
  // The run lasts until the next call of any member. kUnavailable: as Load();
  // kCancelled: as asked. In both cases the sweep is over, and the next one
  // starts afresh.
  Result<RecordRun> Next(uint32_t segment, uint64_t first_record);

  // All records of a segment of the sweep, where Next() would give them as one
  // run without reading: for callers that fetch ahead of it. Lasts until the
  // next call of DropResident().
  std::optional<RecordRun> FindResident(uint32_t segment) const;

  // Goes on reading, for callers that look at one run for long; it stays valid.
  // Errors as Next().
  Status KeepReading();

  // The same without reading, for callers that look at what is resident.
  Status CheckCancelled();

  // Gives up the current sweep, if there is one. Once cancelled it does not
  // wait for the device, whatever the token says by now.
  void Abort(StatusCode why = StatusCode::kInternal);

  // One record of the head segment, wherever it is; lasts until the next call
  // of FindHeadRecord(). Errors as Next().
  Result<const std::byte*> FindHeadRecord(uint64_t record);

  // A resident record of a segment that the sweep leaves out.
  const std::byte* ResidentRecord(uint32_t segment, uint64_t record) const;

  // For others who read the same file; lives as long as the store, or one that
  // follows it.
  RecordVerifier& verifier() { return *permanent_->verifier; }

  WeightStoreStats stats() const;

 private:
  WeightStore(const WeightFile& file, ResidencyPlan plan, AsyncReader* reader,
              const WeightStoreOptions& options);

  // What all stores of a file that follow each other share.
  struct Permanent {
    std::optional<RecordVerifier> verifier;  // There once Create() has ended.
    AlignedBuffer records;  // Of segments that are resident outside of sweeps.
  };

  Status Allocate(MemoryBudget& budget, const WeightStore* before);
  Status AllocateRing(MemoryBudget& budget);
  // Compares a record of the file with its checksum, unless nothing is.
  Status Verify(uint32_t segment, uint64_t first_record, uint64_t count,
                const std::byte* data) {
    if (!stand_in_.empty()) return OkStatus();
    return verifier().VerifyOnce(segment, first_record, count, data);
  }
  // Whether a segment's records are in permanent_.
  bool IsPermanent(uint32_t segment) const {
    return !sequence_.Contains(segment);
  }
  // Reads resident records that have not been read since they were dropped:
  // `count` of them from `first_record` on, which is the one behind
  // `first_resident` resident ones.
  Status LoadDropped(uint32_t segment, uint64_t first_record, uint64_t count,
                     uint64_t first_resident);
  // Reads that were given up may still write to where others would go.
  Status WaitForLoads();
  // Whether no record comes from a file.
  bool is_only_stand_in() const {
    return reader_ == nullptr && !stand_in_.empty();
  }
  // Of stand_in_: the bytes of so many records.
  const std::byte* StandIn(const Segment& segment, uint64_t first_record,
                           uint64_t count) const;
  Result<RecordRun> NextStandIn(uint32_t segment, uint64_t first_record);
  // Starts reads as long as there are free slots.
  Status FillRing();
  void ReleaseHeldSlot();
  std::byte* SlotData(uint32_t slot) const {
    return ring_.data() + slot * plan_.slot_bytes;
  }
  // Takes the first slot out of ahead_.
  uint32_t TakeAhead();
  // Waits for the chunk of a record that streams, the next one of the sweep.
  Result<RecordRun> NextStreamed(uint32_t segment, uint64_t first_record,
                                 uint64_t count);
  // The tag of row_; the ring's are below.
  uint32_t row_buffer() const { return plan_.num_slots; }
  // Chooses where a row is read to: row_ or, while that is given up, a slot.
  Status ChooseRowBuffer();
  void ForgetRow();
  std::byte* RowData() const {
    return row_tag_ < plan_.num_slots ? SlotData(row_tag_) : row_.data();
  }
  // For reads in flight, at the end of a sweep: for as long as a read may take,
  // for some milliseconds after a cancellation, not at all where they are the
  // ones that were not answered.
  enum class Wait { kNone, kBriefly, kAsLongAsARead };
  void EndReads(Wait wait);
  Status Fail(Status status);

  const WeightFile& file_;
  const ResidencyPlan plan_;
  AsyncReader* const reader_;  // Null when the file is mapped.
  WeightStoreOptions options_;
  SweepSequence sequence_;

  std::span<const std::byte> stand_in_;  // Empty: of a file alone.
  StandInOptions stand_in_options_;
  FileMapping mapping_;
  std::shared_ptr<Permanent> permanent_;
  bool is_loading_ = false;  // Or failed to: reads may still go to permanent_.
  AlignedBuffer resident_;   // Those of sweeps.
  // Per segment: its first resident record, in permanent_, resident_ or
  // mapping_; and where they are not mapped, the same to read to, and how many
  // of them have been.
  std::vector<const std::byte*> resident_data_;
  std::vector<std::byte*> resident_targets_;
  std::vector<uint64_t> num_loaded_;
  AlignedBuffer ring_;
  AlignedBuffer row_;  // For FindHeadRecord().
  static constexpr uint32_t kNone = UINT32_MAX;
  uint32_t row_tag_ = kNone;  // The buffer that holds the unit that begins at
  uint64_t row_first_ = UINT64_MAX;  // this record.

  SlotReads reads_;  // By tag: slots, row_, then those of Load().
  ReuseTuner reuse_tuner_;
  std::vector<ReadRequest> batch_;  // Of FillRing().
  // Slots read for the chunks from taken_ up to submitted_, in a circle.
  std::vector<uint32_t> ahead_;
  size_t first_ahead_ = 0;
  size_t num_ahead_ = 0;
  size_t max_reading_ = 0;      // Of those, in flight.
  uint32_t held_slot_ = kNone;  // The caller looks at it.
  SweepCursor taken_;           // The chunk that the caller gets next.
  SweepCursor submitted_;       // The chunk that is read next.

  uint64_t resident_bytes_ = 0;
  ReaderStats after_load_;
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_WEIGHT_STORE_H_
