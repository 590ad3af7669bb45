// Fork and join over index ranges.
#ifndef FLASHELM_CORE_BASE_THREAD_POOL_H_
#define FLASHELM_CORE_BASE_THREAD_POOL_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "core/base/status.h"
#include "core/base/thread.h"

namespace flashelm {

// A fixed set of workers that run one loop at a time, together with the caller.
// Between loops they spin for 50 microseconds, since waking a thread takes
// about as long, and then sleep, so a caller that waits for the disk waits
// alone. In between they offer their processor to any thread that wants it,
// such as a reader's. With more threads than usable processors they sleep at
// once. The split of a loop depends on its length and the number of threads, so
// a body must give the same result for any split. Used by one thread.
class ThreadPool {
 public:
  // `num_threads` counts the caller: 1 starts no worker.
  // kInvalidArgument: 0. kResourceExhausted: the system has no more threads.
  static Result<std::unique_ptr<ThreadPool>> Create(uint32_t num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Calls body(begin, end) or, where it takes that, body(begin, end, part) on
  // parts of [0, count), every index once, and returns when all are done. Parts
  // begin at multiples of `grain`. `part` is below num_threads(), and no two
  // calls of a loop have the same, so it can name a workspace. The body does
  // not throw and does not call ParallelFor. Allocates nothing.
  template <class Body>
  void ParallelFor(size_t count, size_t grain, const Body& body) {
    Run(
        count, grain,
        [](const void* context, size_t begin, size_t end, uint32_t part) {
          const Body& loop_body = *static_cast<const Body*>(context);
          if constexpr (std::is_invocable_v<const Body&, size_t, size_t,
                                            uint32_t>) {
            loop_body(begin, end, part);
          } else {
            static_assert(std::is_invocable_v<const Body&, size_t, size_t>);
            loop_body(begin, end);
          }
        },
        &body);
  }

  // Where part `part` of such a loop begins: a part without an index, where the
  // next one does.
  size_t PartBegin(size_t count, size_t grain, uint32_t part) const;

  uint32_t num_threads() const { return num_threads_; }

 private:
  using Function = void (*)(const void* context, size_t begin, size_t end,
                            uint32_t part);

  explicit ThreadPool(uint32_t num_threads);
  void Run(size_t count, size_t grain, Function function, const void* context);
  void RunPart(uint32_t part) const;
  void WorkerLoop(uint32_t part);

  // Returns once `value` differs from `old`.
  void WaitWhile(const std::atomic<uint32_t>& value, uint32_t old) const;

  const uint32_t num_threads_;
  const bool spins_;

  // The current loop: written by the caller before `generation_` moves on, and
  // read by workers after they have seen it move.
  size_t count_ = 0;
  size_t grain_ = 1;
  Function function_ = nullptr;
  const void* context_ = nullptr;

  std::atomic<uint32_t> generation_{0};
  std::atomic<uint32_t> num_running_{0};
  std::atomic<bool> stop_{false};

  std::vector<Thread> workers_;  // Last: joined before the rest goes.
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_BASE_THREAD_POOL_H_
