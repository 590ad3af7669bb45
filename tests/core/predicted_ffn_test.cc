// Decoding with the selectors that do not need gates apart from the bundles.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "core/activation_recorder.h"
#include "core/convert/calibrated_file.h"
#include "tests/core/allocation_counter.h"
#include "tests/core/predicted_model.h"

namespace flashelm::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

EngineOptions Options(Selector selector, double kept_fraction = 0,
                      uint32_t threads = 2, uint32_t batch = 64) {
  EngineOptions options;
  options.plan.num_threads = threads;
  options.plan.max_batch = batch;
  options.plan.all_logits = true;
  options.plan.whole_process = false;
  options.plan.sparsity = {selector, kept_fraction};
  return options;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

struct Outcome {
  std::vector<float> logits;
  SparsityStats stats;
};

Outcome Compute(const std::string& path, const EngineOptions& options,
                uint32_t chunk = 0) {
  Running running = Start(path, options);
  if (running.session == nullptr) return {};
  const uint32_t vocab_size = running.engine->config().vocab_size;
  Outcome outcome;
  outcome.logits = AllLogits(*running.session, SomeTokens(40, vocab_size),
                             vocab_size, chunk);
  outcome.stats = running.session->stats().sparsity;
  return outcome;
}

PredictedModelOptions Model(const std::string& activation, Encoding weights,
                            PredictorKind kind, float threshold = 0,
                            bool split_gate = false) {
  PredictedModelOptions options;
  options.activation = activation;
  options.weights = weights;
  options.kind = kind;
  options.threshold = threshold;
  options.split_gate = split_gate;
  return options;
}

Selector SelectorOf(PredictorKind kind) {
  return kind == PredictorKind::kLowBit ? Selector::kLowBit
                                        : Selector::kLowRank;
}

class PredictedFfnTest : public testing::TestWithParam<Encoding> {};

// To the bit, unless the dense FFN rounds activations, which a sparse one does
// not: then that which keeps all by its gates.
std::vector<float> ReferenceLogits(const PredictedModel& model,
                                   const PredictedModelOptions& options) {
  if (!IsGrouped(options.weights)) {
    return Compute(model.path(), Options(Selector::kOff)).logits;
  }
  PredictedModelOptions split = options;
  split.split_gate = true;
  const PredictedModel other(split);
  return Compute(other.path(), Options(Selector::kGate, 1)).logits;
}

TEST_P(PredictedFfnTest, KeepingAllIsTheDenseModel) {
  for (const PredictorKind kind :
       {PredictorKind::kLowBit, PredictorKind::kLowRank}) {
    SCOPED_TRACE(PredictorKindName(kind));
    auto options = Model("relu", GetParam(), kind, -kInfinity);
    const PredictedModel relu(options);
    const Outcome sparse = Compute(relu.path(), Options(SelectorOf(kind)));
    EXPECT_TRUE(SameBits(sparse.logits, ReferenceLogits(relu, options)));
    EXPECT_EQ(sparse.stats.num_kept, sparse.stats.num_neurons);

    options = Model("swish", GetParam(), kind);
    const PredictedModel swiglu(options);
    EXPECT_TRUE(
        SameBits(Compute(swiglu.path(), Options(SelectorOf(kind), 1)).logits,
                 ReferenceLogits(swiglu, options)));
    // Dense, the file is the one that it was made from.
    EXPECT_TRUE(SameBits(
        Compute(swiglu.path(), Options(Selector::kOff)).logits,
        Compute(swiglu.uncalibrated_path(), Options(Selector::kOff)).logits));
  }
}

// Without any effect: threads, batches, the budget, and where the gates are.
void ExpectOneResult(const std::string& activation, Encoding weights,
                     PredictorKind kind, Selector selector, double fraction) {
  SCOPED_TRACE(testing::Message() << activation << " " << SelectorName(selector)
                                  << " " << fraction);
  Outcome first;
  for (const bool split_gate : {false, true}) {
    const PredictedModel model(Model(activation, weights, kind, 0, split_gate));
    for (const bool is_large : {true, false}) {
      const uint32_t threads = is_large == split_gate ? 1 : 2;
      for (const uint32_t batch : {64u, 1u}) {
        EngineOptions options = Options(selector, fraction, threads, batch);
        if (!is_large) {
          options.plan.budget_bytes = SmallestBudget(model.path(), options);
        }
        const Outcome outcome = Compute(model.path(), options);
        if (first.logits.empty()) first = outcome;
        EXPECT_TRUE(SameBits(outcome.logits, first.logits))
            << split_gate << " " << is_large << " " << batch;
        EXPECT_EQ(outcome.stats.num_kept, first.stats.num_kept);
        EXPECT_EQ(outcome.stats.num_kept_active, first.stats.num_kept_active);
      }
    }
  }
  EXPECT_GT(first.stats.num_kept, 0u);
  EXPECT_LT(first.stats.num_kept, first.stats.num_neurons);
}

TEST_P(PredictedFfnTest, WhatIsComputedDependsOnTheTokensAlone) {
  using enum PredictorKind;
  ExpectOneResult("relu", GetParam(), kLowBit, Selector::kLowBit, 0);
  ExpectOneResult("swish", GetParam(), kLowRank, Selector::kLowRank, 0.3);
  ExpectOneResult("swish", GetParam(), kLowBit, Selector::kRandom, 0.3);
}

INSTANTIATE_TEST_SUITE_P(Encodings, PredictedFfnTest,
                         testing::Values(Encoding::kBf16, Encoding::kF32,
                                         Encoding::kQ4),
                         [](const auto& test) {
                           return std::string(EncodingName(test.param));
                         });

TEST(PredictedFfnFractionTest, KeepsExactlyThePartAskedFor) {
  for (const PredictorKind kind :
       {PredictorKind::kLowBit, PredictorKind::kLowRank}) {
    for (const std::string activation : {"relu", "swish"}) {
      const PredictedModel model(Model(activation, Encoding::kBf16, kind));
      for (const Selector selector :
           {SelectorOf(kind), Selector::kRandom, Selector::kMagnitude}) {
        Running running = Start(model.path(), Options(selector, 0.31));
        ASSERT_NE(running.session, nullptr);
        const ModelConfig& config = running.engine->config();
        AllLogits(*running.session, SomeTokens(20, config.vocab_size),
                  config.vocab_size);
        uint64_t expected = 0;
        for (const LayerConfig& layer : config.layers) {
          expected += 20 * static_cast<uint64_t>(std::ceil(
                               0.31 * static_cast<double>(layer.ffn_dim)));
        }
        const SparsityStats& stats = running.session->stats().sparsity;
        EXPECT_EQ(stats.num_kept, expected);
        EXPECT_FALSE(stats.knows_skipped);
        EXPECT_EQ(stats.knows_kept_active, activation == "relu");
        EXPECT_FALSE(stats.knows_active);
      }
    }
  }
}

// Of a model whose other neurons have no down columns.
TEST(PredictedFfnFractionTest, MagnitudeIsTheModelWithoutTheOtherNeurons) {
  const PredictedModel model(
      Model("swish", Encoding::kF32, PredictorKind::kLowBit));
  const CheckpointOptions checkpoint = PredictedModel::Checkpoint("swish");
  std::vector<RawTensor> tensors = MakeTensors(checkpoint);
  const auto file = ModelFile::Open(model.path());
  ASSERT_TRUE(file);
  const size_t model_dim = file->config().model_dim;
  for (uint32_t layer = 0; layer < file->config().num_layers(); ++layer) {
    const size_t ffn_dim = file->config().layers[layer].ffn_dim;
    const auto find = [&](const char* name) {
      const std::string full = "transformer.layers." + std::to_string(layer) +
                               ".ffn." + name + ".weight";
      return std::find_if(tensors.begin(), tensors.end(),
                          [&](const RawTensor& t) { return t.name == full; });
    };
    const auto values = [](const RawTensor& tensor) {
      std::vector<float> result(tensor.bytes.size() / sizeof(float));
      std::memcpy(result.data(), tensor.bytes.data(), tensor.bytes.size());
      return result;
    };
    const std::vector<float> in = values(*find("proj_1"));
    std::vector<float> out = values(*find("proj_2"));
    std::vector<double> importance(ffn_dim);
    for (size_t i = 0; i < ffn_dim; ++i) {
      double up = 0;
      double down = 0;
      for (size_t k = 0; k < model_dim; ++k) {
        up += std::pow(in[(ffn_dim + i) * model_dim + k], 2.0);
        down += std::pow(out[k * ffn_dim + i], 2.0);
      }
      importance[i] = std::sqrt(up) * std::sqrt(down);
    }
    std::vector<size_t> order(ffn_dim);
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return importance[a] > importance[b];
    });
    for (size_t i = ffn_dim / 2; i < ffn_dim; ++i) {
      for (size_t k = 0; k < model_dim; ++k) out[k * ffn_dim + order[i]] = 0;
    }
    find("proj_2")->bytes = EncodeValues(out, "F32");
  }
  const TempDirectory source;
  WriteCheckpoint(source.path(), checkpoint);
  WriteTensors(source.path(), tensors, 1);
  const ConvertedModel pruned(source.path(), Encoding::kF32);
  EXPECT_TRUE(
      SameBits(Compute(model.path(), Options(Selector::kMagnitude, 0.5)).logits,
               Compute(pruned.path(), Options(Selector::kOff)).logits));
}

