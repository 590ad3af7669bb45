// Which layers are streamed, and the cost of reads that says so.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "core/base/cancel.h"
#include "core/device.h"
#include "core/memory_plan.h"
#include "tests/core/calibrated_sample.h"

namespace flashelm::test {
namespace {

TEST(SparseSwitchTest, StreamsLayersOfWhichMostIsUsed) {
  for (const uint32_t used : {0, 2}) {
    const CalibratedSample sample(
        "tiny-stories-relu",
        [&](uint32_t layer, uint32_t) { return layer == used ? 0.9f : 0.01f; });
    const uint64_t budget = WithoutBundles(sample);
    const auto streamed = [&](double request_ns) {
      ReadCost cost;
      cost.request_ns = request_ns;
      cost.sequential_bytes_per_ns = 4;
      return sample.Plan(budget, 0, cost).streamed_layers;
    };
    std::vector<bool> only_that(6, false);
    only_that[used] = true;
    EXPECT_EQ(streamed(1e3), only_that);
    EXPECT_EQ(streamed(1e9), std::vector<bool>(6, true));
  }
}

TEST(SparseSwitchTest, StreamsSwigluOfWhichMuchIsKept) {
  const CalibratedSample sample("tiny-stories", nullptr);
  const uint64_t budget = WithoutBundles(sample, 0.5);
  const auto num_streamed = [&](double kept_fraction, double request_ns) {
    ReadCost cost;
    cost.request_ns = request_ns;
    return std::ranges::count(
        sample.Plan(budget, kept_fraction, cost).streamed_layers, true);
  };
  EXPECT_EQ(num_streamed(0.9, 1e4), 6);
  EXPECT_EQ(num_streamed(0.5, 1e4), 6);
  EXPECT_LE(num_streamed(0.01, 1e4), 1);
  EXPECT_EQ(num_streamed(0.01, 1e6), 6);
}

TEST(SparseSwitchTest, KeepsAllResidentWhereThereIsRoom) {
  const CalibratedSample sample("tiny-stories-relu",
                                [](uint32_t, uint32_t) { return 0.01f; });
  const MemoryPlan plan = sample.Plan(kUnlimitedBytes, 0, ReadCost());
  EXPECT_EQ(plan.streamed_layers, std::vector<bool>(6, true));
  EXPECT_EQ(plan.streamed_bytes_per_token, 0u);
  EXPECT_EQ(plan.batch, 8u);  // Which no cache has to share RAM with.
}

// A cache that holds what the last token used alone spares fewer reads.
TEST(SparseSwitchTest, AShortWindowStreamsSooner) {
  const CalibratedSample sample("tiny-stories-relu",
                                [](uint32_t, uint32_t) { return 0.05f; });
  PlanOptions options;
  options.budget_bytes =
      (WithoutBundles(sample) + sample.Plan(kUnlimitedBytes).total_bytes) / 2;
  options.context = 64;
  options.max_batch = 8;
  options.whole_process = false;
  options.io = IoBackend::kUring;
  options.sparsity.selector = Selector::kGate;
  const auto num_streamed = [&](uint32_t window_tokens) {
    options.sparsity.window_tokens = window_tokens;
    const auto plan = MakePlan(*sample.model, options);
    EXPECT_TRUE(plan) << plan.error().message();
    return plan ? std::ranges::count(plan->streamed_layers, true) : -1;
  };
  int num_sooner = 0;
  for (double request_ns = 10; request_ns < 1e5; request_ns *= 1.2) {
    options.read_cost.request_ns = request_ns;
    const auto all = num_streamed(UINT32_MAX);
    const auto last = num_streamed(1);
    EXPECT_GE(last, all) << request_ns;
    if (last > all) ++num_sooner;
  }
  EXPECT_GT(num_sooner, 0);
}

// Where computing is what takes time, streaming more takes none; the more
// threads compute, the less that is so.
TEST(SparseSwitchTest, MoreThreadsStreamLater) {
  const CalibratedSample sample("tiny-stories-relu",
                                [](uint32_t, uint32_t) { return 0.05f; });
  PlanOptions options;
  options.context = 64;
  options.max_batch = 8;
  options.whole_process = false;
  options.io = IoBackend::kUring;
  options.sparsity.selector = Selector::kGate;
  options.read_cost.bytes_per_ns = 4;
  const auto plan_for = [&](uint64_t budget, uint32_t num_threads) {
    options.budget_bytes = budget;
    options.num_threads = num_threads;
    const auto plan = MakePlan(*sample.model, options);
    EXPECT_TRUE(plan) << plan.error().message();
    return plan ? *plan : MemoryPlan();
  };
  const uint64_t budget = WithoutBundles(sample);
  const uint64_t more = plan_for(kUnlimitedBytes, 4).total_bytes -
                        plan_for(kUnlimitedBytes, 1).total_bytes;
  int num_later = 0;
  for (double request_ns = 10; request_ns < 1e4; request_ns *= 1.2) {
    options.read_cost.request_ns = request_ns;
    const auto one =
        std::ranges::count(plan_for(budget, 1).streamed_layers, true);
    const auto four =
        std::ranges::count(plan_for(budget + more, 4).streamed_layers, true);
    EXPECT_LE(four, one) << request_ns;
    if (four < one) ++num_later;
  }
  EXPECT_GT(num_later, 0);
}

TEST(SparseSwitchTest, WhereUseIsNotKnownNoBudgetIsRefusedThatAnyChoiceFits) {
  const CalibratedSample sample("tiny-stories-relu", nullptr);
  const MemoryPlan all = sample.Plan(kUnlimitedBytes, 0, ReadCost());
  EXPECT_EQ(all.streamed_bytes_per_token, 0u);
  EXPECT_EQ(all.streamed_layers, std::vector<bool>(6, true));
  const MemoryPlan least = sample.Plan(all.minimum_bytes, 0, ReadCost());
  EXPECT_EQ(least.minimum_bytes, all.minimum_bytes);
  EXPECT_EQ(least.streamed_layers, std::vector<bool>(6, true));
  EXPECT_FALSE(sample.TryPlan(all.minimum_bytes - 1, 0, ReadCost()));
  // Few neurons are active, so that they are read one by one in between.
  const MemoryPlan some = sample.Plan(WithoutBundles(sample), 0, ReadCost());
  EXPECT_EQ(some.streamed_layers, std::vector<bool>(6, false));
  EXPECT_EQ(some.minimum_bytes, all.minimum_bytes);
}

TEST(SparseSwitchTest, TheSmallestBudgetIsThatOfAnyChoice) {
  const CalibratedSample sample("tiny-stories-relu",
                                [](uint32_t, uint32_t) { return 0.01f; });
  const uint64_t least =
      sample.Plan(kUnlimitedBytes, 0, ReadCost()).minimum_bytes;
  EXPECT_LT(least, sample.Plan(kUnlimitedBytes).minimum_bytes);
  EXPECT_EQ(sample.Plan(least, 0, ReadCost()).minimum_bytes, least);
  const auto refused = sample.TryPlan(least - 1, 0, ReadCost());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), StatusCode::kBudgetInfeasible);
  EXPECT_NE(refused.error().message().find(std::to_string(least)),
            std::string::npos)
      << refused.error().message();
}

