#include "cli/plan_forecast.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "core/base/types.h"
#include "core/convert/planned_model.h"

namespace flashelm::cli {
namespace {

class RateWithinTest : public testing::Test {
 protected:
  RateWithinTest() : model_(PlanModelFileOfShape("270M", {})) {}

  void SetUp() override {
    ASSERT_TRUE(model_) << model_.error().message();
    PlanOptions options;
    options.context = 64;
    options.whole_process = false;
    options.budget_bytes = uint64_t{200} << 20;
    auto plan = MakePlan(*model_, options);
    ASSERT_TRUE(plan) << plan.error().message();
    plan_ = std::move(*plan);
    read_bytes_ = static_cast<double>(plan_.streamed_bytes_per_token) /
                  static_cast<double>(plan_.residency.StreamedReads(
                      model_->weight_file().segments()));
    ASSERT_GT(read_bytes_, 3 * kIoAlignment);
  }

  // Reads of so many bytes that take so long, in order.
  static DeviceRate Takes(uint64_t bytes, double ns) {
    DeviceRate rate;
    rate.backend = IoBackend::kUring;
    rate.shape = {bytes, 4};
    rate.bytes_per_second =
        static_cast<uint64_t>(1e9 * static_cast<double>(bytes) / ns);
    return rate;
  }
  // What a read of the plan's mean size takes.
  double MeanNs(std::vector<DeviceRate> rates) const {
    ReadRate rate;
    rate.rates = std::move(rates);
    const ReadRate within = RateWithin(rate, *model_, plan_);
    return 1e9 * read_bytes_ / static_cast<double>(within.bytes_per_second);
  }
  uint64_t Bytes(double factor) const {
    return static_cast<uint64_t>(factor * read_bytes_);
  }

  Result<ModelFile> model_;
  MemoryPlan plan_;
  double read_bytes_ = 0;
};

TEST_F(RateWithinTest, WhatAReadTakesIsInterpolated) {
  EXPECT_NEAR(MeanNs({Takes(Bytes(0.5), 1e6), Takes(Bytes(1.5), 2e6)}), 1.5e6,
              1e3);
  // The faster of two of a size counts.
  EXPECT_NEAR(MeanNs({Takes(Bytes(0.5), 9e6), Takes(Bytes(0.5), 1e6),
                      Takes(Bytes(1.5), 2e6)}),
              1.5e6, 1e3);
}

TEST_F(RateWithinTest, LargerReadsAreCutAndSmallerOnesTakeAsLong) {
  EXPECT_NEAR(MeanNs({Takes(Bytes(0.25), 1e6)}), 4e6, 1e3);
  EXPECT_NEAR(MeanNs({Takes(Bytes(2), 5e6)}), 5e6, 1e3);
}

TEST_F(RateWithinTest, AClassOfStorageHasOneRate) {
  ReadRate rate;
  rate.bytes_per_second = 90'000'000;
  EXPECT_EQ(RateWithin(rate, *model_, plan_).bytes_per_second, 90'000'000u);
}

}  // namespace
}  // namespace flashelm::cli
