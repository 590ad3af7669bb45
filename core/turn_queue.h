// Turns at something that one thread at a time may use.
#ifndef FLASHELM_CORE_TURN_QUEUE_H_
#define FLASHELM_CORE_TURN_QUEUE_H_

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <utility>

#include "core/base/cancel.h"
#include "core/base/status.h"

namespace flashelm {

// Who has waited longest comes next, unlike with a mutex, of which a loop that
// gives it back for a moment gets it again and again. Thread-safe.
class TurnQueue {
 public:
  // A turn, until it is destroyed. Move-only.
  class Turn {
   public:
    Turn(Turn&& other) noexcept
        : queue_(std::exchange(other.queue_, nullptr)) {}
    Turn& operator=(Turn&&) = delete;
    ~Turn() {
      if (queue_ != nullptr) queue_->End();
    }

   private:
    friend class TurnQueue;
    explicit Turn(TurnQueue* queue) : queue_(queue) {}
    TurnQueue* queue_;
  };

  TurnQueue() = default;
  TurnQueue(const TurnQueue&) = delete;
  TurnQueue& operator=(const TurnQueue&) = delete;

  // Waits for a turn. kCancelled: as asked, before it or meanwhile.
  Result<Turn> Wait(const CancelToken& cancel);
  // The same, also while turns are paused.
  Turn WaitThoughPaused();

  // From here on Wait() gives no turn until Resume(); returns when the one that
  // was taken has ended. A second call before that does nothing more.
  void Pause();
  void Resume();

  // Out of date at once where others come and go; for tests.
  size_t num_waiting() const;

 private:
  // On the stack of who waits.
  struct Waiter {
    const bool ignores_pause;
    std::condition_variable called;
    bool has_turn = false;
    Waiter* next = nullptr;
  };

  void End();
  // With mutex_ held: the turn goes to the next, if there is one.
  void PassOn();
  void Append(Waiter& waiter);
  void Remove(Waiter& waiter);

  mutable std::mutex mutex_;
  // Guarded by mutex_.
  bool is_taken_ = false;
  bool is_paused_ = false;
  Waiter* first_ = nullptr;
  Waiter* last_ = nullptr;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_TURN_QUEUE_H_