// Both wait for computing, by what is known of processors; but reading holds it
// up.
TEST(SparseSwitchTest, OfTwoThatWaitForComputingTheOneThatReadsLessIsTaken) {
  const CalibratedSample sample("tiny-stories-relu",
                                [](uint32_t, uint32_t) { return 0.1f; });
  ReadCost cost;
  cost.request_ns = 1;
  cost.bytes_per_ns = 100;
  const MemoryPlan plan = sample.Plan(WithoutBundles(sample), 0, cost);
  EXPECT_EQ(plan.streamed_layers, std::vector<bool>(6, false));
}

TEST(MeasureReadCostTest, SaysWhatReadsCostWhereThereIsRoomToTry) {
  const CalibratedSample sample("tiny-stories-relu", nullptr);
  const CancelToken never;
  for (const IoBackend io : {IoBackend::kAuto, IoBackend::kPread}) {
    const auto cost = MeasureReadCost(*sample.model, io, 1 << 20, never);
    ASSERT_TRUE(cost) << cost.error().message();
    ASSERT_TRUE(*cost);
    EXPECT_GE((*cost)->request_ns, 0);
    EXPECT_GT((*cost)->bytes_per_ns, 0);
    EXPECT_GT((*cost)->sequential_bytes_per_ns, 0);
  }
  const auto nothing =
      MeasureReadCost(*sample.model, IoBackend::kPread, 4096, never);
  ASSERT_TRUE(nothing) << nothing.error().message();
  EXPECT_FALSE(*nothing);
  CancelToken stopped;
  stopped.Cancel();
  const auto cancelled =
      MeasureReadCost(*sample.model, IoBackend::kPread, 1 << 20, stopped);
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().code(), StatusCode::kCancelled);
}

}  // namespace
}  // namespace flashelm::test
