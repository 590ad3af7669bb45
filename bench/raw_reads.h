// Bare loops around the system's calls that read a file in order: what a device
// has to give.
#ifndef FLASHELM_BENCH_RAW_READS_H_
#define FLASHELM_BENCH_RAW_READS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#ifdef FLASHELM_HAS_URING
#include <liburing.h>
#endif

namespace flashelm {

// Where reads go on: through the file, and again from its beginning.
struct ReadCursor {
  int fd = -1;
  uint64_t file_bytes = 0;  // At least as many as any read has.
  uint64_t next_offset = 0;

  uint64_t Take(uint64_t num_bytes) {
    if (next_offset + num_bytes > file_bytes) next_offset = 0;
    return std::exchange(next_offset, next_offset + num_bytes);
  }
};

#ifdef FLASHELM_HAS_URING
// A ring that reads in order, `size` bytes into each slot of `target`. Cursor
// and target outlive it. One thread.
class RawRing {
 public:
  RawRing(ReadCursor& cursor, std::span<std::byte> target, uint64_t size,
          uint64_t depth);
  // Waits for what is in flight.
  ~RawRing();
  RawRing(const RawRing&) = delete;
  RawRing& operator=(const RawRing&) = delete;

  bool is_open() const { return is_open_; }
  bool has_failed() const { return has_failed_; }
  std::span<std::byte> Slot(uint64_t slot) const {
    return target_.subspan(slot * size_, size_);
  }

  // What was prepared goes to the kernel together.
  void Prepare(uint64_t slot);
  void Submit() { io_uring_submit(&ring_); }

  // Waits for a read to end, and says which.
  uint64_t Take();
  // The same, of those that have ended.
  std::optional<uint64_t> TryTake();

  uint64_t num_in_flight() const { return num_in_flight_; }

 private:
  uint64_t End(io_uring_cqe* cqe);

  ReadCursor& cursor_;
  const std::span<std::byte> target_;
  const uint64_t size_;
  io_uring ring_ = {};
  bool is_open_ = false;
  bool is_fixed_ = false;
  bool has_failed_ = false;
  uint64_t num_in_flight_ = 0;
};
#endif

}  // namespace flashelm

#endif  // FLASHELM_BENCH_RAW_READS_H_
