#include "core/forecast.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/base/checked_math.h"
#include "core/base/types.h"
#include "core/compute_rate.h"
#include "core/device.h"
#include "tests/core/test_model.h"

namespace flashelm::test {
namespace {

ForecastInput Input() {
  ForecastInput input;
  input.weight_bytes = 6'000'000'000;
  input.streamed_bytes = 3'000'000'000;
  input.batch = 100;
  input.read_bytes_per_second = 1e9;
  input.compute_bytes_per_second = 20e9;
  input.batch_compute_bytes_per_second = 100e9;
  return input;
}

TEST(ForecastTest, ReadingBoundsASlowDevice) {
  const Forecast forecast = MakeForecast(Input());
  EXPECT_DOUBLE_EQ(*forecast.read_ms, 3000);   // (M - P) / S
  EXPECT_DOUBLE_EQ(forecast.compute_ms, 300);  // M / D
  EXPECT_DOUBLE_EQ(*forecast.token_ms, 3000);
  EXPECT_DOUBLE_EQ(*forecast.gen_tps, 1.0 / 3);
}

TEST(ForecastTest, ComputingBoundsAFastDevice) {
  ForecastInput input = Input();
  input.read_bytes_per_second = 30e9;
  const Forecast forecast = MakeForecast(input);
  EXPECT_DOUBLE_EQ(*forecast.read_ms, 100);
  EXPECT_DOUBLE_EQ(*forecast.token_ms, 300);
}

// Both at once until one is done, the other's rest alone.
TEST(ForecastTest, WhatSlowsEachOtherTakesLonger) {
  ForecastInput input = Input();
  input.read_slowdown = 2;
  input.compute_slowdown = 1.5;
  // 300 ms of computing take 450, in which 225 of 3000 ms of reading are done.
  EXPECT_DOUBLE_EQ(*MakeForecast(input).token_ms, 450 + 3000 - 225);
  input.read_bytes_per_second = 30e9;
  // 100 ms of reading take 200, in which 133 of 300 ms of computing are done.
  EXPECT_DOUBLE_EQ(*MakeForecast(input).token_ms, 200 + 300 - 200 / 1.5);
  // No worse than one after the other.
  input.read_slowdown = input.compute_slowdown = 5;
  EXPECT_DOUBLE_EQ(*MakeForecast(input).token_ms, 400);
  // Measured by chance to be faster: no gain is promised.
  input.read_slowdown = input.compute_slowdown = 0.5;
  EXPECT_DOUBLE_EQ(*MakeForecast(input).token_ms, 300);
  input.streamed_bytes = 0;
  input.compute_slowdown = 4;
  EXPECT_DOUBLE_EQ(*MakeForecast(input).token_ms, 300) << "nothing is read";
}

TEST(ForecastTest, WhatWasTriedSaysWhatATokenTakes) {
  ForecastInput input = Input();
  input.streaming_bytes_per_second = 1.5e9;
  const Forecast forecast = MakeForecast(input);
  EXPECT_DOUBLE_EQ(*forecast.token_ms, 4000);
  EXPECT_DOUBLE_EQ(*forecast.gen_tps, 0.25);
  EXPECT_DOUBLE_EQ(*forecast.read_ms, 3000);
  EXPECT_DOUBLE_EQ(*forecast.sweep_ms, *MakeForecast(Input()).sweep_ms);
  input.streamed_bytes = 0;
  EXPECT_DOUBLE_EQ(*MakeForecast(input).token_ms, 300);
}

TEST(ForecastTest, TokensOfAPromptShareASweep) {
  const Forecast forecast = MakeForecast(Input());
  EXPECT_DOUBLE_EQ(forecast.sweep_compute_ms, 6000);
  EXPECT_DOUBLE_EQ(*forecast.sweep_ms, 6000);
  EXPECT_DOUBLE_EQ(*forecast.prompt_tps, 100 / 6.0);
}

TEST(ForecastTest, WithoutARateOfReadingOnlyResidentWeightsHaveAForecast) {
  ForecastInput input = Input();
  input.read_bytes_per_second.reset();
  EXPECT_FALSE(MakeForecast(input).gen_tps);
  EXPECT_FALSE(MakeForecast(input).prompt_tps);
  input.streamed_bytes = 0;
  const Forecast forecast = MakeForecast(input);
  EXPECT_DOUBLE_EQ(*forecast.read_ms, 0);
  EXPECT_DOUBLE_EQ(*forecast.token_ms, 300);
}

// Some weights stream, so that there are runs and chunks.
MemoryPlan PlanOf(const ModelFile& model) {
  PlanOptions options;
  options.whole_process = false;
  options.context = 64;
  options.io = IoBackend::kUring;  // Without the stacks of reader threads.
  const auto whole = MakePlan(model, options);
  EXPECT_TRUE(whole);
  options.budget_bytes = (whole->minimum_bytes + whole->total_bytes) / 2;
  auto plan = MakePlan(model, options);
  EXPECT_TRUE(plan) << plan.error().message();
  EXPECT_GT(plan->streamed_bytes_per_token, 0);
  return *plan;
}

class RatesTest : public testing::Test {
 protected:
  RatesTest()
      : converted_(SampleModelDirectory("tiny-stories"), Encoding::kBf16),
        model_(ModelFile::Open(converted_.path())) {}
  ConvertedModel converted_;
  Result<ModelFile> model_;
};

TEST_F(RatesTest, ComputingHasARateForOneTokenAndForMany) {
  ASSERT_TRUE(model_);
  ComputeRateOptions options;
  options.num_threads = 2;
  options.batch = 16;
  options.duration = std::chrono::milliseconds(5);
  auto weights = StandInWeights::Create(*model_);
  ASSERT_TRUE(weights);
  const MemoryPlan plan = PlanOf(*model_);
  const auto rate = MeasureComputeRate(*model_, plan, *weights, options);
  ASSERT_TRUE(rate) << rate.error().message();
  EXPECT_GT(rate->bytes_per_second, 0);
  EXPECT_GT(rate->batch_bytes_per_second, 0);
  // What the plan has in RAM.
  EXPECT_EQ(rate->buffer_bytes, plan.weight_bytes -
                                    plan.streamed_bytes_per_token +
                                    plan.residency.RingBytes());
  EXPECT_EQ(weights->Within(*model_, plan).size(), rate->buffer_bytes);
}

TEST_F(RatesTest, EveryEncodingHasARate) {
  ComputeRateOptions options;
  options.num_threads = 2;
  options.batch = 40;
  options.duration = std::chrono::milliseconds(1);
  for (const Encoding weights : TestedEncodings()) {
    const ConvertedModel converted(SampleModelDirectory("tiny-stories"),
                                   weights);
    const auto model = ModelFile::Open(converted.path());
    ASSERT_TRUE(model);
    auto stand_in = StandInWeights::Create(*model);
    ASSERT_TRUE(stand_in);
    const auto rate =
        MeasureComputeRate(*model, PlanOf(*model), *stand_in, options);
    ASSERT_TRUE(rate) << rate.error().message();
    EXPECT_GT(rate->bytes_per_second, 0);
    EXPECT_GT(rate->batch_bytes_per_second, 0);
  }
}

// Half of it resident, half read.
TEST_F(RatesTest, StreamingIsTriedWithEveryReader) {
  ASSERT_TRUE(model_);
  ComputeRateOptions options;
  options.num_threads = 2;
  options.duration = std::chrono::milliseconds(3);
  auto weights = StandInWeights::Create(*model_);
  ASSERT_TRUE(weights);
  MemoryPlan plan = PlanOf(*model_);
  plan.num_io_threads = 2;
  ASSERT_GT(plan.streamed_bytes_per_token, 0u);
  ASSERT_LT(plan.streamed_bytes_per_token, plan.weight_bytes);
  for (const IoBackend io : {IoBackend::kAuto, IoBackend::kPread}) {
    const auto rate =
        MeasureStreamingRate(*model_, plan, *weights, options, io);
    ASSERT_TRUE(rate) << rate.error().message();
    EXPECT_GT(*rate, 0);
  }
}

TEST_F(RatesTest, ComputingGoesOnDuringAnAction) {
  ASSERT_TRUE(model_);
  ComputeRateOptions options;
  options.num_threads = 2;
  options.duration = std::chrono::milliseconds(2);
  auto weights = StandInWeights::Create(*model_);
  ASSERT_TRUE(weights);
  bool was_called = false;
  const auto slowdown =
      MeasureComputeSlowdown(*model_, PlanOf(*model_), *weights, options, [&] {
        was_called = true;
        return OkStatus();
      });
  ASSERT_TRUE(slowdown) << slowdown.error().message();
  EXPECT_TRUE(was_called);
  EXPECT_GT(*slowdown, 0);
  const auto failed =
      MeasureComputeSlowdown(*model_, PlanOf(*model_), *weights, options,
                             [] { return Status(Cancelled("stopped")); });
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code(), StatusCode::kCancelled);
}

TEST_F(RatesTest, ADirectoryIsMeasuredByAFileThatIsGone) {
  const TempDirectory directory;
  MeasureOptions options;
  options.request_bytes = {uint64_t{64} << 10};
  options.queue_depths = {2};
  options.time_per_rate = std::chrono::milliseconds(1);
  bool has_written = false;
  const auto profile = MeasureDirectory(
      directory.path(), options,
      [&](std::string_view stage, uint64_t done, uint64_t total) {
        EXPECT_LE(done, total);
        has_written |= stage == "writing" && done == total;
        EXPECT_TRUE(directory.List().empty());
      });
  if (!profile && profile.error().code() == StatusCode::kResourceExhausted) {
    GTEST_SKIP() << profile.error().message();
  }
  ASSERT_TRUE(profile) << profile.error().message();
  EXPECT_TRUE(has_written);
  EXPECT_TRUE(directory.List().empty());
  EXPECT_EQ(profile->path, directory.path());
  EXPECT_GT(profile->file_bytes, uint64_t{15} << 20);
  EXPECT_TRUE(FastestRate(*profile, IoBackend::kAuto, UINT64_MAX));
  const auto missing = MeasureDirectory(directory.File("none"), options, {});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), StatusCode::kNotFound);
}

