// The bundles that a token needs, from DRAM or from flash.
#ifndef FLASHELM_STORAGE_BUNDLE_STORE_H_
#define FLASHELM_STORAGE_BUNDLE_STORE_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/base/cancel.h"
#include "core/base/memory.h"
#include "core/base/status.h"
#include "storage/async_reader.h"
#include "storage/bundle_cache.h"
#include "storage/read_planner.h"
#include "storage/record_verifier.h"
#include "storage/staging_area.h"
#include "storage/weight_file.h"

namespace flashelm {

struct BundleStoreOptions {
  // Per layer: records that its cache holds; more than there are records are
  // not taken.
  std::vector<uint64_t> cache_slots;
  uint32_t window_tokens = BundleCacheOptions::kNoWindow;
  // Where reads go, multiples of kIoAlignment: all of it, and of a single read
  // at most, into which any record has to fit.
  uint64_t staging_bytes = uint64_t{8} << 20;
  uint64_t max_read_bytes = uint64_t{256} << 10;
  // Where the cost says that it is faster, all that lies between a fetch's
  // missing records is read too, at most so many bytes at a time; a multiple of
  // kIoAlignment, not below max_read_bytes. 0: never.
  uint64_t max_dense_read_bytes = 0;
  ReadCost cost;
  // Whether one read may bring several records that are wanted.
  bool merges_reads = true;
  // How long a read may take before the device counts as failed.
  std::chrono::nanoseconds read_timeout = std::chrono::seconds(30);
};

struct BundleStats {
  uint64_t num_tokens = 0;  // Calls of Fetch().
  uint64_t num_wanted = 0;
  uint64_t num_hits = 0;     // Wanted, and in the cache.
  uint64_t num_misses = 0;   // Wanted, and not: reads, were none merged.
  uint64_t num_reads = 0;    // Begun.
  uint64_t read_bytes = 0;   // Of those: gaps and parts of pages included.
  uint64_t fresh_bytes = 0;  // Of bundles wanted, as they came from a read.
  uint64_t io_wait_ns = 0;   // With the caller waiting for a read.
  uint64_t num_dense_fetches = 0;  // Of num_tokens: some read as one span.
  uint64_t memory_ns = 0;  // Finding records in the cache, making room, and
                           // copying there.
};

struct BundleStoreStats {
  BundleStats bundles;      // Of all layers.
  uint64_t io_busy_ns = 0;  // With at least one read in flight.
};

// A bundle in DRAM: its record, [stride_bytes of the segment].
struct Bundle {
  uint32_t id = 0;
  const std::byte* data = nullptr;
};

// Several segments, one for each layer, each with a cache. A record is compared
// with its checksum when this process first reads it. Used by one thread.
//
//   Begin(layer);
//   Add(ids);  // As often as more become known.
//   while (batch = Next()) use *batch;
//
// Bundles come in the order of their ids, so that sums over them do not depend
// on the cache or the device; which of them come in one batch does.
//
// A read that is not answered in time is given up, and its memory is not used
// again until the answer comes after all; the rest goes on.
class BundleStore {
 public:
  using Batch = std::span<const Bundle>;

  // Bytes that Create() charges, for options that it accepts.
  static uint64_t NumBytes(const WeightFile& file,
                           std::span<const uint32_t> segments,
                           const BundleStoreOptions& options);

  // Layer i reads segment segments[i]. Reads nothing. `reader` is for this
  // store alone and keeps as many requests at the device as its queue depth
  // says, which for small reads should be a fixed one, as deep as the reader.
  // All but `segments` and `options` outlive the store.
  // kInvalidArgument: options against the rules above. kUnimplemented: a
  // segment whose records have no checksum each. kResourceExhausted: the budget
  // has less.
  static Result<std::unique_ptr<BundleStore>> Create(
      const WeightFile& file, std::span<const uint32_t> segments,
      const BundleStoreOptions& options, AsyncReader& reader,
      RecordVerifier& verifier, MemoryBudget& budget);
  // Waits for reads in flight, for a while; gives the memory of those that do
  // not end to the reader, which EndReader() has to end then.
  ~BundleStore();
  BundleStore(const BundleStore&) = delete;
  BundleStore& operator=(const BundleStore&) = delete;

  // As WeightStore::RegisterBuffers().
  void RegisterBuffers();

  // As WeightStore::set_cancel(), for Next().
  void set_cancel(const CancelToken* cancel) { cancel_ = cancel; }

  // Begins a token's use of a layer. What was fetched before and not handed out
  // is given up. kInvalidArgument: no such layer; nothing has changed.
  Status Begin(uint32_t layer);

