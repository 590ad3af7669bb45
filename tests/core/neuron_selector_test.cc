#include "core/neuron_selector.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/activation.h"
#include "tests/core/predicted_model.h"
#include "tests/core/selecting.h"

namespace flashelm::test {
namespace {

constexpr uint32_t kTokens = Selecting::kTokens;

std::vector<float> Scores(const PredictedModel& model, const Selecting& in,
                          uint32_t layer, uint32_t token) {
  const auto opened =
      OpenPredictor(model.predictors()[layer], in.ffn_dim(layer),
                    in.config().model_dim, "the test's");
  EXPECT_TRUE(opened);
  std::vector<float> prepared(opened->predictor->prepared_floats());
  std::vector<float> scores(in.ffn_dim(layer));
  opened->predictor->Prepare(in.input(token), prepared.data());
  opened->predictor->Score(prepared.data(), 0, scores.size(), scores.data());
  return scores;
}

// The part of the largest keys, sorted whole.
std::vector<uint32_t> Largest(const std::vector<float>& keys, double fraction) {
  std::vector<uint32_t> order(keys.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return keys[a] > keys[b]; });
  order.resize(static_cast<size_t>(
      std::ceil(fraction * static_cast<double>(keys.size()))));
  std::sort(order.begin(), order.end());
  return order;
}

// Every selector's sets are those of `expected(layer, token)`, alone and in a
// batch, with one thread and with two.
template <class Expected>
void ExpectKept(const PredictedModel& model, Selector selector,
                double kept_fraction, const Expected& expected) {
  for (const uint32_t threads : {1u, 2u}) {
    Selecting selecting(model, selector, kept_fraction, threads);
    for (uint32_t layer = 0; layer < 2; ++layer) {
      SCOPED_TRACE(testing::Message()
                   << threads << " threads, layer " << layer);
      const auto together = selecting.Kept(layer, 0, kTokens);
      for (uint32_t t = 0; t < kTokens; ++t) {
        EXPECT_EQ(together[t], expected(selecting, layer, t)) << t;
        EXPECT_EQ(together[t], selecting.Kept(layer, t, 1)[0]) << t;
      }
    }
  }
}

class NeuronSelectorTest : public testing::TestWithParam<std::string> {
 protected:
  PredictedModelOptions Options(PredictorKind kind) const {
    PredictedModelOptions options;
    options.activation = GetParam();
    options.kind = kind;
    options.threshold = 0.25f;
    return options;
  }
};

TEST_P(NeuronSelectorTest, LowBitTakesScoresForGates) {
  const PredictedModel model(Options(PredictorKind::kLowBit));
  ExpectKept(model, Selector::kLowBit, 0.3,
             [&](const Selecting& in, uint32_t layer, uint32_t t) {
               std::vector<float> keys = Scores(model, in, layer, t);
               const auto importance = in.Importance(layer);
               GluActivate(
                   GetParam() == "relu" ? Activation::kRelu : Activation::kSilu,
                   keys.data(), importance.data(), keys.size(), keys.data());
               for (float& key : keys) key = std::abs(key);
               return Largest(keys, 0.3);
             });
}

TEST_P(NeuronSelectorTest, LowRankTakesTheLargestScores) {
  const PredictedModel model(Options(PredictorKind::kLowRank));
  // More than are positive.
  for (const double fraction : {0.1, 0.9}) {
    ExpectKept(model, Selector::kLowRank, fraction,
               [&](const Selecting& in, uint32_t layer, uint32_t t) {
                 return Largest(Scores(model, in, layer, t), fraction);
               });
  }
}

TEST_P(NeuronSelectorTest, MagnitudeTakesTheMostImportant) {
  const PredictedModel model(Options(PredictorKind::kLowBit));
  ExpectKept(model, Selector::kMagnitude, 0.4,
             [&](const Selecting& in, uint32_t layer, uint32_t) {
               return Largest(in.Importance(layer), 0.4);
             });
}

TEST_P(NeuronSelectorTest, RandomTakesOthersForEveryPositionAndLayer) {
  const PredictedModel model(Options(PredictorKind::kLowBit));
  Selecting another(model, Selector::kRandom, 0.25);
  ExpectKept(model, Selector::kRandom, 0.25,
             [&](const Selecting& in, uint32_t layer, uint32_t t) {
               const auto kept = another.Kept(layer, 0, kTokens);
               EXPECT_EQ(kept[t].size(), in.ffn_dim(layer) / 4);
               EXPECT_EQ(std::count(kept.begin(), kept.end(), kept[t]), 1);
               return kept[t];
             });
  // No neuron is never taken, but for chance: 0.75 to the ninth, 8 %.
  std::vector<uint32_t> counts(another.ffn_dim(1));
  for (const auto& kept : another.Kept(1, 0, kTokens)) {
    for (const uint32_t id : kept) ++counts[id];
  }
  EXPECT_LT(std::count(counts.begin(), counts.end(), 0u),
            static_cast<int64_t>(counts.size() / 6));
}

INSTANTIATE_TEST_SUITE_P(Activations, NeuronSelectorTest,
                         testing::Values("relu", "swish"),
                         [](const auto& test) { return test.param; });

TEST(NeuronSelectorReluTest, WithoutFractionTakesScoresAboveTheThreshold) {
  for (const PredictorKind kind :
       {PredictorKind::kLowBit, PredictorKind::kLowRank}) {
    PredictedModelOptions options;
    options.kind = kind;
    options.threshold = 0.25f;
    const PredictedModel model(options);
    ExpectKept(
        model,
        kind == PredictorKind::kLowBit ? Selector::kLowBit : Selector::kLowRank,
        0, [&](const Selecting& in, uint32_t layer, uint32_t t) {
          const auto scores = Scores(model, in, layer, t);
          std::vector<uint32_t> kept;
          for (uint32_t i = 0; i < scores.size(); ++i) {
            if (scores[i] > 0.25f) kept.push_back(i);
          }
          EXPECT_GT(kept.size(), 0u);
          EXPECT_LT(kept.size(), scores.size());
          return kept;
        });
  }
}

TEST(NeuronSelectorReluTest, CountsWhatItKeeps) {
  const PredictedModel model(PredictedModelOptions{});
  Selecting selecting(model, Selector::kMagnitude, 0.3, 2);
  selecting.Kept(1, 0, kTokens);
  const uint32_t ffn_dim = selecting.ffn_dim(1);
  EXPECT_EQ(selecting.stats().num_neurons, kTokens * ffn_dim);
  EXPECT_EQ(selecting.stats().num_kept,
            kTokens * static_cast<uint64_t>(std::ceil(0.3 * ffn_dim)));
}

}  // namespace
}  // namespace flashelm::test
