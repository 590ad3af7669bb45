// A way to ask a long call to stop.
#ifndef FLASHELM_CORE_BASE_CANCEL_H_
#define FLASHELM_CORE_BASE_CANCEL_H_

#include <atomic>

namespace flashelm {

// Set once from any thread or from a signal handler; polled by long calls,
// which then return kCancelled. Thread-safe.
class CancelToken {
 public:
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  void Reset() { cancelled_.store(false, std::memory_order_relaxed); }
  bool IsCancelled() const {
    return cancelled_.load(std::memory_order_relaxed);
  }

 private:
  static_assert(std::atomic<bool>::is_always_lock_free,
                "a signal handler may only touch lock-free atomics");
  std::atomic<bool> cancelled_{false};
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_BASE_CANCEL_H_