  // The token needs the records `ids`, which ascend and come after those added
  // before: starts to read those that the layer's cache has not. `ids` is not
  // kept. To be called before the first Next().
  // kInvalidArgument: ids that do not ascend or are no records; nothing has
  // changed. kUnavailable: the device failed; what was fetched is given up.
  // kInternal: nothing was begun.
  Status Add(std::span<const uint32_t> ids);

  // Begin() and Add().
  Status Fetch(uint32_t layer, std::span<const uint32_t> ids);

  // The next bundles, in the order of their ids: those that the cache has and
  // that reads have brought, after waiting for one if there are none. Every id
  // added comes once; then nothing. A batch is never empty and lasts until the
  // next call of Next() or Begin(). Allocates nothing unless it fails.
  // kUnavailable, naming file, segment and byte: a read failed, was not
  // answered in time, or brought other bytes than were written. What was
  // fetched is given up then; Begin() may be called again. kCancelled: as
  // asked, and the same. kInternal: nothing was begun.
  Result<std::optional<Batch>> Next();

  uint32_t num_layers() const { return static_cast<uint32_t>(layers_.size()); }
  const BundleCache& cache(uint32_t layer) const {
    return layers_[layer].cache;
  }
  BundleStats layer_stats(uint32_t layer) const { return layers_[layer].stats; }
  BundleStoreStats stats() const;

 private:
  using Clock = std::chrono::steady_clock;

  struct Layer {
    uint32_t segment;
    ReadPlanner planner;
    std::optional<ReadPlanner> dense_planner;
    BundleCache cache;
    BundleStats stats;
  };
  enum class ReadState {
    kFree,
    kInFlight,
    kGivenUp,  // In flight, and nobody wants the answer.
    kEnded,
    kHeld,  // The caller looks at what it brought.
  };
  struct Read {
    ReadState state = ReadState::kFree;
    PlannedRead plan;
    std::byte* target = nullptr;
    size_t num_bytes = 0;
    Status status;
  };

  BundleStore(const WeightFile& file, const BundleStoreOptions& options,
              AsyncReader& reader, RecordVerifier& verifier);

  static Status CheckOptions(const WeightFile& file,
                             std::span<const uint32_t> segments,
                             const BundleStoreOptions& options);
  const Segment& segment() const {
    return file_.segments()[layers_[layer_].segment];
  }
  // How those of this fetch's missing records are read that no read was begun
  // for.
  void ChoosePlanner();
  // Starts reads as long as there are memory and tags for them.
  Status SubmitReads();
  // Notes a read's end.
  void Take(ReadCompletion completion);
  // Looks for reads that have ended, without waiting.
  void Poll();
  bool HasOldestEnded() const;
  // Waits until the oldest read of this fetch has ended, and begun if need be.
  Status WaitForRead();
  Status NotAnswered() const;
  Status CheckRead(Read& read);
  // Adds what the oldest read brought, and what the cache has in between, to
  // the batch.
  Status TakeRead(size_t& num_bundles);
  void Release(uint32_t tag);
  void ReleaseHeld();
  // Gives up what is not handed out yet.
  void EndFetch();
  Status Fail(Status status);

  const WeightFile& file_;
  AsyncReader& reader_;
  RecordVerifier& verifier_;
  const std::chrono::nanoseconds read_timeout_;
  const CancelToken* cancel_ = nullptr;
  const bool merges_reads_;
  const uint64_t busy_ns_at_start_;
  std::vector<Layer> layers_;
  std::optional<StagingArea> staging_;
  AlignedBuffer wanted_ids_;
  AlignedBuffer missing_ids_;
  AlignedBuffer bundle_table_;

  std::vector<Read> reads_;            // By tag.
  std::vector<uint32_t> free_tags_;    // Taken from the end.
  std::vector<ReadRequest> requests_;  // Of SubmitReads().

  // What is fetched.
  bool is_fetching_ = false;
  bool is_dense_ = false;  // In part, at least.
  uint32_t layer_ = 0;
  std::span<const uint32_t> ids_;
  size_t num_handed_out_ = 0;  // Of ids_.
  std::span<const uint32_t> missing_;
  const ReadPlanner* planner_ = nullptr;  // Of the layer.
  size_t num_submitted_ = 0;              // Of missing_.
  size_t num_taken_ = 0;                  // Of missing_.
  // Tags of the reads that were begun and not taken, in a circle.
  std::vector<uint32_t> order_;
  size_t first_in_order_ = 0;
  size_t num_in_order_ = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_BUNDLE_STORE_H_
