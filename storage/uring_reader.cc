#include "storage/uring_reader.h"

#ifdef FLASHELM_HAS_URING

#include <liburing.h>
#include <sys/uio.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <numeric>
#include <thread>
#include <utility>

#include "core/base/types.h"

namespace flashelm {
namespace {

using std::chrono::nanoseconds;

// The first is what most devices like; the others are for those that differ.
constexpr std::array<ReadShape, 6> kShapes = {{
    {uint64_t{512} << 10, 32},
    {uint64_t{512} << 10, 8},
    {uint64_t{512} << 10, 4},
    {uint64_t{256} << 10, 32},
    {uint64_t{256} << 10, 8},
    {uint64_t{128} << 10, 16},
}};

// The kernel's own limit.
constexpr uint64_t kMaxRegisteredBytes = uint64_t{1} << 30;

constexpr uint32_t kMaxRetries = 16;
// How long the kernel may refuse requests before the ring is given up, and how
// long to wait before it is asked again.
constexpr nanoseconds kMaxRefusal = std::chrono::seconds(1);
constexpr nanoseconds kSubmitPause = std::chrono::milliseconds(1);

__kernel_timespec ToTimespec(nanoseconds time) {
  return {time.count() / 1000000000, time.count() % 1000000000};
}

ErrorStatus Refused(const RandomAccessFile& file, const char* what, int error) {
  return Unimplemented(
      file.path(), ": no io_uring here: ", ErrnoStatus(error, what).message());
}

}  // namespace

void UringReader::RingDeleter::operator()(io_uring* ring) const {
  io_uring_queue_exit(ring);
  delete ring;
}

Result<std::unique_ptr<AsyncReader>> UringReader::Create(
    std::shared_ptr<const RandomAccessFile> file, uint32_t depth,
    const ReadShape& shape) {
  if (depth == 0) {
    return InvalidArgument("a reader of depth 0; it has to be at least 1");
  }
  FLASHELM_RETURN_IF_ERROR(CheckReadShape(shape));
  if (file->fd() < 0) {
    return Unimplemented(file->path(),
                         ": no io_uring here: the file has no descriptor");
  }
  std::vector<ReadShape> candidates =
      FixedCandidates({kShapes.begin(), kShapes.end()}, shape);
  uint32_t max_requests = 0;
  for (const ReadShape& candidate : candidates) {
    max_requests = std::max(max_requests, candidate.queue_depth);
  }

  FLASHELM_ASSIGN_OR_RETURN(auto ring, Open(*file, max_requests));
  return std::unique_ptr<AsyncReader>(
      new UringReader(std::move(file), std::move(ring.first), ring.second,
                      depth, std::move(candidates), max_requests));
}

Result<std::pair<UringReader::UniqueRing, bool>> UringReader::Open(
    const RandomAccessFile& file, uint32_t max_requests) {
  auto params = io_uring_params();
  // Ends are noticed in calls only, so nothing else need interrupt the thread
  // for them. Kernels before 5.19 do not know this.
  params.flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
  auto raw = std::make_unique<io_uring>();
  int rc = io_uring_queue_init_params(max_requests, raw.get(), &params);
  if (rc == -EINVAL) {
    params = io_uring_params();
    rc = io_uring_queue_init_params(max_requests, raw.get(), &params);
  }
  if (rc < 0) return Refused(file, "io_uring_setup", -rc);
  UniqueRing ring(raw.release());
  if ((params.features & IORING_FEAT_EXT_ARG) == 0) {
    return Unimplemented(file.path(),
                         ": no io_uring here: the kernel is older than 5.11");
  }
  // A filter may allow the first call and refuse the rest.
  io_uring_prep_nop(io_uring_get_sqe(ring.get()));
  rc = io_uring_submit(ring.get());
  if (rc < 0) return Refused(file, "io_uring_enter", -rc);
  io_uring_cqe* cqe = nullptr;
  __kernel_timespec second = ToTimespec(std::chrono::seconds(1));
  do {
    rc = io_uring_wait_cqe_timeout(ring.get(), &cqe, &second);
  } while (rc == -EINTR);
  if (rc < 0) return Refused(file, "io_uring_enter", -rc);
  io_uring_cqe_seen(ring.get(), cqe);

  const int fd = file.fd();
  const bool has_fixed_file = io_uring_register_files(ring.get(), &fd, 1) == 0;
  return std::pair(std::move(ring), has_fixed_file);
}

UringReader::UringReader(std::shared_ptr<const RandomAccessFile> file,
                         UniqueRing ring, bool has_fixed_file, uint32_t depth,
                         std::vector<ReadShape> candidates,
                         uint32_t max_requests)
    : file_(std::move(file)),
      ring_(std::move(ring)),
      has_fixed_file_(has_fixed_file),
      splitter_(depth),
      tuner_(std::move(candidates)),
      requests_(max_requests),
      free_(max_requests) {
  std::iota(free_.rbegin(), free_.rend(), 0u);
  prepared_.reserve(max_requests);
}

// The kernel may still write to targets of reads that were never seen to their
// end. It holds their pages itself, and the caller leaks them.
UringReader::~UringReader() = default;

Status UringReader::Submit(std::span<const ReadRequest> requests) {
  if (!broken_.ok()) FLASHELM_RETURN_IF_ERROR(Reopen());
  FLASHELM_RETURN_IF_ERROR(splitter_.Add(requests));
  Reap();
  Refill();
  return OkStatus();
}

std::optional<ReadCompletion> UringReader::Wait(nanoseconds timeout) {
  if (splitter_.num_reads() == 0) return std::nullopt;
  const auto begin = Clock::now();
  // Refusals count while someone waits and asks again.
  refused_since_.reset();
  while (true) {
    Reap();
    Refill();
    if (splitter_.has_ended()) return splitter_.PopEnded();
    const nanoseconds left = timeout - (Clock::now() - begin);
    if (timeout.count() <= 0 || left.count() <= 0) return std::nullopt;
    int rc = 0;
    if (splitter_.num_pieces() > prepared_.size()) {
      __kernel_timespec time =
          ToTimespec(prepared_.empty() ? left : std::min(left, kSubmitPause));
      io_uring_cqe* cqe = nullptr;
      rc = io_uring_wait_cqe_timeout(ring_.get(), &cqe, &time);
    }
    // Nothing to wait for, or no way to: not in a busy loop.
    if ((rc < 0 && rc != -ETIME && rc != -EINTR) ||
        splitter_.num_pieces() == prepared_.size()) {
      std::this_thread::sleep_for(std::min(left, kSubmitPause));
    }
  }
}

void UringReader::RegisterBuffer(std::span<std::byte> memory) {
  assert(splitter_.num_reads() == 0);
  if (!registered_.empty()) io_uring_unregister_buffers(ring_.get());
  registered_ = {};
  if (memory.empty()) return;
  AdviseHugePages(memory);
  RegisterAgain(memory);
}

void UringReader::RegisterAgain(std::span<std::byte> memory) {
  std::vector<iovec> parts;
  for (size_t at = 0; at < memory.size(); at += kMaxRegisteredBytes) {
    parts.push_back(
        {memory.data() + at,
         std::min<size_t>(memory.size() - at, kMaxRegisteredBytes)});
  }
  // Refused where too little memory may be locked; then reads pin their pages
  // one by one.
  if (io_uring_register_buffers(ring_.get(), parts.data(),
                                static_cast<unsigned>(parts.size())) == 0) {
    registered_ = memory;
  }
}

ReaderStats UringReader::stats() const { return splitter_.stats(Clock::now()); }

void UringReader::Prepare(uint32_t index) {
  io_uring_sqe* sqe = io_uring_get_sqe(ring_.get());
  assert(sqe != nullptr);
  const Request& request = requests_[index];
  const std::span<std::byte> target =
      request.piece.target.subspan(request.done);
  const uint64_t offset =
      file_->fd_offset() + request.piece.offset_bytes + request.done;
  const int fd = has_fixed_file_ ? 0 : file_->fd();
  const auto size = static_cast<unsigned>(target.size());
  // As numbers: pointers into different arrays have no order.
  const auto at = reinterpret_cast<uintptr_t>(target.data()) -
                  reinterpret_cast<uintptr_t>(registered_.data());
  if (at < registered_.size() && size <= registered_.size() - at &&
      at / kMaxRegisteredBytes == (at + size - 1) / kMaxRegisteredBytes) {
    io_uring_prep_read_fixed(sqe, fd, target.data(), size, offset,
                             static_cast<int>(at / kMaxRegisteredBytes));
  } else {
    io_uring_prep_read(sqe, fd, target.data(), size, offset);
  }
  if (has_fixed_file_) sqe->flags |= IOSQE_FIXED_FILE;
  // Was refused for the moment: from a kernel thread, which can wait.
  if (request.num_retries > 0) sqe->flags |= IOSQE_ASYNC;
  io_uring_sqe_set_data64(sqe, index);
  prepared_.push_back(index);
}

void UringReader::Refill() {
  const auto has_room = [&] {
    return splitter_.has_piece() && !free_.empty() &&
           splitter_.num_pieces() < tuner_.shape().queue_depth;
  };
  if (broken_.ok() && has_room()) {
    const auto now = Clock::now();
    do {
      const uint32_t index = free_.back();
      free_.pop_back();
      requests_[index] = {splitter_.Begin(tuner_.shape().request_bytes, now), 0,
                          0};
      Prepare(index);
    } while (has_room());
  }
  SubmitPrepared();
}

void UringReader::SubmitPrepared() {
  if (prepared_.empty()) return;
  const int rc = io_uring_submit(ring_.get());
  if (rc > 0) {
    prepared_.erase(prepared_.begin(), prepared_.begin() + rc);
    refused_since_.reset();
  } else if (rc != -EINTR) {
    const auto now = Clock::now();
    if (!refused_since_) refused_since_ = now;
    if (now - *refused_since_ >= kMaxRefusal) Break(-rc);
  }
}

void UringReader::Stop() {
  is_stopped_ = true;
  if (broken_.ok()) Break(Cancelled(file_->path(), ": the reader has ended"));
}

void UringReader::Break(int error) {
  Break(Unavailable(file_->path(), ": ",
                    ErrnoStatus(error, "io_uring_enter").message()));
}

void UringReader::Break(Status why) {
  // The queue is never handed over again, so these targets stay untouched.
  broken_ = std::move(why);
  const auto now = Clock::now();
  for (const uint32_t index : prepared_) EndRequest(index, broken_, now);
  prepared_.clear();
  while (splitter_.has_piece()) {
    const ReadSplitter::Piece piece = splitter_.Begin(UINT64_MAX, now);
    splitter_.End(piece, 0, broken_, now);
  }
}

Status UringReader::Reopen() {
  // What the old ring's kernel side still writes to has to be seen to its end.
  if (is_stopped_ || splitter_.num_reads() > 0) return broken_;
  auto ring = Open(*file_, static_cast<uint32_t>(requests_.size()));
  if (!ring) return broken_;
  ring_ = std::move(ring->first);
  has_fixed_file_ = ring->second;
  refused_since_.reset();
  broken_ = OkStatus();
  const std::span<std::byte> memory = std::exchange(registered_, {});
  if (!memory.empty()) RegisterAgain(memory);
  return OkStatus();
}

void UringReader::Reap() {
  io_uring_cqe* first = nullptr;
  // Enters the kernel only where it has ends that it has not noted yet.
  if (io_uring_peek_cqe(ring_.get(), &first) != 0) return;
  const auto now = Clock::now();
  unsigned head = 0;
  unsigned count = 0;
  io_uring_cqe* cqe = nullptr;
  io_uring_for_each_cqe(ring_.get(), head, cqe) {
    OnEnd(static_cast<uint32_t>(cqe->user_data), cqe->res, now);
    ++count;
  }
  io_uring_cq_advance(ring_.get(), count);
}

void UringReader::OnEnd(uint32_t index, int32_t result, Clock::time_point now) {
  Request& request = requests_[index];
  const size_t wanted = request.piece.target.size();
  if (result < 0) {
    // Cancelled are reads that are in the hands of the kernel's threads when
    // the thread that began them ends.
    const bool is_passing =
        result == -EINTR || result == -EAGAIN || result == -ECANCELED;
    if (is_passing && broken_.ok() && request.num_retries < kMaxRetries) {
      ++request.num_retries;
      return Prepare(index);
    }
    return EndRequest(
        index,
        ReadFailed(file_->path(), request.piece.offset_bytes, wanted, -result),
        now);
  }
  request.done += static_cast<size_t>(result);
  const bool is_end =
      result == 0 || (file_->direct_io() && request.done % kIoAlignment != 0);
  if (request.done < wanted && !is_end && broken_.ok()) {
    request.num_retries = 0;
    return Prepare(index);
  }
  file_->DropPages(request.piece.offset_bytes, request.done);
  EndRequest(index, request.done < wanted && !is_end ? broken_ : OkStatus(),
             now);
}

void UringReader::EndRequest(uint32_t index, Status status,
                             Clock::time_point now) {
  const Request& request = requests_[index];
  const bool is_ok = status.ok();
  splitter_.End(request.piece, is_ok ? request.done : 0, std::move(status),
                now);
  if (is_ok) tuner_.OnRequestEnd(request.done, now);
  if (splitter_.is_idle()) tuner_.OnIdle();
  free_.push_back(index);
}

}  // namespace flashelm

#else  // No liburing: the class has no objects.

namespace flashelm {

Result<std::unique_ptr<AsyncReader>> UringReader::Create(
    std::shared_ptr<const RandomAccessFile> file, uint32_t, const ReadShape&) {
  return Unimplemented(file->path(), ": no io_uring in this build");
}

}  // namespace flashelm

#endif
