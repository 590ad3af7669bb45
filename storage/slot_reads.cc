#include "storage/slot_reads.h"

#include <algorithm>
#include <cassert>

namespace flashelm {
namespace {

// How often a wait for the device looks whether it is still wanted, and how
// long reads in flight have then: a device that is well answers them meanwhile.
constexpr std::chrono::nanoseconds kCancelPeriod =
    std::chrono::milliseconds(20);

}  // namespace

SlotReads::SlotReads(const WeightFile& file, AsyncReader* reader,
                     uint32_t num_slots, uint32_t num_others,
                     std::chrono::nanoseconds timeout, SweepTrace* trace)
    : file_(file),
      reader_(reader),
      num_slots_(num_slots),
      timeout_(timeout),
      trace_(trace),
      reads_(num_slots + num_others) {
  // Taken from the end: slot 0 first.
  for (uint32_t slot = num_slots; slot > 0; --slot) {
    free_slots_.push_back(slot - 1);
  }
}

uint32_t SlotReads::TakeFree(bool latest) {
  const auto at = latest ? free_slots_.end() - 1 : free_slots_.begin();
  const uint32_t slot = *at;
  free_slots_.erase(at);
  return slot;
}

void SlotReads::Release(uint32_t slot) {
  if (reads_[slot].in_flight) {
    reads_[slot].given_up = true;
    if (std::exchange(reads_[slot].is_ahead, false)) --num_ahead_;
  } else {
    free_slots_.push_back(slot);
  }
}

ReadRequest SlotReads::Prepare(uint32_t tag, uint32_t segment, uint64_t first,
                               uint64_t count, std::byte* target) {
  const Segment& info = file_.segments()[segment];
  Read& read = reads_[tag];
  assert(!read.in_flight);
  read.in_flight = true;
  read.segment = segment;
  read.offset_bytes = info.offset_bytes + first * info.stride_bytes;
  read.expected_bytes = RunPageBytes(info, count);
  return {read.offset_bytes, std::span(target, read.expected_bytes), tag};
}

ReadRequest SlotReads::PrepareAhead(uint32_t slot,
                                    const SweepSequence& sequence,
                                    const SweepCursor& chunk, uint64_t count,
                                    std::byte* target) {
  reads_[slot].chunk = chunk;
  reads_[slot].is_ahead = true;
  ++num_ahead_;
  return Prepare(slot, sequence.SegmentAt(chunk.step), chunk.record, count,
                 target);
}

Status SlotReads::Submit(std::span<const ReadRequest> requests) {
  Status status = reader_->Submit(requests);
  if (status.ok()) return status;
  for (const ReadRequest& request : requests) {
    Read& read = reads_[request.tag];
    read.in_flight = false;
    if (std::exchange(read.is_ahead, false)) --num_ahead_;
  }
  return status;
}

void SlotReads::GiveUpAll() {
  for (Read& read : reads_) read.given_up = read.in_flight;
}

bool SlotReads::Drain(std::chrono::nanoseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  while (reader_->num_in_flight() > 0) {
    const auto left = deadline - Clock::now();
    auto completion = reader_->Wait(std::max(left, left.zero()));
    if (completion) {
      Take(std::move(*completion));
    } else if (left <= left.zero()) {
      return false;
    }
  }
  return true;
}

uint64_t SlotReads::unanswered_bytes() const {
  uint64_t total = 0;
  for (const Read& read : reads_) {
    if (read.in_flight && read.given_up) total += read.expected_bytes;
  }
  return total;
}

void SlotReads::Take(ReadCompletion completion) {
  Read& read = reads_[completion.tag];
  read.in_flight = false;
  if (std::exchange(read.given_up, false)) {
    if (completion.tag < num_slots_) Release(completion.tag);
    return;
  }
  if (std::exchange(read.is_ahead, false)) --num_ahead_;
  read.num_bytes = completion.num_bytes;
  read.status = std::move(completion.status);
  if (trace_ != nullptr && completion.tag < num_slots_) {
    trace_->AddRead(read.chunk.sweep, read.chunk.step, read.num_bytes,
                    completion.begin, completion.end);
  }
}

void SlotReads::Poll() {
  while (auto completion = reader_->Wait(std::chrono::nanoseconds(0))) {
    Take(std::move(*completion));
  }
}

Status SlotReads::TakeOne(Clock::time_point deadline) {
  if (is_cancelled()) return Cancelled("stopped while waiting for the device");
  auto left = deadline - Clock::now();
  if (cancel_ != nullptr) left = std::min<Clock::duration>(left, kCancelPeriod);
  auto completion = reader_->Wait(std::max(left, left.zero()));
  if (completion) {
    Take(std::move(*completion));
    return OkStatus();
  }
  if (Clock::now() < deadline) return OkStatus();
  timed_out_ = true;
  return Unavailable("not answered within ",
                     std::chrono::duration<double>(timeout_).count(),
                     " s: the device hangs or is gone");
}

Status SlotReads::WaitFor(uint32_t tag, const std::function<Status()>& refill) {
  Read& wanted = reads_[tag];
  Status status;
  if (wanted.in_flight) Poll();
  if (wanted.in_flight) {
    const auto begin = Clock::now();
    // What Poll() took has made room as well.
    if (refill) status = refill();
    while (wanted.in_flight && status.ok()) {
      status = TakeOne(begin + timeout_);
      if (status.ok() && refill) status = refill();
    }
    const auto end = Clock::now();
    wait_ns_ +=
        static_cast<uint64_t>(std::chrono::nanoseconds(end - begin).count());
    if (trace_ != nullptr) trace_->AddWait(end - begin);
  }
  if (status.ok()) status = std::exchange(wanted.status, OkStatus());
  if (!status.ok()) {
    return Status(status.code(),
                  StatusMessage::Join(
                      file_.path(), ": reading ",
                      file_.segments()[wanted.segment].Describe(), " at byte ",
                      wanted.offset_bytes, ": ", status.message()));
  }
  if (wanted.num_bytes < wanted.expected_bytes) {
    return Unavailable(file_.path(), ": reading ",
                       file_.segments()[wanted.segment].Describe(), " at byte ",
                       wanted.offset_bytes, " gave ", wanted.num_bytes, " of ",
                       wanted.expected_bytes,
                       " bytes: the file has become shorter since it was "
                       "opened, or the device failed");
  }
  return OkStatus();
}

void SlotReads::WaitForAll(bool is_cancelled_already) {
  auto deadline = Deadline();
  const auto is_awaited = [](const Read& read) {
    return read.in_flight && !read.given_up;
  };
  bool is_in_a_hurry = false;
  while (std::ranges::any_of(reads_, is_awaited)) {
    const auto now = Clock::now();
    if (!is_in_a_hurry && (is_cancelled_already || is_cancelled())) {
      is_in_a_hurry = true;
      deadline = std::min(deadline, now + kCancelPeriod);
    }
    if (now >= deadline) {
      timed_out_ = !is_in_a_hurry;
      return;
    }
    auto completion =
        reader_->Wait(std::min<Clock::duration>(deadline - now, kCancelPeriod));
    if (completion) Take(std::move(*completion));
  }
}

}  // namespace flashelm
