// What is planned from the frequencies of neurons.

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/neuron_frequency.h"
#include "tests/core/calibrated_sample.h"

namespace flashelm::test {
namespace {

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

}  // namespace
}  // namespace flashelm::test
