// What is planned and forecast from the frequencies of neurons.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "core/base/cancel.h"
#include "core/convert/calibrated_file.h"
#include "core/device.h"
#include "core/memory_plan.h"
#include "core/neuron_frequency.h"
#include "core/neuron_use.h"
#include "core/sparse_forecast.h"
#include "storage/json.h"
#include "tests/core/test_model.h"
#include "tests/temp_directory.h"

namespace flashelm::test {
namespace {

using FrequencyOf = std::function<float(uint32_t layer, uint32_t neuron)>;

// A sample model with its gates split off, and frequencies as they come.
class CalibratedSample {
 public:
  CalibratedSample(const std::string& sample, const FrequencyOf& frequency_of,
                   bool rows = false,
                   const Json& calibration = Json::object()) {
    const ConvertedModel converted(SampleModelDirectory(sample),
                                   Encoding::kBf16, rows);
    const auto in = ModelFile::Open(converted.path());
    EXPECT_TRUE(in) << in.error().message();
    CalibratedFileOptions options;
    options.calibration = calibration;
    for (uint32_t i = 0; i < in->config().num_layers(); ++i) {
      const uint32_t ffn_dim = in->config().layers[i].ffn_dim;
      auto& order = options.neuron_order.emplace_back(ffn_dim);
      std::iota(order.begin(), order.end(), 0u);
      if (!frequency_of) continue;
      auto& frequency = options.frequency.emplace_back();
      for (uint32_t n = 0; n < ffn_dim; ++n) {
        frequency.push_back(frequency_of(i, n));
      }
    }
    const std::string path = directory_.path() + "/calibrated.felm";
    const auto written = WriteCalibratedFile(*in, path, options);
    EXPECT_TRUE(written) << written.error().message();
    auto opened = ModelFile::Open(path);
    EXPECT_TRUE(opened) << opened.error().message();
    model.emplace(std::move(*opened));
  }

  // With no layer streamed, unless there is a cost to decide by.
  MemoryPlan Plan(uint64_t budget, double kept_fraction = 0,
                  const std::optional<ReadCost>& cost = {}) const {
    const auto plan = TryPlan(budget, kept_fraction, cost);
    EXPECT_TRUE(plan) << plan.error().message();
    return plan ? *plan : MemoryPlan();
  }
  Result<MemoryPlan> TryPlan(uint64_t budget, double kept_fraction,
                             const std::optional<ReadCost>& cost) const {
    PlanOptions options;
    if (!cost) options.sparsity.reads = NeuronReads::kSingle;
    options.read_cost = cost.value_or(ReadCost());
    // Without threads that read: their stacks are large under sanitizers.
    options.io = IoBackend::kUring;
    options.budget_bytes = budget;
    options.context = 64;
    options.max_batch = 8;
    options.whole_process = false;
    options.sparsity.selector = Selector::kGate;
    options.sparsity.kept_fraction = kept_fraction;
    return MakePlan(*model, options);
  }

  std::optional<ModelFile> model;

 private:
  TempDirectory directory_;
};

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

uint64_t Sum(const std::vector<uint32_t>& values) {
  return std::accumulate(values.begin(), values.end(), uint64_t{0});
}

// The budget with which all but the bundles is resident, at least.
uint64_t WithoutBundles(const CalibratedSample& sample,
                        double kept_fraction = 0) {
  const MemoryPlan all = sample.Plan(kUnlimitedBytes, kept_fraction);
  for (const PlanLine& line : all.lines) {
    if (line.name == "cache of bundles") return all.total_bytes - line.bytes;
  }
  ADD_FAILURE() << "no cache";
  return 0;
}

TEST(NeuronFrequencyTest, ReadsWhatWasWritten) {
  const auto frequency_of = [](uint32_t layer, uint32_t neuron) {
    return static_cast<float>(layer * 1100 + neuron) / 10000;
  };
  const CalibratedSample sample("tiny-stories-relu", frequency_of);
  MemoryBudget budget(uint64_t{1} << 20);
  const auto read = NeuronFrequency::Read(*sample.model, budget);
  ASSERT_TRUE(read) << read.error().message();
  ASSERT_TRUE(read->is_known());
  for (uint32_t i = 0; i < sample.model->config().num_layers(); ++i) {
    const auto layer = read->of_layer(i);
    ASSERT_EQ(layer.size(), sample.model->config().layers[i].ffn_dim);
    for (uint32_t n = 0; n < layer.size(); ++n) {
      ASSERT_EQ(layer[n], frequency_of(i, n));
    }
  }
  MemoryBudget little(kIoAlignment);
  const auto refused = NeuronFrequency::Read(*sample.model, little);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), StatusCode::kResourceExhausted);
}

