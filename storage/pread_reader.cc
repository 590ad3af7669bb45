#include "storage/pread_reader.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <mutex>
#include <new>
#include <string>
#include <utility>

#include "core/base/checked_math.h"
#include "storage/read_splitter.h"

namespace flashelm {
namespace {

using Clock = std::chrono::steady_clock;

// The first is what most devices like; the others are for those that differ.
constexpr std::array<ReadShape, 6> kShapes = {{
    {uint64_t{512} << 10, 8},
    {uint64_t{512} << 10, 6},
    {uint64_t{512} << 10, 4},
    {uint64_t{512} << 10, 2},
    {uint64_t{256} << 10, 4},
    {uint64_t{256} << 10, 8},
}};

std::vector<ReadShape> Candidates(const ReadShape& fixed,
                                  uint32_t num_threads) {
  std::vector<ReadShape> candidates(kShapes.begin(), kShapes.end());
  for (ReadShape& shape : candidates) {
    shape.queue_depth = std::min(shape.queue_depth, num_threads);
  }
  return FixedCandidates(std::move(candidates), fixed);
}

// Nobody would catch what is thrown in a thread that reads.
Result<size_t> ReadPiece(const RandomAccessFile& file,
                         const ReadSplitter::Piece& piece) {
  try {
    return file.ReadAt(piece.offset_bytes, piece.target);
  } catch (const std::bad_alloc&) {
    // It failed, and there was no memory to say how.
    return Unexpected(Status(StatusCode::kUnavailable, std::string()));
  }
}

}  // namespace

// Each waits on its own: with several on one condition variable glibc before
// 2.41 can lose a call (its bug 25847), and a read would never begin.
struct PreadReader::Worker {
  std::condition_variable wake;
  bool is_called = false;
  bool is_reading = false;
};

struct PreadReader::State {
  State(std::shared_ptr<const RandomAccessFile> read_file, uint32_t depth,
        uint32_t num_threads, const ReadShape& shape)
      : file(std::move(read_file)),
        splitter(depth),
        tuner(Candidates(shape, num_threads)),
        workers(num_threads) {
    idle.reserve(num_threads);
  }

  // Whether a thread may take a piece now.
  bool has_work() const {
    return splitter.has_piece() &&
           splitter.num_pieces() < tuner.shape().queue_depth;
  }

  // The worker that has to be woken once the mutex is free; one has to wait.
  Worker& CallIdle() {
    Worker& worker = workers[idle.back()];
    idle.pop_back();
    worker.is_called = true;
    return worker;
  }

