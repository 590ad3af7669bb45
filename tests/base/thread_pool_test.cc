#include "core/base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <thread>
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

TEST(ThreadPoolTest, NoTwoPartsOfALoopHaveOneNumber) {
  for (uint32_t threads = 1; threads <= 4; ++threads) {
    auto pool = ThreadPool::Create(threads);
    ASSERT_TRUE(pool);
    for (const size_t count : {1u, 3u, 1000u}) {
      std::vector<std::atomic<int>> calls(threads);
      std::vector<size_t> sums(threads, 0);
      (*pool)->ParallelFor(count, 1,
                           [&](size_t begin, size_t end, uint32_t part) {
                             ASSERT_LT(part, threads);
                             ++calls[part];
                             for (size_t i = begin; i < end; ++i)
                               sums[part] += i;
                           });
      size_t sum = 0;
      for (uint32_t part = 0; part < threads; ++part) {
        EXPECT_LE(calls[part].load(), 1);
        sum += sums[part];
      }
      EXPECT_EQ(sum, count * (count - 1) / 2);
    }
  }
}

TEST(ThreadPoolTest, PartsBeginWhereItSays) {
  for (uint32_t threads = 1; threads <= 4; ++threads) {
    auto pool = ThreadPool::Create(threads);
    ASSERT_TRUE(pool);
    for (const size_t count : {1u, 3u, 16u, 17u, 1000u}) {
      for (const size_t grain : {1u, 16u, 500u}) {
        std::vector<size_t> begins(threads, count);
        (*pool)->ParallelFor(count, grain,
                             [&](size_t begin, size_t end, uint32_t part) {
                               if (begin < end) begins[part] = begin;
                             });
        for (uint32_t part = 0; part < threads; ++part) {
          const size_t begin = (*pool)->PartBegin(count, grain, part);
          // A part may be empty, wherever it begins.
          const size_t end = (*pool)->PartBegin(count, grain, part + 1);
          EXPECT_EQ(begin < end ? begin : count, begins[part])
              << count << " by " << grain << ", part " << part << " of "
              << threads;
        }
      }
    }
  }
}

std::chrono::nanoseconds ProcessorTime() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return std::chrono::seconds(now.tv_sec) +
         std::chrono::nanoseconds(now.tv_nsec);
}

TEST(ThreadPoolTest, WorkersSleepWhileTheCallerWaitsForSomethingElse) {
  auto pool = ThreadPool::Create(2);
  ASSERT_TRUE(pool);
  std::chrono::nanoseconds waited{0};
  const auto begin = ProcessorTime();
  for (int round = 0; round < 20; ++round) {
    (*pool)->ParallelFor(2, 1, [](size_t, size_t) {});
    const auto wait_begin = std::chrono::steady_clock::now();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    waited += std::chrono::steady_clock::now() - wait_begin;
  }
  EXPECT_LT(ProcessorTime() - begin, waited / 4);
}

}  // namespace
}  // namespace flashelm
