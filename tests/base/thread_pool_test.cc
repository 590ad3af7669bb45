#include "core/base/thread_pool.h"

#include <gtest/gtest.h>

#include <vector>

namespace flashelm {
namespace {

TEST(ThreadPoolTest, RefusesZeroThreads) {
  EXPECT_EQ(ThreadPool::Create(0).error().code(), StatusCode::kInvalidArgument);
}

TEST(ThreadPoolTest, VisitsEveryIndexOnceForAnyLengthAndGrain) {
  for (uint32_t threads = 1; threads <= 4; ++threads) {
    auto pool = ThreadPool::Create(threads);
    ASSERT_TRUE(pool) << pool.error().message();
    for (const size_t count : {0u, 1u, 2u, 3u, 7u, 64u, 1000u}) {
      for (const size_t grain : {1u, 3u, 64u}) {
        std::vector<int> visits(count);
        (*pool)->ParallelFor(count, grain, [&](size_t begin, size_t end) {
          EXPECT_EQ(begin % grain, 0u);
          for (size_t i = begin; i < end; ++i) ++visits[i];
        });
        EXPECT_EQ(visits, std::vector<int>(count, 1))
            << threads << " threads, count " << count << ", grain " << grain;
      }
    }
  }
}

TEST(ThreadPoolTest, EachLoopSeesWhatTheLastOneWrote) {
  auto pool = ThreadPool::Create(3);
  ASSERT_TRUE(pool);
  std::vector<int> values(100, 0);
  for (int round = 0; round < 500; ++round) {
    (*pool)->ParallelFor(values.size(), 1, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) values[i] += values[i] == round;
    });
  }
  EXPECT_EQ(values, std::vector<int>(100, 500));
}

}  // namespace
}  // namespace flashelm
