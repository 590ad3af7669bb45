#include "core/base/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "core/base/checked_math.h"
#include "core/base/processors.h"

namespace flashelm {
namespace {

using Clock = std::chrono::steady_clock;

// Waking a thread takes some 5 to 100 microseconds. Time, not a count: how long
// a pause is differs widely between processors.
constexpr std::chrono::microseconds kSpinTime{50};
// Pauses, of a microsecond or less in all, between looks at the clock.
constexpr int kPauses = 32;

// Tells the processor that this is a loop that waits.
void Relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(uint32_t num_threads)
    : num_threads_(num_threads),
      spins_(num_threads > 1 &&
             num_threads <= FindUsableProcessors().num_processors) {}

Result<std::unique_ptr<ThreadPool>> ThreadPool::Create(uint32_t num_threads) {
  if (num_threads == 0) {
    return InvalidArgument("a thread pool needs at least 1 thread");
  }
  std::unique_ptr<ThreadPool> pool(new ThreadPool(num_threads));
  pool->workers_.reserve(num_threads - 1);
  for (uint32_t part = 1; part < num_threads; ++part) {
    FLASHELM_ASSIGN_OR_RETURN(
        Thread worker,
        Thread::Start([raw = pool.get(), part] { raw->WorkerLoop(part); }));
    pool->workers_.push_back(std::move(worker));
  }
  return pool;
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  generation_.fetch_add(1);
  generation_.notify_all();
  workers_.clear();
}

void ThreadPool::Run(size_t count, size_t grain, Function function,
                     const void* context) {
  if (count == 0) return;
  if (workers_.empty() || count <= grain) {
    function(context, 0, count, 0);
    return;
  }
  count_ = count;
  grain_ = grain;
  function_ = function;
  context_ = context;
  num_running_.store(static_cast<uint32_t>(workers_.size()),
                     std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  RunPart(0);
  for (uint32_t left = num_running_.load(std::memory_order_acquire); left != 0;
       left = num_running_.load(std::memory_order_acquire)) {
    WaitWhile(num_running_, left);
  }
}

void ThreadPool::WaitWhile(const std::atomic<uint32_t>& value,
                           uint32_t old) const {
  if (spins_) {
    const auto end = Clock::now() + kSpinTime;
    do {
      for (int i = 0; i < kPauses; ++i) {
        if (value.load(std::memory_order_acquire) != old) return;
        Relax();
      }
      // Threads outside this pool, such as a reader's, may want the processor.
      std::this_thread::yield();
    } while (Clock::now() < end);
  }
  value.wait(old, std::memory_order_acquire);
}

size_t ThreadPool::PartBegin(size_t count, size_t grain, uint32_t part) const {
  if (count <= grain) return part == 0 ? 0 : count;
  const size_t num_grains = CeilDiv(count, grain);
  return std::min(count, num_grains * part / num_threads_ * grain);
}

void ThreadPool::RunPart(uint32_t part) const {
  const size_t begin = PartBegin(count_, grain_, part);
  const size_t end = PartBegin(count_, grain_, part + 1);
  if (begin < end) function_(context_, begin, end, part);
}

void ThreadPool::WorkerLoop(uint32_t part) {
  uint32_t seen = 0;
  while (true) {
    WaitWhile(generation_, seen);
    if (stop_.load()) return;
    // The caller starts no new loop before every worker has finished this one,
    // so no generation is ever missed.
    seen = generation_.load(std::memory_order_acquire);
    RunPart(part);
    if (num_running_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      num_running_.notify_one();
    }
  }
}

}  // namespace flashelm