TEST(ActivationRecorderTest, KnowsHowSoonNeuronsAreUsedAgain) {
  ModelConfig config;
  config.layers.resize(2);
  config.layers[0].ffn_dim = 3;
  config.layers[1].ffn_dim = 1;
  MemoryBudget budget(ActivationRecorder::NumBytes(config));
  const auto recorder = ActivationRecorder::Create(config, 6, budget);
  ASSERT_TRUE(recorder);
  // Tokens 0, 1 and 3; token 4 alone; tokens 2 and 5. In two batches.
  const std::vector<std::vector<float>> gates = {
      {1, 0, 0}, {1, 0, 0}, {0, 0, 1}, {1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
  for (const auto& [begin, end] : {std::pair(0, 2), std::pair(2, 6)}) {
    std::vector<float> batch;
    for (int t = begin; t < end; ++t) {
      batch.insert(batch.end(), gates[t].begin(), gates[t].end());
    }
    const size_t num_tokens = end - begin;
    (*recorder)->BeginBatch(num_tokens);
    (*recorder)->OnGates(0, 0, 3, num_tokens, batch.data(), 3);
  }
  // Six times one was active; after one, two and three tokens again.
  EXPECT_DOUBLE_EQ((*recorder)->fresh_fraction(0, 1), 5.0 / 6);
  EXPECT_DOUBLE_EQ((*recorder)->fresh_fraction(0, 2), 4.0 / 6);
  EXPECT_DOUBLE_EQ((*recorder)->fresh_fraction(0, 3), 3.0 / 6);
  EXPECT_DOUBLE_EQ(
      (*recorder)->fresh_fraction(0, ActivationRecorder::kMostWindow), 3.0 / 6);
  EXPECT_EQ((*recorder)->fresh_fraction(1, 1), 1);
}

TEST(PredictedFfnStatsTest, CountsActiveNeurons) {
  const PredictedModel model(
      Model("relu", Encoding::kBf16, PredictorKind::kLowBit, -kInfinity));
  Running dense = Start(model.path(), Options(Selector::kOff));
  ASSERT_NE(dense.session, nullptr);
  const ModelConfig& config = dense.engine->config();
  const std::vector<TokenId> tokens = SomeTokens(40, config.vocab_size);
  MemoryBudget budget(ActivationRecorder::NumBytes(config));
  const auto recorder =
      ActivationRecorder::Create(config, tokens.size(), budget);
  ASSERT_TRUE(recorder);
  dense.session->set_observer(recorder->get());
  AllLogits(*dense.session, tokens, config.vocab_size);
  uint64_t num_active = 0;
  for (uint32_t i = 0; i < config.num_layers(); ++i) {
    const auto counts = (*recorder)->counts(i);
    num_active += std::accumulate(counts.begin(), counts.end(), uint64_t{0});
  }
  // All are kept.
  const SparsityStats all =
      Compute(model.path(), Options(Selector::kLowBit)).stats;
  EXPECT_EQ(all.num_kept_active, num_active);

  // With gates apart, those left out are known as well.
  const PredictedModel split(
      Model("relu", Encoding::kBf16, PredictorKind::kLowBit, 0, true));
  const SparsityStats some =
      Compute(split.path(), Options(Selector::kLowBit)).stats;
  EXPECT_TRUE(some.knows_active);
  EXPECT_LT(some.num_kept_active, some.num_active);
  // Two bits say quite well which gates are positive.
  EXPECT_GT(some.num_kept_active, some.num_active * 7 / 10);
  EXPECT_GT(some.num_kept_active, some.num_kept * 7 / 10);
  const SparsityStats exact =
      Compute(split.path(), Options(Selector::kGate)).stats;
  EXPECT_EQ(exact.num_kept_active, exact.num_kept);
  EXPECT_EQ(exact.num_active, exact.num_kept);
  EXPECT_TRUE(exact.knows_skipped);
}

TEST(PredictedFfnMemoryTest, DecodingAllocatesNothing) {
  const PredictedModel model(
      Model("relu", Encoding::kQ8, PredictorKind::kLowRank));
  for (const auto& [selector, streams] :
       {std::pair(Selector::kLowRank, false),
        std::pair(Selector::kLowRank, true),
        std::pair(Selector::kMagnitude, false)}) {
    EngineOptions options = Options(selector, 0.2);
    options.plan.sparsity.reads =
        streams ? NeuronReads::kStreamed : NeuronReads::kSingle;
    options.plan.budget_bytes = SmallestBudget(model.path(), options);
    Running running = Start(model.path(), options);
    ASSERT_NE(running.session, nullptr);
    EXPECT_EQ(running.engine->plan().streams_neurons(0), streams);
    const CancelToken never;
    constexpr uint32_t kOnly = 0;
    TokenId token = 5;
    ASSERT_TRUE(running.session->Run({&token, 1}, {&kOnly, 1}, never).ok());
    const AllocationCounter counter;
    for (; token < 25; ++token) {
      ASSERT_TRUE(running.session->Run({&token, 1}, {&kOnly, 1}, never).ok());
    }
    EXPECT_EQ(counter.num_allocations(), 0u);
  }
}

TEST(PredictedFfnMemoryTest, PredictorsAreChargedWhereTheyAreUsed) {
  const PredictedModel model(
      Model("relu", Encoding::kBf16, PredictorKind::kLowRank));
  const PredictedModel bare([] {
    PredictedModelOptions options;
    options.has_predictors = false;
    return options;
  }());
  uint64_t predictor_bytes = 0;
  for (const auto& predictor : model.predictors()) {
    predictor_bytes += predictor.size();
  }
  const EngineOptions magnitude = Options(Selector::kMagnitude, 0.5);
  EXPECT_GE(SmallestBudget(model.path(), magnitude),
            SmallestBudget(bare.path(), magnitude) + predictor_bytes - 8192);
  // Dense, the file takes what the other takes, but for its directory.
  const EngineOptions dense = Options(Selector::kOff);
  EXPECT_LT(SmallestBudget(model.path(), dense),
            SmallestBudget(bare.path(), dense) + predictor_bytes / 2);
}

Status Refusal(const std::string& path, Selector selector, double fraction) {
  auto file = ModelFile::Open(path);
  EXPECT_TRUE(file);
  const auto engine =
      Engine::Create(std::move(*file), Options(selector, fraction));
  EXPECT_FALSE(engine) << SelectorName(selector);
  if (engine) return OkStatus();
  EXPECT_EQ(engine.error().code(), StatusCode::kInvalidArgument);
  return Status(engine.error());
}

void ExpectSays(const Status& status, const std::string& what) {
  EXPECT_NE(status.message().find(what), std::string::npos) << status.message();
}

TEST(PredictedFfnRefusalTest, SaysWhatTheFileHasAndHowToMakeAnother) {
  const PredictedModel low_bit(
      Model("relu", Encoding::kBf16, PredictorKind::kLowBit));
  const Status low_rank = Refusal(low_bit.path(), Selector::kLowRank, 0);
  ExpectSays(low_rank, "has a low-bit predictor");
  ExpectSays(low_rank,
             "flashelm calibrate -m ORIGINAL -f TEXT -o OUT.felm "
             "--selector low-rank");
  const Status gate = Refusal(low_bit.path(), Selector::kGate, 0);
  ExpectSays(gate, "has a low-bit predictor and its gates in the bundles");
  ExpectSays(gate, "flashelm calibrate -m ORIGINAL -f TEXT -o OUT.felm");

  PredictedModelOptions options;
  options.has_predictors = false;
  options.split_gate = true;
  const PredictedModel split(options);
  ExpectSays(Refusal(split.path(), Selector::kLowBit, 0),
             "has no predictor and its gates apart");
  ExpectSays(Refusal(split.uncalibrated_path(), Selector::kMagnitude, 0.5),
             "not calibrated");
  ExpectSays(Refusal(split.path(), Selector::kRandom, 0),
             "--sparsity random:0.5");
  ExpectSays(Refusal(split.path(), Selector::kMagnitude, 0),
             "--sparsity magnitude:0.5");
}

TEST(PredictedFfnRefusalTest, SwigluNeedsAFraction) {
  const PredictedModel model(
      Model("swish", Encoding::kBf16, PredictorKind::kLowBit));
  ExpectSays(Refusal(model.path(), Selector::kLowBit, 0),
             "--sparsity low-bit:0.5");
}

}  // namespace
}  // namespace flashelm::test
