#include "core/memory_plan.h"

#include <gtest/gtest.h>

#include <random>

#include "core/base/checked_math.h"
#include "core/base/thread.h"
#include "tests/core/allocation_counter.h"
#include "tests/core/test_model.h"

namespace flashelm::test {
namespace {

class MemoryPlanTest : public testing::Test {
 protected:
  MemoryPlanTest()
      : converted_(SampleModelDirectory("tiny-stories"), Encoding::kF32) {
    auto model = ModelFile::Open(converted_.path());
    EXPECT_TRUE(model) << model.error().message();
    model_ = std::make_unique<ModelFile>(std::move(*model));
  }

  Result<MemoryPlan> Plan(uint64_t budget) const {
    PlanOptions options = options_;
    options.budget_bytes = budget;
    return MakePlan(*model_, options);
  }

  const ConvertedModel converted_;
  std::unique_ptr<ModelFile> model_;
  PlanOptions options_;
};

TEST_F(MemoryPlanTest, RefusesTheByteBelowTheSmallestFeasibleBudget) {
  const auto refused = Plan(1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), StatusCode::kBudgetInfeasible);
  const uint64_t least = Plan(kUnlimitedBytes)->minimum_bytes;
  EXPECT_NE(refused.error().message().find(std::to_string(least)),
            std::string::npos)
      << refused.error().message();
  EXPECT_FALSE(Plan(0));
  EXPECT_FALSE(Plan(least - 1));
  const auto plan = Plan(least);
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_LE(plan->total_bytes, least);
  EXPECT_EQ(plan->minimum_bytes, least);
}

TEST_F(MemoryPlanTest, KeepsToAnyFeasibleBudgetAndUsesIt) {
  const uint64_t least = Plan(kUnlimitedBytes)->minimum_bytes;
  const uint64_t most = Plan(kUnlimitedBytes)->total_bytes;
  std::mt19937_64 random(3);
  uint64_t budget = least;
  for (int i = 0; i < 300; ++i) {
    SCOPED_TRACE(budget);
    const auto plan = Plan(budget);
    ASSERT_TRUE(plan) << plan.error().message();
    uint64_t sum = 0;
    for (const PlanLine& line : plan->lines) sum += line.bytes;
    EXPECT_EQ(sum, plan->total_bytes);
    EXPECT_LE(plan->total_bytes, budget);
    // What is left is less than one more unit of any segment, and pages that
    // page tables may need.
    if (plan->streamed_bytes_per_token > 0) {
      EXPECT_LT(budget - plan->total_bytes, 128u << 10);
    }
    const auto& segments = model_->weight_file().segments();
    for (size_t s = 0; s < segments.size(); ++s) {
      const uint64_t resident = plan->residency.resident_records[s];
      EXPECT_TRUE(resident == segments[s].num_records ||
                  resident % segments[s].unit_records() == 0);
    }
    budget = least + random() % (most - least + 1);
  }
}

TEST_F(MemoryPlanTest, ReadsWithFewerThreadsInSmallBudgets) {
  const MemoryPlan whole = *Plan(kUnlimitedBytes);
  EXPECT_EQ(whole.num_io_threads, options_.num_io_threads);
  EXPECT_EQ(Plan(whole.minimum_bytes)->num_io_threads, 4u);
  const auto more =
      Plan(whole.minimum_bytes +
           32 * (options_.num_io_threads - 4) * uint64_t{kThreadStackBytes});
  EXPECT_EQ(more->num_io_threads, options_.num_io_threads);
  EXPECT_EQ(more->minimum_bytes, whole.minimum_bytes);
  options_.num_io_threads = 3;
  EXPECT_EQ(Plan(whole.minimum_bytes)->num_io_threads, 3u);
}

TEST_F(MemoryPlanTest, EverySegmentKeepsAboutTheSamePart) {
  const uint64_t least = Plan(kUnlimitedBytes)->minimum_bytes;
  const uint64_t most = Plan(kUnlimitedBytes)->total_bytes;
  const auto plan = Plan((least + most) / 2);
  ASSERT_TRUE(plan);
  const auto& segments = model_->weight_file().segments();
  const double part = 1 - static_cast<double>(plan->streamed_bytes_per_token) /
                              static_cast<double>(plan->weight_bytes);
  for (const uint32_t index : plan->residency.sweep) {
    const Segment& segment = segments[index];
    // Full chunks stream, and a unit or two less from what that leaves over.
    const uint64_t chunk = plan->residency.chunk_records[index];
    const uint64_t few = 2 * segment.unit_records();
    const uint64_t resident = plan->residency.resident_records[index];
    EXPECT_NEAR(static_cast<double>(resident),
                part * static_cast<double>(segment.num_records),
                static_cast<double>(chunk + few))
        << segment.Describe();
    const uint64_t streamed = segment.num_records - resident;
    EXPECT_LE(CeilDiv(streamed, chunk) * chunk - streamed, few)
        << segment.Describe();
  }
}

TEST(ModelFileMemoryTest, TheDirectoryStaysWithinItsLineOfThePlan) {
  // The tree of the manifest is the peak; 3B's depth makes one of 3B's size.
  for (const uint32_t num_layers : {3u, 36u}) {
    CheckpointOptions checkpoint;
    checkpoint.num_layers = num_layers;
    const ConvertedModel converted(checkpoint, Encoding::kBf16);
    const AllocationCounter counter;
    const auto model = ModelFile::Open(converted.path());
    const uint64_t peak = counter.peak_bytes();
    ASSERT_TRUE(model) << model.error().message();
    const auto plan = MakePlan(*model, PlanOptions{});
    ASSERT_TRUE(plan) << plan.error().message();
    uint64_t planned = 0;
    for (const PlanLine& line : plan->lines) {
      if (line.name == "model directory" || line.name == "tokenizer") {
        planned += line.bytes;
      }
    }
    EXPECT_GT(planned, 0u);
    RecordProperty("peak_" + std::to_string(num_layers),
                   std::to_string(peak) + " of " + std::to_string(planned));
    // An allocator adds up to a half to small blocks.
    EXPECT_LE(peak + peak / 2, planned) << num_layers << " layers";
  }
}

TEST_F(MemoryPlanTest, ASmallerContextOrCacheLowersTheFloor) {
  const uint64_t least = Plan(kUnlimitedBytes)->minimum_bytes;
  options_.context = 64;
  const uint64_t small = Plan(kUnlimitedBytes)->minimum_bytes;
  EXPECT_LT(small, least);
  options_.kv_type = KvType::kBf16;
  EXPECT_LT(Plan(kUnlimitedBytes)->minimum_bytes, small);
}

TEST_F(MemoryPlanTest, RefusesAContextTheModelWasNotMadeFor) {
  options_.context = 513;
  EXPECT_EQ(Plan(kUnlimitedBytes).error().code(), StatusCode::kInvalidArgument);
  options_.context = 512;
  options_.num_threads = 0;
  EXPECT_EQ(Plan(kUnlimitedBytes).error().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace flashelm::test
