#include "core/neuron_selector.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/activation.h"
#include "tests/core/predicted_model.h"

namespace flashelm::test {
namespace {

constexpr uint32_t kTokens = 9;

EngineOptions WithSelector(Selector selector, double kept_fraction,
                           uint32_t threads) {
  EngineOptions options;
  options.plan.num_threads = threads;
  options.plan.whole_process = false;
  options.plan.sparsity = {selector, kept_fraction};
  return options;
}

// Runs a selector over inputs of its own.
class Selecting {
 public:
  Selecting(const PredictedModel& model, Selector selector,
            double kept_fraction, uint32_t threads = 1)
      : running_(Start(model.path(),
                       WithSelector(selector, kept_fraction, threads))) {
    auto created = NeuronSelector::Create(
        running_.engine->model(), {selector, kept_fraction},
        running_.engine->store(), running_.engine->pool(), budget_);
    EXPECT_TRUE(created) << created.error().message();
    selector_ = std::move(*created);
    EXPECT_TRUE(selector_->OpenPredictors().ok());
    ScratchShape shape;
    shape.batch = kTokens;
    shape.has_gates = true;
    auto scratch = Scratch::Create(config(), shape, budget_);
    EXPECT_TRUE(scratch);
    scratch_ = std::move(*scratch);
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    inputs_.resize(size_t{kTokens} * config().model_dim);
    for (float& x : inputs_) x = normal(random);
  }

  const ModelConfig& config() const { return running_.engine->config(); }
  const float* input(uint32_t t) const {
    return inputs_.data() + t * config().model_dim;
  }
  uint32_t ffn_dim(uint32_t layer) const {
    return config().layers[layer].ffn_dim;
  }
  const SparsityStats& stats() const { return stats_; }

  std::vector<float> Importance(uint32_t layer) const {
    const PartRef& part =
        *running_.engine->model().weights().layers[layer].importance;
    const auto* values = reinterpret_cast<const float*>(
        running_.engine->store().ResidentRecord(part.segment, 0) +
        part.offset_bytes);
    return {values, values + ffn_dim(layer)};
  }

  // What is kept of tokens [first, first + count) at positions 100 + first ...
  std::vector<std::vector<uint32_t>> Kept(uint32_t layer, uint32_t first,
                                          uint32_t count) {
    std::copy_n(input(first), count * config().model_dim, scratch_.normed);
    selector_->Select(layer, 100 + first, count, scratch_, stats_);
    std::vector<std::vector<uint32_t>> kept(count);
    for (uint32_t t = 0; t < count; ++t) {
      for (uint32_t i = 0; i < ffn_dim(layer); ++i) {
        const float mark = scratch_.gates[t * scratch_.gates_stride + i];
        EXPECT_TRUE(mark == 0 || mark == 1);
        if (mark != 0) kept[t].push_back(i);
      }
    }
    return kept;
  }

 private:
  Running running_;
  MemoryBudget budget_{UINT64_MAX};
  std::unique_ptr<NeuronSelector> selector_;
  Scratch scratch_;
  std::vector<float> inputs_;
  SparsityStats stats_;
};

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
