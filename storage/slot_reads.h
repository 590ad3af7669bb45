// Reads in flight to the slots of a ring, and which slots are free.
#ifndef FLASHELM_STORAGE_SLOT_READS_H_
#define FLASHELM_STORAGE_SLOT_READS_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "core/base/cancel.h"
#include "core/base/status.h"
#include "storage/async_reader.h"
#include "storage/sweep_sequence.h"
#include "storage/sweep_trace.h"
#include "storage/weight_file.h"

namespace flashelm {

// Every buffer that is read to has a tag and at most one read in flight: the
// slots of a ring, [0, num_slots), and some others. A read that is not answered
// in time is given up: its buffer is not free until the answer comes after all.
// Used by one thread. Allocates nothing after its construction, unless a call
// fails.
class SlotReads {
 public:
  using Clock = std::chrono::steady_clock;

  // What it refers to outlives it. `reader` may be null where nothing is read,
  // `trace` anywhere.
  SlotReads(const WeightFile& file, AsyncReader* reader, uint32_t num_slots,
            uint32_t num_others, std::chrono::nanoseconds timeout,
            SweepTrace* trace);

  // Ends every wait below with kCancelled once it is set; null: none. Stays
  // valid until it is replaced.
  void set_cancel(const CancelToken* cancel) { cancel_ = cancel; }
  bool is_cancelled() const {
    return cancel_ != nullptr && cancel_->IsCancelled();
  }

  size_t num_free() const { return free_slots_.size(); }
  // One of the free slots, there is one: freed last or freed first.
  uint32_t TakeFree(bool latest);
  // A slot that nobody looks at: free, or given up while it is being read.
  void Release(uint32_t slot);

  // Reads [first, first + count) of a segment go to `target`, with the next
  // Submit(). Nothing is in flight there.
  ReadRequest Prepare(uint32_t tag, uint32_t segment, uint64_t first,
                      uint64_t count, std::byte* target);
  // The same for a slot and the chunk that a sweep will want, which has so many
  // records: counted in num_ahead() while it is in flight.
  ReadRequest PrepareAhead(uint32_t slot, const SweepSequence& sequence,
                           const SweepCursor& chunk, uint64_t count,
                           std::byte* target);
  size_t num_ahead() const { return num_ahead_; }
  // On failure none of the requests is in flight.
  Status Submit(std::span<const ReadRequest> requests);

  uint32_t segment(uint32_t tag) const { return reads_[tag].segment; }
  bool is_in_flight(uint32_t tag) const { return reads_[tag].in_flight; }
  bool is_given_up(uint32_t tag) const { return reads_[tag].given_up; }
  // Nobody wants the answer of that read, or of any, if it is in flight.
  void GiveUp(uint32_t tag) { reads_[tag].given_up = reads_[tag].in_flight; }
  void GiveUpAll();
  // Waits for all that is in flight, at most so long; whether all has ended.
  // Allocates nothing.
  bool Drain(std::chrono::nanoseconds timeout);

  // Looks for reads that have ended, without waiting.
  void Poll();
  Clock::time_point Deadline() const { return Clock::now() + timeout_; }
  // Waits for any read to end, at most for a while, so that callers ask again.
  // kUnavailable: none did until `deadline`. kCancelled: as asked.
  Status TakeOne(Clock::time_point deadline);
  // Waits until a read has ended and looks at how it went; meanwhile calls
  // `refill`, if there is one, whenever another has. kUnavailable: it failed,
  // gave less than it should, or was not answered in time. kCancelled: as
  // asked; the read goes on. Errors of `refill`.
  Status WaitFor(uint32_t tag, const std::function<Status()>& refill = {});
  // Waits for those that were not given up, for as long as a read may take;
  // once cancelled, for some milliseconds. The token may have been reset since
  // a call saw it, hence the parameter.
  void WaitForAll(bool is_cancelled_already);

  // Whether a wait ended with its deadline since this was asked last.
  bool TakeTimedOut() { return std::exchange(timed_out_, false); }
  // No read can be begun, as none is answered.
  void NoteTimedOut() { timed_out_ = true; }

  uint64_t wait_ns() const { return wait_ns_; }  // In WaitFor().
  void ResetWait() { wait_ns_ = 0; }
  // Of reads that were given up and are in flight.
  uint64_t unanswered_bytes() const;

 private:
  // The read of one buffer.
  struct Read {
    bool in_flight = false;
    bool given_up = false;  // In flight, and nobody wants the answer.
    bool is_ahead = false;  // In flight for a sweep: counted in num_ahead_.
    SweepCursor chunk;      // Of a slot: for the trace.
    uint32_t segment = 0;
    uint64_t offset_bytes = 0;
    uint64_t expected_bytes = 0;
    size_t num_bytes = 0;
    Status status;
  };

  // Notes a read's end.
  void Take(ReadCompletion completion);

  const WeightFile& file_;
  AsyncReader* const reader_;
  const uint32_t num_slots_;
  const std::chrono::nanoseconds timeout_;
  SweepTrace* const trace_;
  const CancelToken* cancel_ = nullptr;
  std::vector<Read> reads_;           // By tag.
  std::vector<uint32_t> free_slots_;  // Free since longest first.
  size_t num_ahead_ = 0;
  bool timed_out_ = false;
  uint64_t wait_ns_ = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_SLOT_READS_H_
