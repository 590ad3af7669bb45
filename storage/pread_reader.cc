#include "storage/pread_reader.h"

#include <utility>

namespace flashelm {

PreadReader::PreadReader(const RandomAccessFile& file, uint32_t depth)
    : file_(file), depth_(depth), requests_(depth), completions_(depth) {}

Result<std::unique_ptr<PreadReader>> PreadReader::Create(
    const RandomAccessFile& file, uint32_t depth, uint32_t num_threads) {
  if (depth == 0 || num_threads == 0) {
    return InvalidArgument("a reader of depth ", depth, " with ", num_threads,
                           " threads; both have to be at least 1");
  }
  std::unique_ptr<PreadReader> reader(new PreadReader(file, depth));
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

Status PreadReader::Submit(const ReadRequest& request) {
  if (num_in_flight_ == depth_) {
    return ResourceExhausted("all ", depth_, " reads are in flight");
  }
  ++num_in_flight_;
  {
    std::lock_guard lock(mutex_);
    requests_.Push(request);
    if (num_unfinished_++ == 0) busy_since_ = Clock::now();
  }
  has_request_.notify_one();
  return OkStatus();
}

Result<ReadCompletion> PreadReader::Wait() {
  if (num_in_flight_ == 0) return InvalidArgument("no read is in flight");
  std::unique_lock lock(mutex_);
  has_completion_.wait(lock, [this] { return !completions_.empty(); });
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
    auto got = file_.ReadAt(request.offset_bytes, request.target);
    lock.lock();
    ReadCompletion completion{request.tag, got ? *got : 0,
                              got ? OkStatus() : std::move(got.error())};
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