TEST(NeuronFrequencyTest, AFileThatIsNotCalibratedHasNone) {
  const ConvertedModel converted(SampleModelDirectory("tiny-stories-relu"),
                                 Encoding::kBf16);
  const auto model = ModelFile::Open(converted.path());
  ASSERT_TRUE(model);
  MemoryBudget budget(uint64_t{1} << 20);
  const auto read = NeuronFrequency::Read(*model, budget);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_FALSE(read->is_known());
  EXPECT_TRUE(read->of_layer(3).empty());
}

TEST(NeuronFrequencyTest, RefusesWhatIsNoFrequency) {
  for (const float bad : {-0.1f, 1.1f, std::nanf("")}) {
    const CalibratedSample sample(
        "tiny-stories-relu", [&](uint32_t layer, uint32_t neuron) {
          return layer == 4 && neuron == 700 ? bad : 0.5f;
        });
    PlanOptions options;
    options.sparsity.selector = Selector::kGate;
    const auto plan = MakePlan(*sample.model, options);
    ASSERT_FALSE(plan);
    EXPECT_EQ(plan.error().code(), StatusCode::kDataLoss);
    EXPECT_NE(plan.error().message().find("neuron 700 of layer 4"),
              std::string::npos)
        << plan.error().message();
  }
}

TEST(SparsePlanTest, FillsAnyBudgetWithBundles) {
  const CalibratedSample sample(
      "tiny-stories-relu", [](uint32_t layer, uint32_t neuron) {
        return 0.5f / static_cast<float>(1 + neuron % (20 + 10 * layer));
      });
  const uint64_t least = WithoutBundles(sample);
  const MemoryPlan all = sample.Plan(kUnlimitedBytes);
  EXPECT_EQ(Sum(all.cached_bundles), 3456u);
  uint64_t last = 0;
  for (int step = 1; step < 20; ++step) {
    const uint64_t budget =
        least + (all.total_bytes - least) * static_cast<uint64_t>(step) / 20;
    SCOPED_TRACE(budget);
    const MemoryPlan plan = sample.Plan(budget);
    EXPECT_LE(plan.total_bytes, budget);
    // Whole pages of six layers, and tables of pages.
    EXPECT_LT(budget - plan.total_bytes, uint64_t{96} << 10);
    EXPECT_GE(Sum(plan.cached_bundles), last);
    last = Sum(plan.cached_bundles);
  }
  EXPECT_GT(last, 3000u);
}

