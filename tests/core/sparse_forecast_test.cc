// What is forecast from the frequencies of neurons.

#include "core/sparse_forecast.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "core/device.h"
#include "core/memory_plan.h"
#include "core/neuron_use.h"
#include "tests/core/calibrated_sample.h"

namespace flashelm::test {
namespace {

// What a forecast looks at, with nothing cached.
MemoryPlan EmptyCache(const ModelFile& model) {
  MemoryPlan plan;
  for (const LayerWeights& layer : model.weights().layers) {
    plan.residency.apart.push_back(layer.up.segment);
    if (layer.has_split_down()) {
      plan.residency.apart.push_back(layer.down.segment);
    }
  }
  plan.cached_bundles.assign(plan.residency.apart.size(), 0);
  return plan;
}

// How long reading a part of all neurons takes, the same in each layer.
double ReadMs(const ModelFile& model, double part, const ReadCost& cost) {
  double ns = 0;
  for (const LayerWeights& layer : model.weights().layers) {
    for (const uint32_t index : layer.neuron_segments()) {
      const Segment& segment = model.weight_file().segments()[index];
      ns += ReadNs(segment, part * static_cast<double>(segment.num_records),
                   /*run_length=*/1, cost);
    }
  }
  return ns * 1e-6;
}

TEST(SparseForecastTest, FollowsFromFrequenciesAndCache) {
  const CalibratedSample sample(
      "tiny-stories-relu",
      [](uint32_t, uint32_t neuron) { return neuron % 4 == 0 ? 0.8f : 0.1f; });
  SparsityOptions options;
  options.selector = Selector::kGate;
  MemoryPlan plan = EmptyCache(*sample.model);
  ReadCost cost;
  cost.request_ns = 1000;
  cost.bytes_per_ns = 1;
  const auto forecast = [&] {
    const auto made = ForecastSparse(*sample.model, options, plan, cost);
    EXPECT_TRUE(made && *made);
    return made && *made ? **made : SparseForecast();
  };
  // Up row and down column, 256 numbers of 2 bytes each.
  constexpr double kStride = 1024;
  const double kept = 3456 * (0.25 * 0.8 + 0.75 * 0.1);
  SparseForecast now = forecast();
  EXPECT_NEAR(now.kept_fraction, 0.275, 1e-6);
  EXPECT_NEAR(static_cast<double>(now.kept_bytes), kept * kStride, 10);
  EXPECT_EQ(now.fresh_bytes, now.kept_bytes);
  EXPECT_EQ(now.num_bundles, 3456u);
  EXPECT_NEAR(now.read_ms, ReadMs(*sample.model, 0.275, cost), 1e-6);
  // Reading all of it in order is faster on a device that is bad at the rest.
  cost.sequential_bytes_per_ns = 4;
  EXPECT_NEAR(forecast().read_ms, 3456 * kStride / 4 * 1e-6, 1e-6);
  // The quarter that is used most.
  for (uint32_t i = 0; i < 6; ++i) {
    plan.cached_bundles[i] = sample.model->config().layers[i].ffn_dim / 4;
  }
  now = forecast();
  EXPECT_EQ(now.cached_bundles, 3456u / 4);
  EXPECT_NEAR(static_cast<double>(now.fresh_bytes), 3456 * 0.075 * kStride, 10);
  // No more than are active are kept, nor than asked for.
  options.kept_fraction = 0.5;
  EXPECT_NEAR(forecast().kept_fraction, 0.275, 1e-6);
  options.kept_fraction = 0.125;
  EXPECT_NEAR(forecast().kept_fraction, 0.125, 1e-6);
  EXPECT_NEAR(static_cast<double>(forecast().fresh_bytes),
              3456 * 0.125 / 0.275 * 0.075 * kStride, 10);
  for (uint32_t i = 0; i < 6; ++i) {
    plan.cached_bundles[i] = sample.model->config().layers[i].ffn_dim;
  }
  EXPECT_EQ(forecast().fresh_bytes, 0u);
  EXPECT_EQ(forecast().read_ms, 0);
}

TEST(SparseForecastTest, SaysNothingWithoutFrequenciesUnlessTheKeptAreGiven) {
  const CalibratedSample sample("tiny-stories-relu", nullptr);
  SparsityOptions options;
  options.selector = Selector::kGate;
  MemoryPlan plan = EmptyCache(*sample.model);
  plan.cached_bundles.assign(6, 64);
  const auto unknown = ForecastSparse(*sample.model, options, plan, {});
  ASSERT_TRUE(unknown);
  EXPECT_FALSE(*unknown);
  options.kept_fraction = 0.25;
  const auto known = ForecastSparse(*sample.model, options, plan, {});
  ASSERT_TRUE(known && *known);
  EXPECT_DOUBLE_EQ((*known)->kept_fraction, 0.25);
  EXPECT_EQ((*known)->fresh_bytes, (3456u - 6 * 64) * 1024 / 4);
}

TEST(SparseForecastTest, WithoutBundlesCountsUpRowsAndDownColumns) {
  const FrequencyOf frequency_of = [](uint32_t, uint32_t neuron) {
    return neuron % 4 == 0 ? 0.8f : 0.1f;
  };
  const CalibratedSample rows("tiny-stories-relu", frequency_of, true);
  const CalibratedSample bundles("tiny-stories-relu", frequency_of);
  SparsityOptions options;
  options.selector = Selector::kGate;
  ReadCost cost;
  cost.request_ns = 1000;
  cost.bytes_per_ns = 1;
  const auto forecast = [&](const CalibratedSample& sample,
                            const MemoryPlan& plan) {
    const auto made = ForecastSparse(*sample.model, options, plan, cost);
    EXPECT_TRUE(made && *made);
    return made && *made ? **made : SparseForecast();
  };
  MemoryPlan plan = EmptyCache(*rows.model);
  ASSERT_EQ(plan.cached_bundles.size(), 12u);
  SparseForecast now = forecast(rows, plan);
  const SparseForecast other = forecast(bundles, EmptyCache(*bundles.model));
  EXPECT_DOUBLE_EQ(now.kept_fraction, other.kept_fraction);
  EXPECT_EQ(now.kept_bytes, other.kept_bytes);
  EXPECT_EQ(now.fresh_bytes, other.fresh_bytes);
  EXPECT_EQ(now.num_bundles, 2 * other.num_bundles);
  // A read for each half.
  EXPECT_NEAR(now.read_ms, ReadMs(*rows.model, 0.275, cost), 1e-6);
  EXPECT_GT(now.read_ms, 1.1 * other.read_ms);
  // All up rows of the first three layers and no down column.
  for (size_t i = 0; i < 6; i += 2) {
    plan.cached_bundles[i] = rows.model->config().layers[i / 2].ffn_dim;
  }
  const uint64_t cached = Sum(plan.cached_bundles);
  now = forecast(rows, plan);
  EXPECT_EQ(now.cached_bundles, cached);
  EXPECT_NEAR(static_cast<double>(now.fresh_bytes),
              0.275 * static_cast<double>(2 * 3456 - cached) * 512, 10);
}

TEST(SparseForecastTest, OnlyGatesKeepNoMoreThanIsActive) {
  const CalibratedSample sample(
      "tiny-stories-relu",
      [](uint32_t, uint32_t neuron) { return neuron % 4 == 0 ? 0.8f : 0.1f; });
  MemoryPlan plan = EmptyCache(*sample.model);
  for (uint32_t i = 0; i < 6; ++i) {
    plan.cached_bundles[i] = sample.model->config().layers[i].ffn_dim / 4;
  }
  const auto forecast = [&](Selector selector, double kept_fraction) {
    SparsityOptions options;
    options.selector = selector;
    options.kept_fraction = kept_fraction;
    const auto made = ForecastSparse(*sample.model, options, plan, {});
    EXPECT_TRUE(made && *made);
    return made && *made ? **made : SparseForecast();
  };
  constexpr double kBytes = 3456 * 1024.0;
  const auto fresh = [&](Selector selector, double kept_fraction) {
    return static_cast<double>(forecast(selector, kept_fraction).fresh_bytes) /
           kBytes;
  };
  EXPECT_NEAR(forecast(Selector::kGate, 0.5).kept_fraction, 0.275, 1e-6);
  for (const Selector selector : {Selector::kLowRank, Selector::kLowBit,
                                  Selector::kRandom, Selector::kMagnitude}) {
    EXPECT_DOUBLE_EQ(forecast(selector, 0.5).kept_fraction, 0.5);
  }
  // The cached quarter cannot spare more than it has.
  EXPECT_NEAR(fresh(Selector::kLowRank, 0.5), 0.25, 1e-5);
  EXPECT_NEAR(fresh(Selector::kLowBit, 0.275), 0.075, 1e-3);
  // Any neuron is as likely as another, or always the same ones are taken.
  EXPECT_NEAR(fresh(Selector::kRandom, 0.5), 0.5 * 0.75, 1e-5);
  EXPECT_NEAR(fresh(Selector::kMagnitude, 0.5), 0.25, 1e-5);
  EXPECT_EQ(fresh(Selector::kMagnitude, 0.25), 0);
  EXPECT_NEAR(fresh(Selector::kRandom, 1), 0.75, 1e-5);
}

TEST(SparseForecastTest, APredictorKeepsWhatItsCalibrationMeasured) {
  const FrequencyOf frequency_of = [](uint32_t, uint32_t) { return 0.1f; };
  const auto forecast = [&](const Json& kept) {
    Json calibration = Json::object();
    if (!kept.is_null()) calibration["layers"]["kept_fraction"] = kept;
    const CalibratedSample sample("tiny-stories-relu", frequency_of, false,
                                  calibration);
    SparsityOptions options;
    options.selector = Selector::kLowRank;
    const auto made =
        ForecastSparse(*sample.model, options, EmptyCache(*sample.model), {});
    EXPECT_TRUE(made) << made.error().message();
    return made ? *made : std::nullopt;
  };
  const auto known = forecast({0.5, 0.5, 0.5, 0.5, 0.5, 0});
  ASSERT_TRUE(known);
  EXPECT_NEAR(known->kept_fraction, 0.5 * (3456 - 1024) / 3456, 1e-9);
  EXPECT_EQ(known->kept_bytes, 512u * (3456 - 1024));
  EXPECT_EQ(known->fresh_bytes, known->kept_bytes);
  EXPECT_FALSE(forecast(nullptr));
  EXPECT_FALSE(forecast({0.5, 0.5}));
  EXPECT_FALSE(forecast({0.5, 0.5, 0.5, 0.5, 0.5, 1.5}));
  EXPECT_FALSE(forecast({0.5, 0.5, 0.5, 0.5, 0.5, "all"}));
  EXPECT_FALSE(forecast({{"a", 1}}));
}

}  // namespace
}  // namespace flashelm::test
