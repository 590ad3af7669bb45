#include "core/turn_queue.h"

#include <chrono>

namespace flashelm {
namespace {

// How often a wait looks whether it is still wanted.
constexpr std::chrono::milliseconds kCancelPeriod(20);

}  // namespace

Result<TurnQueue::Turn> TurnQueue::Wait(const CancelToken& cancel) {
  std::unique_lock lock(mutex_);
  if (cancel.IsCancelled()) return Cancelled("stopped before it began");
  if (!is_taken_) {
    is_taken_ = true;
    return Turn(this);
  }
  Waiter waiter;
  (last_ != nullptr ? last_->next : first_) = &waiter;
  last_ = &waiter;
  while (!waiter.has_turn) {
    waiter.called.wait_for(lock, kCancelPeriod);
    if (!waiter.has_turn && cancel.IsCancelled()) {
      Remove(waiter);
      return Cancelled("stopped while other sessions had their turn");
    }
  }
  return Turn(this);
}

size_t TurnQueue::num_waiting() const {
  std::lock_guard lock(mutex_);
  size_t count = 0;
  for (const Waiter* at = first_; at != nullptr; at = at->next) ++count;
  return count;
}

void TurnQueue::End() {
  std::lock_guard lock(mutex_);
  Waiter* const next = first_;
  if (next == nullptr) {
    is_taken_ = false;
    return;
  }
  Remove(*next);
  next->has_turn = true;
  // Under the lock: the waiter goes as soon as it has seen its turn.
  next->called.notify_one();
}

void TurnQueue::Remove(Waiter& waiter) {
  Waiter* before = nullptr;
  Waiter* at = first_;
  while (at != &waiter) {
    before = at;
    at = at->next;
  }
  (before != nullptr ? before->next : first_) = waiter.next;
  if (last_ == &waiter) last_ = before;
}

}  // namespace flashelm