  const std::shared_ptr<const RandomAccessFile> file;
  std::mutex mutex;
  std::condition_variable has_completion;
  // Guarded by the mutex from here on.
  ReadSplitter splitter;
  ReadTuner tuner;
  std::vector<Worker> workers;
  std::vector<uint32_t> idle;  // Workers that wait and were not called.
  bool is_waited_for = false;  // By Wait().
  bool stop = false;
};

PreadReader::PreadReader(std::shared_ptr<State> state)
    : state_(std::move(state)) {}

Result<std::unique_ptr<PreadReader>> PreadReader::Create(
    std::shared_ptr<const RandomAccessFile> file, uint32_t depth,
    uint32_t num_threads, const ReadShape& shape) {
  if (depth == 0 || num_threads == 0) {
    return InvalidArgument("a reader of depth ", depth, " with ", num_threads,
                           " threads; both have to be at least 1");
  }
  FLASHELM_RETURN_IF_ERROR(CheckReadShape(shape));
  auto state =
      std::make_shared<State>(std::move(file), depth, num_threads, shape);
  std::unique_ptr<PreadReader> reader(new PreadReader(state));
  reader->workers_.reserve(num_threads);
  reader->called_.reserve(num_threads);
  for (uint32_t i = 0; i < num_threads; ++i) {
    FLASHELM_ASSIGN_OR_RETURN(
        Thread worker, Thread::Start([state, i] { WorkerLoop(*state, i); }));
    reader->workers_.push_back(std::move(worker));
  }
  return reader;
}

PreadReader::~PreadReader() {
  {
    std::lock_guard lock(state_->mutex);
    EndIdle();
    for (size_t i = 0; i < workers_.size(); ++i) {
      if (state_->workers[i].is_reading) workers_[i].Detach();
    }
  }
  WakeCalled();
  workers_.clear();
}

void PreadReader::EndIdle() {
  state_->stop = true;
  while (!state_->idle.empty()) called_.push_back(&state_->CallIdle());
}

void PreadReader::Stop() {
  {
    std::lock_guard lock(state_->mutex);
    EndIdle();
    const auto now = Clock::now();
    while (state_->splitter.has_piece()) {
      const ReadSplitter::Piece piece = state_->splitter.Begin(UINT64_MAX, now);
      state_->splitter.End(
          piece, 0, Cancelled(state_->file->path(), ": the reader has ended"),
          now);
    }
  }
  WakeCalled();
}

Status PreadReader::Submit(std::span<const ReadRequest> requests) {
  {
    std::lock_guard lock(state_->mutex);
    if (state_->stop) {
      return Cancelled(state_->file->path(), ": the reader has ended");
    }
    FLASHELM_RETURN_IF_ERROR(state_->splitter.Add(requests));
    const ReadShape& shape = state_->tuner.shape();
    uint64_t num_wanted = 0;
    for (const ReadRequest& request : requests) {
      num_wanted += std::max<uint64_t>(
          1, CeilDiv(request.target.size(), shape.request_bytes));
    }
    const uint32_t busy = state_->splitter.num_pieces();
    num_wanted = std::min<uint64_t>(
        {num_wanted, shape.queue_depth - std::min(busy, shape.queue_depth),
         state_->idle.size()});
    while (num_wanted-- > 0) called_.push_back(&state_->CallIdle());
  }
  WakeCalled();
  return OkStatus();
}

void PreadReader::WakeCalled() {
  for (Worker* worker : called_) worker->wake.notify_one();
  called_.clear();
}

std::optional<ReadCompletion> PreadReader::Wait(
    std::chrono::nanoseconds timeout) {
  std::unique_lock lock(state_->mutex);
  ReadSplitter& splitter = state_->splitter;
  if (splitter.num_reads() == 0) return std::nullopt;
  if (!splitter.has_ended() && timeout.count() > 0) {
    // Added to the time of now, so it may not be without end.
    timeout =
        std::min<std::chrono::nanoseconds>(timeout, std::chrono::hours(24));
    state_->is_waited_for = true;
    state_->has_completion.wait_for(lock, timeout,
                                    [&] { return splitter.has_ended(); });
    state_->is_waited_for = false;
  }
  if (!splitter.has_ended()) return std::nullopt;
  return splitter.PopEnded();
}

void PreadReader::RegisterBuffer(std::span<std::byte> memory) {
  AdviseHugePages(memory);
}

uint32_t PreadReader::depth() const { return state_->splitter.max_reads(); }

uint32_t PreadReader::num_in_flight() const {
  std::lock_guard lock(state_->mutex);
  return state_->splitter.num_reads();
}

ReaderStats PreadReader::stats() const {
  std::lock_guard lock(state_->mutex);
  return state_->splitter.stats(Clock::now());
}

void PreadReader::WorkerLoop(State& state, uint32_t index) {
  Worker& worker = state.workers[index];
  ReadSplitter& splitter = state.splitter;
  std::unique_lock lock(state.mutex);
  while (true) {
    while (!state.stop && !state.has_work()) {
      worker.is_called = false;
      state.idle.push_back(index);
      worker.wake.wait(lock, [&] { return worker.is_called; });
    }
    if (state.stop) return;
    const ReadSplitter::Piece piece =
        splitter.Begin(state.tuner.shape().request_bytes, Clock::now());
    // The shape may have changed since the last Submit().
    Worker* another =
        !state.idle.empty() && state.has_work() ? &state.CallIdle() : nullptr;
    worker.is_reading = true;
    lock.unlock();
    if (another != nullptr) another->wake.notify_one();
    auto got = ReadPiece(*state.file, piece);
    lock.lock();
    worker.is_reading = false;
    const auto now = Clock::now();
    if (got) {
      splitter.End(piece, *got, OkStatus(), now);
      state.tuner.OnRequestEnd(*got, now);
    } else {
      splitter.End(piece, 0, std::move(got.error()), now);
    }
    if (splitter.is_idle()) state.tuner.OnIdle();
    if (splitter.has_ended() && state.is_waited_for) {
      state.has_completion.notify_one();
    }
  }
}

}  // namespace flashelm