TEST_F(RatesTest, ReadingHasARateAndCanBeStopped) {
  ASSERT_TRUE(model_);
  CancelToken cancel;
  const auto profile = MeasureModelFile(*model_, IoBackend::kPread, cancel);
  ASSERT_TRUE(profile) << profile.error().message();
  const auto rate = FastestRate(*profile, IoBackend::kAuto, UINT64_MAX);
  ASSERT_TRUE(rate);
  EXPECT_GT(rate->bytes_per_second, 0u);
  EXPECT_EQ(rate->backend, IoBackend::kPread);
  cancel.Cancel();
  const auto stopped = MeasureModelFile(*model_, IoBackend::kPread, cancel);
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code(), StatusCode::kCancelled);
}

TEST(FastestRateTest, KeepsToTheReaderTheOrderAndTheLargestRequest) {
  DeviceProfile profile;
  profile.rates = {
      {IoBackend::kUring, ReadOrder::kSequential, {64 << 10, 8}, 500},
      {IoBackend::kUring, ReadOrder::kSequential, {1 << 20, 2}, 900},
      {IoBackend::kUring, ReadOrder::kRandom, {64 << 10, 8}, 9000},
      {IoBackend::kPread, ReadOrder::kSequential, {1 << 20, 4}, 1000},
      {IoBackend::kPread, ReadOrder::kSequential, {64 << 10, 4}, 0}};
  const auto speed = [&](IoBackend io, uint64_t max_request_bytes) {
    const auto rate = FastestRate(profile, io, max_request_bytes);
    return rate ? rate->bytes_per_second : 0;
  };
  EXPECT_EQ(speed(IoBackend::kAuto, UINT64_MAX), 1000u);
  EXPECT_EQ(speed(IoBackend::kUring, UINT64_MAX), 900u);
  EXPECT_EQ(speed(IoBackend::kUring, 1 << 20), 900u);
  EXPECT_EQ(speed(IoBackend::kAuto, 950 << 10), 1000u) << "nearly as large";
  EXPECT_EQ(speed(IoBackend::kAuto, 900 << 10), 500u);
  EXPECT_EQ(speed(IoBackend::kPread, 64 << 10), 0u) << "was not measured";
  EXPECT_EQ(speed(IoBackend::kMmap, UINT64_MAX), 0u);
}

TEST(ForecastTest, SweepsOfAPromptGoWithoutTheHead) {
  ForecastInput input = Input();
  const Forecast with = MakeForecast(input);
  input.head_bytes = input.weight_bytes / 4;
  input.head_streamed_bytes = input.streamed_bytes / 2;
  const Forecast without = MakeForecast(input);
  EXPECT_DOUBLE_EQ(*without.token_ms, *with.token_ms);
  EXPECT_DOUBLE_EQ(without.sweep_compute_ms, with.sweep_compute_ms * 3 / 4);
  EXPECT_DOUBLE_EQ(*without.sweep_read_ms, *with.sweep_read_ms / 2);
  EXPECT_DOUBLE_EQ(*without.sweep_ms,
                   std::max(*without.sweep_read_ms, without.sweep_compute_ms));
}

}  // namespace
}  // namespace flashelm::test
