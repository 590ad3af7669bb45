#include "bench/raw_reads.h"

namespace flashelm {

#ifdef FLASHELM_HAS_URING
RawRing::RawRing(ReadCursor& cursor, std::span<std::byte> target, uint64_t size,
                 uint64_t depth)
    : cursor_(cursor), target_(target), size_(size) {
  is_open_ = io_uring_queue_init(static_cast<unsigned>(depth), &ring_, 0) == 0;
  const iovec buffer{target_.data(), target_.size()};
  is_fixed_ = is_open_ && io_uring_register_buffers(&ring_, &buffer, 1) == 0;
}

RawRing::~RawRing() {
  while (num_in_flight_ > 0) Take();
  if (is_open_) io_uring_queue_exit(&ring_);
}

void RawRing::Prepare(uint64_t slot) {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  const uint64_t at = cursor_.Take(size_);
  const auto length = static_cast<unsigned>(size_);
  if (is_fixed_) {
    io_uring_prep_read_fixed(sqe, cursor_.fd, Slot(slot).data(), length, at, 0);
  } else {
    io_uring_prep_read(sqe, cursor_.fd, Slot(slot).data(), length, at);
  }
  io_uring_sqe_set_data64(sqe, slot);
  ++num_in_flight_;
}

uint64_t RawRing::Take() {
  io_uring_cqe* cqe = nullptr;
  while (io_uring_wait_cqe(&ring_, &cqe) != 0) {
  }
  return End(cqe);
}

std::optional<uint64_t> RawRing::TryTake() {
  io_uring_cqe* cqe = nullptr;
  if (io_uring_peek_cqe(&ring_, &cqe) != 0) return std::nullopt;
  return End(cqe);
}

uint64_t RawRing::End(io_uring_cqe* cqe) {
  const uint64_t slot = cqe->user_data;
  if (cqe->res != static_cast<int>(size_)) has_failed_ = true;
  io_uring_cqe_seen(&ring_, cqe);
  --num_in_flight_;
  return slot;
}
#endif

}  // namespace flashelm
