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
  if (!is_taken_ && !is_paused_) {
    is_taken_ = true;
    return Turn(this);
  }
  Waiter waiter{/*ignores_pause=*/false, {}};
  Append(waiter);
  while (!waiter.has_turn) {
    waiter.called.wait_for(lock, kCancelPeriod);
    if (!waiter.has_turn && cancel.IsCancelled()) {
      Remove(waiter);
      return Cancelled("stopped while others had their turn");
    }
  }
  return Turn(this);
}

TurnQueue::Turn TurnQueue::WaitThoughPaused() {
  std::unique_lock lock(mutex_);
  if (!is_taken_) {
    is_taken_ = true;
    return Turn(this);
  }
  Waiter waiter{/*ignores_pause=*/true, {}};
  Append(waiter);
  waiter.called.wait(lock, [&] { return waiter.has_turn; });
  return Turn(this);
}

void TurnQueue::Pause() {
  {
    std::lock_guard lock(mutex_);
    is_paused_ = true;
  }
  // Who had one then has ended it when this comes to be next.
  const Turn turn = WaitThoughPaused();
}

void TurnQueue::Resume() {
  std::lock_guard lock(mutex_);
  is_paused_ = false;
  if (!is_taken_) PassOn();
}

size_t TurnQueue::num_waiting() const {
  std::lock_guard lock(mutex_);
  size_t count = 0;
  for (const Waiter* at = first_; at != nullptr; at = at->next) ++count;
  return count;
}

void TurnQueue::End() {
  std::lock_guard lock(mutex_);
  PassOn();
}

void TurnQueue::PassOn() {
  Waiter* next = first_;
  while (next != nullptr && is_paused_ && !next->ignores_pause) {
    next = next->next;
  }
  is_taken_ = next != nullptr;
  if (next == nullptr) return;
  Remove(*next);
  next->has_turn = true;
  // Under the lock: the waiter goes as soon as it has seen its turn.
  next->called.notify_one();
}

void TurnQueue::Append(Waiter& waiter) {
  (last_ != nullptr ? last_->next : first_) = &waiter;
  last_ = &waiter;
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
