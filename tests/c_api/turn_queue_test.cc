#include "core/turn_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace flashelm {
namespace {

void WaitUntilWaiting(const TurnQueue& queue, size_t count) {
  while (queue.num_waiting() != count) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// Who waits, each in a thread of its own, and in which order they were called.
class Waiters {
 public:
  explicit Waiters(TurnQueue& queue, int count = 1) : queue_(queue) {
    for (int i = 0; i < count; ++i) Add();
  }

  // Returns when it waits, behind all before it.
  void Add() {
    const size_t before = queue_.num_waiting();
    const size_t id = threads_.size();
    tokens_.push_back(std::make_unique<CancelToken>());
    codes_.push_back(std::make_unique<StatusCode>(StatusCode::kOk));
    threads_.emplace_back(
        [this, id, token = tokens_[id].get(), code = codes_[id].get()] {
          const auto turn = queue_.Wait(*token);
          if (turn) {
            order_.push_back(id);  // One at a time: it has the turn.
          } else {
            *code = turn.error().code();
          }
        });
    WaitUntilWaiting(queue_, before + 1);
  }
  void Cancel(size_t id) { tokens_[id]->Cancel(); }
  void Join() {
    for (std::thread& thread : threads_) thread.join();
  }
  const std::vector<size_t>& order() const { return order_; }
  StatusCode code(size_t id) const { return *codes_[id]; }

 private:
  TurnQueue& queue_;
  std::vector<std::unique_ptr<CancelToken>> tokens_;
  std::vector<std::unique_ptr<StatusCode>> codes_;
  std::vector<std::thread> threads_;
  std::vector<size_t> order_;
};

TEST(TurnQueueThreadsTest, WhoWaitedLongestIsNext) {
  TurnQueue queue;
  const CancelToken never;
  std::optional<TurnQueue::Turn> turn = std::move(*queue.Wait(never));
  Waiters waiters(queue, 5);
  turn.reset();
  waiters.Join();
  EXPECT_EQ(waiters.order(), (std::vector<size_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(queue.num_waiting(), 0u);
  EXPECT_TRUE(queue.Wait(never)) << "it is free again";
}

// The first, one in the middle and the last; the rest keep their order.
TEST(TurnQueueThreadsTest, WhoIsCancelledLeavesTheQueue) {
  TurnQueue queue;
  const CancelToken never;
  std::optional<TurnQueue::Turn> turn = std::move(*queue.Wait(never));
  Waiters waiters(queue, 5);
  size_t left = 5;
  for (const size_t id : {2, 0, 4}) {
    waiters.Cancel(id);
    WaitUntilWaiting(queue, --left);
  }
  waiters.Add();  // Behind the ones that are left.
  turn.reset();
  waiters.Join();
  EXPECT_EQ(waiters.order(), (std::vector<size_t>{1, 3, 5}));
  for (const size_t id : {0, 2, 4}) {
    EXPECT_EQ(waiters.code(id), StatusCode::kCancelled) << id;
  }
}

TEST(TurnQueueThreadsTest, WhoIsCancelledBeforeHasNoTurn) {
  TurnQueue queue;
  CancelToken token;
  token.Cancel();
  const auto refused = queue.Wait(token);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), StatusCode::kCancelled);
  token.Reset();
  EXPECT_TRUE(queue.Wait(token)) << "nobody has the turn";
}

TEST(TurnQueueThreadsTest, ATurnMovedAwayEndsOnce) {
  TurnQueue queue;
  const CancelToken never;
  {
    TurnQueue::Turn first = std::move(*queue.Wait(never));
    const TurnQueue::Turn second = std::move(first);
    Waiters waiters(queue);
    EXPECT_TRUE(waiters.order().empty());
    waiters.Cancel(0);
    waiters.Join();
  }
  EXPECT_TRUE(queue.Wait(never));
}

// Who only looks after the engine need not wait for the end of a pause.
TEST(TurnQueueThreadsTest, APauseHoldsBackAllButWhoIgnoresIt) {
  TurnQueue queue;
  queue.Pause();
  Waiters waiters(queue, 2);
  { const TurnQueue::Turn turn = queue.WaitThoughPaused(); }
  EXPECT_EQ(queue.num_waiting(), 2u);
  waiters.Cancel(0);
  WaitUntilWaiting(queue, 1);
  queue.Resume();
  waiters.Join();
  EXPECT_EQ(waiters.order(), std::vector<size_t>{1});
  EXPECT_EQ(waiters.code(0), StatusCode::kCancelled);
}

TEST(TurnQueueThreadsTest, APauseBeginsWhenTheTurnHasEnded) {
  TurnQueue queue;
  const CancelToken never;
  std::optional<TurnQueue::Turn> turn = std::move(*queue.Wait(never));
  Waiters waiters(queue);
  std::atomic<bool> is_paused = false;
  std::thread pauser([&] {
    queue.Pause();
    is_paused = true;
  });
  WaitUntilWaiting(queue, 2);
  EXPECT_FALSE(is_paused);
  turn.reset();
  pauser.join();
  EXPECT_EQ(queue.num_waiting(), 1u) << "who waited before waits on";
  queue.Resume();
  waiters.Join();
}

// Each turn is alone, whatever is cancelled meanwhile.
TEST(TurnQueueThreadsTest, OneAtATimeUnderLoad) {
  TurnQueue queue;
  int inside = 0;  // Guarded by the turn.
  int turns = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 300; ++i) {
        CancelToken token;
        if (i % 7 == 0) token.Cancel();
        const auto turn = queue.Wait(token);
        if (!turn) continue;
        EXPECT_EQ(++inside, 1);
        ++turns;
        --inside;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(turns, 6 * (300 - 43));
}

}  // namespace
}  // namespace flashelm
