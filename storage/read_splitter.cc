#include "storage/read_splitter.h"

#include <algorithm>
#include <cassert>
#include <numeric>
#include <utility>

namespace flashelm {
namespace {

uint64_t Nanoseconds(std::chrono::steady_clock::duration duration) {
  return static_cast<uint64_t>(std::chrono::nanoseconds(duration).count());
}

}  // namespace

ReadSplitter::ReadSplitter(uint32_t max_reads)
    : reads_(max_reads),
      free_(max_reads),
      waiting_(max_reads),
      ended_(max_reads) {
  std::iota(free_.rbegin(), free_.rend(), 0u);
}

Status ReadSplitter::Add(std::span<const ReadRequest> requests) {
  if (requests.size() > max_reads() - num_reads_) {
    return ResourceExhausted(num_reads_, " of ", max_reads(),
                             " reads are in flight, no room for ",
                             requests.size());
  }
  for (const ReadRequest& request : requests) {
    const uint32_t slot = free_[max_reads() - ++num_reads_];
    Read& read = reads_[slot];
    read.request = request;
    read.next = 0;
    read.num_bytes = request.target.size();
    read.num_pieces = 0;
    read.has_begun = false;
    waiting_[(first_waiting_ + num_waiting_++) % max_reads()] = slot;
  }
  return OkStatus();
}

void ReadSplitter::PopWaiting() {
  first_waiting_ = (first_waiting_ + 1) % max_reads();
  --num_waiting_;
}

ReadSplitter::Piece ReadSplitter::Begin(uint64_t max_bytes, TimePoint now) {
  assert(has_piece() && max_bytes > 0);
  const uint32_t slot = waiting_[first_waiting_];
  Read& read = reads_[slot];
  if (!read.has_begun) {
    read.has_begun = true;
    read.begin = now;
    if (num_begun_++ == 0) busy_since_ = now;
  }
  const size_t at = read.next;
  const size_t size =
      std::min<uint64_t>(max_bytes, read.request.target.size() - at);
  read.next += size;
  ++read.num_pieces;
  ++num_pieces_;
  if (read.next == read.request.target.size()) PopWaiting();
  return {slot, at, read.request.offset_bytes + at,
          read.request.target.subspan(at, size)};
}

void ReadSplitter::End(const Piece& piece, size_t num_bytes, Status status,
                       TimePoint now) {
  Read& read = reads_[piece.slot];
  --read.num_pieces;
  --num_pieces_;
  stats_.num_reads += 1;
  stats_.num_bytes += num_bytes;
  if (!status.ok() && (read.status.ok() || piece.at < read.failed_at)) {
    read.status = std::move(status);
    read.failed_at = piece.at;
  }
  if (num_bytes < piece.target.size()) {
    // Failed, or the file's end: what comes behind is not asked for any more.
    read.num_bytes = std::min(read.num_bytes, piece.at + num_bytes);
    if (read.next < read.request.target.size()) {
      // Pieces are cut from one read after the other, so it is the first.
      assert(waiting_[first_waiting_] == piece.slot);
      read.next = read.request.target.size();
      PopWaiting();
    }
  }
  if (read.num_pieces > 0 || read.next < read.request.target.size()) return;
  read.end = now;
  ended_[(first_ended_ + num_ended_++) % max_reads()] = piece.slot;
  if (--num_begun_ == 0) stats_.busy_ns += Nanoseconds(now - busy_since_);
}

ReadCompletion ReadSplitter::PopEnded() {
  assert(has_ended());
  const uint32_t slot = ended_[first_ended_];
  first_ended_ = (first_ended_ + 1) % max_reads();
  --num_ended_;
  free_[max_reads() - num_reads_--] = slot;
  Read& read = reads_[slot];
  const size_t num_bytes = read.status.ok() ? read.num_bytes : 0;
  return {read.request.tag, num_bytes, std::exchange(read.status, OkStatus()),
          read.begin, read.end};
}

ReaderStats ReadSplitter::stats(TimePoint now) const {
  ReaderStats stats = stats_;
  if (num_begun_ > 0) stats.busy_ns += Nanoseconds(now - busy_since_);
  return stats;
}

}  // namespace flashelm