TEST(SparsePlanTest, SharesTheCacheByFrequency) {
  const auto middle = [](const CalibratedSample& sample, double kept) {
    const uint64_t least = WithoutBundles(sample, kept);
    const uint64_t most = sample.Plan(kUnlimitedBytes, kept).total_bytes;
    return sample.Plan((least + most) / 2, kept).cached_bundles;
  };
  const auto expect_equal_parts = [](const CalibratedSample& sample,
                                     const std::vector<uint32_t>& cached) {
    const double part = static_cast<double>(Sum(cached)) / 3456;
    EXPECT_NEAR(part, 0.5, 0.05);
    for (size_t i = 0; i < cached.size(); ++i) {
      EXPECT_NEAR(cached[i], part * sample.model->config().layers[i].ffn_dim,
                  1.5);
    }
  };
  const CalibratedSample equal("tiny-stories-relu",
                               [](uint32_t, uint32_t) { return 0.1f; });
  expect_equal_parts(equal, middle(equal, 0));
  const CalibratedSample none("tiny-stories-relu", nullptr);
  expect_equal_parts(none, middle(none, 0));
  // The gates of SwiGLU say nothing.
  const auto first_layers = [](uint32_t layer, uint32_t) {
    return layer < 5 ? 0.1f : 0.001f;
  };
  const CalibratedSample swiglu("tiny-stories", first_layers);
  expect_equal_parts(swiglu, middle(swiglu, 0.5));
  // The last layer's 1024 neurons are hardly used.
  const CalibratedSample relu("tiny-stories-relu", first_layers);
  const std::vector<uint32_t> cached = middle(relu, 0);
  EXPECT_LT(cached[5], 5u);
  EXPECT_GT(Sum(cached), 1600u);
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

TEST(NeuronUseTest, NeighboursGoTogetherAsTheCalibrationFound) {
  const auto tenth = [](uint32_t, uint32_t) { return 0.1f; };
  const auto run_of = [&](const Json& runs, Selector selector) {
    Json calibration;
    calibration["layers"]["run_length_after"] = runs;
    const CalibratedSample sample("tiny-stories-relu", tenth, /*rows=*/false,
                                  calibration);
    SparsityOptions options;
    options.selector = selector;
    options.kept_fraction = 0.1;
    const std::vector<float> frequency(sample.model->config().layers[1].ffn_dim,
                                       0.1f);
    const auto use = UseOf(*sample.model, options, 1, frequency);
    EXPECT_TRUE(use);
    return use ? use->run_length : 0;
  };
  const Json runs = {1, 3.5, 1, 1, 1, 1};
  EXPECT_EQ(run_of(runs, Selector::kGate), 3.5);
  EXPECT_EQ(run_of(runs, Selector::kRandom), 1);
  EXPECT_EQ(run_of(runs, Selector::kMagnitude), 1);
  // Not what a calibration writes.
  EXPECT_EQ(run_of({1, 0.5, 1, 1, 1, 1}, Selector::kGate), 1);
  EXPECT_EQ(run_of({1, 1e9, 1, 1, 1, 1}, Selector::kGate), 1);
  EXPECT_EQ(run_of({1, "3", 1, 1, 1, 1}, Selector::kGate), 1);
  EXPECT_EQ(run_of({1, 3.5}, Selector::kGate), 1);
  EXPECT_EQ(run_of("none", Selector::kGate), 1);
}

TEST(NeuronUseTest, TokensResembleThoseBeforeAsTheCalibrationFound) {
  const auto tenth = [](uint32_t, uint32_t) { return 0.1f; };
  const auto misses_of = [&](const Json& fresh, uint64_t num_cached) {
    Json calibration;
    calibration["layers"]["fresh_fractions"] = fresh;
    const CalibratedSample sample("tiny-stories-relu", tenth, /*rows=*/false,
                                  calibration);
    SparsityOptions options;
    options.selector = Selector::kGate;
    const std::vector<float> frequency(sample.model->config().layers[1].ffn_dim,
                                       0.1f);
    const auto use = UseOf(*sample.model, options, 1, frequency);
    EXPECT_TRUE(use);
    if (!use) return 0.0;
    // 32 of 320 by each token.
    Segment segment;
    segment.num_records = 320;
    return ExpectedMisses(*use, segment, num_cached, false);
  };
  const auto of_layer_1 = [](const Json& of_layer) {
    return Json{{}, of_layer, {}, {}, {}, {}};
  };
  // One token's neurons fit in 32, those of two in 32 + 16 more.
  const Json fresh = of_layer_1({0.5, 0.25});
  EXPECT_NEAR(misses_of(fresh, 0), 32, 1e-3);
  EXPECT_NEAR(misses_of(fresh, 16), 24, 1e-3);
  EXPECT_NEAR(misses_of(fresh, 32), 16, 1e-3);
  EXPECT_NEAR(misses_of(fresh, 40), 12, 1e-3);
  EXPECT_NEAR(misses_of(fresh, 48), 8, 1e-3);
  EXPECT_NEAR(misses_of(fresh, 100), 8, 1e-3);
  // With room for most neurons, which token used them does not matter.
  EXPECT_NEAR(misses_of(fresh, 300), 2, 1e-3);
  EXPECT_NEAR(misses_of(fresh, 320), 0, 1e-3);
  // Without, and with what no calibration writes.
  const double unknown = misses_of(of_layer_1(Json::array()), 48);
  EXPECT_GT(unknown, 27);
  EXPECT_EQ(misses_of("none", 48), unknown);
  EXPECT_EQ(misses_of(of_layer_1({0.5, "0.2"}), 48), unknown);
  EXPECT_EQ(misses_of(of_layer_1({0.25, 0.5}), 48), unknown);
  EXPECT_EQ(misses_of(of_layer_1({1.5}), 48), unknown);
}

TEST(SparseSwitchTest, StreamsLayersOfWhichMostIsUsed) {
  for (const uint32_t used : {0, 2}) {
    const CalibratedSample sample(
        "tiny-stories-relu",
        [&](uint32_t layer, uint32_t) { return layer == used ? 0.9f : 0.01f; });
    const uint64_t budget = WithoutBundles(sample);
    const auto streamed = [&](double request_ns) {
      ReadCost cost;
      cost.request_ns = request_ns;
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
