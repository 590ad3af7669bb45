#include "storage/pread_reader.h"

#include <utility>

namespace flashelm {

PreadReader::PreadReader(std::shared_ptr<const RandomAccessFile> file,
                         uint32_t depth)
    : file_(std::move(file)), depth_(depth), requests_(depth), completions_(depth) {}

Result<std::unique_ptr<PreadReader>> PreadReader::Create(
    std::shared_ptr<const RandomAccessFile> file, uint32_t depth,
    uint32_t num_threads) {
  if (depth == 0 || num_threads == 0) {
    return InvalidArgument("a reader of depth ", depth, " with ", num_threads,
                           " threads; both have to be at least 1");
  }
  std::unique_ptr<PreadReader> reader(new PreadReader(std::move(file), depth));
  reader->workers_.reserve(num_threads);
  for (uint32_t i = 0; i < num_threads; ++i) {
    FLASHELM_ASSIGN_OR_RETURN(
        Thread worker,
        Thread::Start([raw = reader.get()] { raw->WorkerLoop(); }));
    reader->workers_.push_back(std::move(worker));
  }
  return reader;
}

PreadReader::~PreadReader() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  has_request_.notify_all();
  // Workers finish what was submitted: the targets are the caller's, who may
  // free them as soon as this returns.
  workers_.clear();
}

Status PreadReader::Submit(std::span<const ReadRequest> requests) {
  if (requests.size() > depth_ - num_in_flight_) {
    return ResourceExhausted(num_in_flight_, " of ", depth_,
                             " reads are in flight, no room for ",
                             requests.size());
  }
  num_in_flight_ += static_cast<uint32_t>(requests.size());
  {
    std::lock_guard lock(mutex_);
    for (const ReadRequest& request : requests) {
      requests_.Push(request);
      if (num_unfinished_++ == 0) busy_since_ = Clock::now();
    }
  }
  has_request_.notify_all();
  return OkStatus();
}

std::optional<ReadCompletion> PreadReader::Wait(
    std::chrono::nanoseconds timeout) {
  if (num_in_flight_ == 0) return std::nullopt;
  std::unique_lock lock(mutex_);
  if (!has_completion_.wait_for(lock, timeout,
                                [this] { return !completions_.empty(); })) {
    return std::nullopt;
  }
  --num_in_flight_;
  return completions_.Pop();
}

ReaderStats PreadReader::stats() const {
  std::lock_guard lock(mutex_);
  ReaderStats stats = stats_;
  if (num_unfinished_ != 0) {
    stats.busy_ns += static_cast<uint64_t>(
        std::chrono::nanoseconds(Clock::now() - busy_since_).count());
  }
  return stats;
}

void PreadReader::WorkerLoop() {
  std::unique_lock lock(mutex_);
  while (true) {
    has_request_.wait(lock, [this] { return stop_ || !requests_.empty(); });
    if (requests_.empty()) return;
    const ReadRequest request = requests_.Pop();
    lock.unlock();
    const auto begin = Clock::now();
    auto got = file_->ReadAt(request.offset_bytes, request.target);
    lock.lock();
    ReadCompletion completion{request.tag, got ? *got : 0,
                              got ? OkStatus() : std::move(got.error()),
                              begin, Clock::now()};
    stats_.num_reads += 1;
    stats_.num_bytes += completion.num_bytes;
    if (--num_unfinished_ == 0) {
      stats_.busy_ns += static_cast<uint64_t>(
          std::chrono::nanoseconds(Clock::now() - busy_since_).count());
    }
    completions_.Push(std::move(completion));
    has_completion_.notify_one();
  }
}

}  // namespace flashelm
