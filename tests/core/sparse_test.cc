// Sparse decoding: what is computed depends on weights and tokens alone, and
// with ReLU it is what the dense model computes.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/calibrate.h"
#include "core/convert/calibrated_file.h"
#include "storage/pread_reader.h"
#include "tests/core/golden.h"
#include "tests/core/test_model.h"
#include "tests/storage/faulty_reader.h"

namespace flashelm::test {
namespace {

EngineOptions Options(uint64_t budget = kUnlimitedBytes, uint32_t threads = 2,
                      uint32_t batch = 64) {
  EngineOptions options;
  options.plan.budget_bytes = budget;
  options.plan.num_threads = threads;
  options.plan.max_batch = batch;
  options.plan.all_logits = true;
  options.plan.whole_process = false;
  return options;
}

EngineOptions Sparse(EngineOptions options, double kept_fraction = 0) {
  options.plan.sparsity.selector = Selector::kGate;
  options.plan.sparsity.kept_fraction = kept_fraction;
  options.plan.sparsity.reads = NeuronReads::kSingle;
  return options;
}

#ifdef FLASHELM_SANITIZED
constexpr bool kIsSanitized = true;
#else
constexpr bool kIsSanitized = false;
#endif

#ifdef FLASHELM_THREAD_SANITIZED
constexpr bool kIsThreadSanitized = true;
#else
constexpr bool kIsThreadSanitized = false;
#endif

// Whether a test goes through a model of that kept fraction: under the thread
// sanitizer one for each encoding, as threads do the same with both.
bool IsTested(Encoding weights, double kept_fraction) {
  return !kIsThreadSanitized || IsGrouped(weights) == (kept_fraction > 0);
}

// Which layers' neurons are streamed.
enum class Streamed { kNone, kSome, kAll };

EngineOptions Streaming(EngineOptions options, Streamed streamed) {
  options.plan.sparsity.reads =
      streamed == Streamed::kNone   ? NeuronReads::kSingle
      : streamed == Streamed::kSome ? NeuronReads::kAuto
                                    : NeuronReads::kStreamed;
  options.plan.read_cost.request_ns = 1e3;
  return options;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// A model, and the same with its gates split off, in another order. It says of
// its first layer that tokens use all neurons, and of the others that they use
// hardly any.
class CalibratedModel {
 public:
  CalibratedModel(const std::string& sample, Encoding weights,
                  bool rows = false)
      : model_(SampleModelDirectory(sample), weights, rows),
        path_(directory_.path() + "/calibrated.felm") {
    auto in = ModelFile::Open(model_.path());
    EXPECT_TRUE(in);
    Running running = Start(model_.path(), Options());
    const ModelConfig& config = running.engine->config();
    const std::vector<TokenId> tokens = SomeTokens(500, config.vocab_size);
    MemoryBudget budget(ActivationRecorder::NumBytes(config));
    auto recorder = ActivationRecorder::Create(config, tokens.size(), budget);
    EXPECT_TRUE(recorder);
    const CancelToken never;
    EXPECT_TRUE(RecordActivations(*running.session, tokens, config.bos_id, 128,
                                  never, {},
                                  std::vector<FfnObserver*>{recorder->get()})
                    .ok());
    CalibratedFileOptions options;
    for (uint32_t i = 0; i < config.num_layers(); ++i) {
      options.neuron_order.push_back(
          OrderNeurons(**recorder, i, NeuronOrder::kCoActivation));
      options.frequency.emplace_back(config.layers[i].ffn_dim,
                                     i == 0 ? 1.0f : 0.001f);
    }
    const auto written = WriteCalibratedFile(*in, path_, options);
    EXPECT_TRUE(written) << written.error().message();
  }

  const std::string& path() const { return path_; }
  const std::string& uncalibrated_path() const { return model_.path(); }

 private:
  ConvertedModel model_;
  TempDirectory directory_;
  std::string path_;
};

class SparseTest : public testing::TestWithParam<Encoding> {};

double LargestDifference(const std::vector<float>& a,
                         const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    largest = std::max<double>(largest, std::abs(a[i] - b[i]));
  }
  return largest;
}

// To the bit, unless the dense FFN rounds activations and the sparse one not.
void ExpectTheDenseModel(Encoding weights, const std::vector<float>& sparse,
                         const std::vector<float>& dense) {
  if (IsGrouped(weights)) {
    EXPECT_LT(LargestDifference(sparse, dense), 0.5);
  } else {
    EXPECT_TRUE(SameBits(sparse, dense));
  }
}

// With all neurons: gates of their own, bundles of two parts.
TEST_P(SparseTest, TheDenseModelIsTheSameHoweverItRuns) {
  const CalibratedModel model("tiny-stories", GetParam());
  const uint64_t least =
      SmallestBudget(model.path(), Options(kUnlimitedBytes, 2, 1));
  std::vector<float> expected;
  for (const uint64_t budget : {kUnlimitedBytes, least}) {
    for (const uint32_t batch : {1u, 32u}) {
      SCOPED_TRACE(testing::Message() << "batch " << batch << ", " << budget);
      Running running = Start(model.path(), Options(budget, 2, batch));
      ASSERT_NE(running.session, nullptr);
      const uint32_t vocab_size = running.engine->config().vocab_size;
      const auto logits =
          AllLogits(*running.session, SomeTokens(41, vocab_size), vocab_size);
      if (expected.empty()) expected = logits;
      EXPECT_TRUE(SameBits(logits, expected));
    }
  }
}

TEST_P(SparseTest, ReluIsTheDenseModel) {
  const CalibratedModel model("tiny-stories-relu", GetParam());
  Running dense = Start(model.path(), Options());
  ASSERT_NE(dense.session, nullptr);
  const uint32_t vocab_size = dense.engine->config().vocab_size;
  const std::vector<TokenId> tokens = SomeTokens(41, vocab_size);
  std::vector<float> expected;
  for (const uint32_t threads : {1u, 2u}) {
    for (const uint32_t batch : {1u, 32u}) {
      const uint64_t least = SmallestBudget(
          model.path(), Sparse(Options(kUnlimitedBytes, threads, batch)));
      for (const uint64_t budget :
           {least, least + (2 << 20), kUnlimitedBytes}) {
        SCOPED_TRACE(testing::Message() << threads << " threads, batch "
                                        << batch << ", budget " << budget);
        Running sparse =
            Start(model.path(), Sparse(Options(budget, threads, batch)));
        ASSERT_NE(sparse.session, nullptr);
        const auto logits = AllLogits(*sparse.session, tokens, vocab_size);
        if (expected.empty()) {
          ExpectTheDenseModel(GetParam(), logits,
                              AllLogits(*dense.session, tokens, vocab_size));
          expected = logits;
        }
        EXPECT_TRUE(SameBits(logits, expected));
        const SparsityStats stats = sparse.session->stats().sparsity;
        EXPECT_GT(stats.num_kept, 0u);
        EXPECT_LT(stats.num_kept, stats.num_neurons / 2);
      }
    }
  }
}

TEST_P(SparseTest, WhatIsLeftOutDependsOnTheTokensAlone) {
  const CalibratedModel model("tiny-stories", GetParam());
  std::vector<float> expected;
  for (const uint32_t chunk : {64u, 1u, 7u}) {
    for (const uint64_t budget : {uint64_t{0}, kUnlimitedBytes}) {
      EngineOptions options = Sparse(Options(budget, 2, chunk), 0.5);
      if (budget == 0) {
        options.plan.budget_bytes = kUnlimitedBytes;
        options.plan.budget_bytes = SmallestBudget(model.path(), options);
      }
      Running sparse = Start(model.path(), options);
      ASSERT_NE(sparse.session, nullptr);
      const uint32_t vocab_size = sparse.engine->config().vocab_size;
      const std::vector<TokenId> tokens = SomeTokens(70, vocab_size);
      const auto logits = AllLogits(*sparse.session, tokens, vocab_size);
      if (expected.empty()) expected = logits;
      EXPECT_TRUE(SameBits(logits, expected)) << chunk << " " << budget;
      const SparsityStats stats = sparse.session->stats().sparsity;
      EXPECT_NEAR(static_cast<double>(stats.num_kept) /
                      static_cast<double>(stats.num_neurons),
                  0.5, 0.01);
      EXPECT_GT(stats.max_skipped, 0);
    }
  }
}

TEST_P(SparseTest, KeepingAllIsTheDenseModel) {
  const CalibratedModel model("tiny-stories", GetParam());
  Running dense = Start(model.path(), Options());
  Running sparse = Start(model.path(), Sparse(Options(), 1));
  ASSERT_NE(sparse.session, nullptr);
  const uint32_t vocab_size = dense.engine->config().vocab_size;
  const std::vector<TokenId> tokens = SomeTokens(40, vocab_size);
  ExpectTheDenseModel(GetParam(),
                      AllLogits(*sparse.session, tokens, vocab_size),
                      AllLogits(*dense.session, tokens, vocab_size));
}

// Rows, merging and the window say how bytes come, not which.
TEST_P(SparseTest, RowsGiveTheBitsOfBundles) {
  for (const double kept_fraction : {0.0, 0.5}) {
    if (!IsTested(GetParam(), kept_fraction)) continue;
    const std::string sample =
        kept_fraction > 0 ? "tiny-stories" : "tiny-stories-relu";
    const CalibratedModel bundles(sample, GetParam());
    const CalibratedModel rows(sample, GetParam(), /*rows=*/true);
    std::vector<float> expected;
    for (const bool has_rows : {false, true}) {
      const std::string& path = has_rows ? rows.path() : bundles.path();
      for (const uint32_t batch : {1u, 32u}) {
        for (const uint32_t window : {0u, 3u}) {
          SCOPED_TRACE(testing::Message() << sample << has_rows << ", batch "
                                          << batch << ", window " << window);
          EngineOptions options =
              Sparse(Options(kUnlimitedBytes, 2, batch), kept_fraction);
          options.plan.sparsity.window_tokens = window;
          options.plan.sparsity.merges_reads = window != 0;
          Running sparse = Start(path, options);
          ASSERT_NE(sparse.session, nullptr);
          EXPECT_EQ(sparse.engine->model().has_rows(), has_rows);
          const uint32_t vocab_size = sparse.engine->config().vocab_size;
          const std::vector<TokenId> tokens = SomeTokens(40, vocab_size);
          const auto logits = AllLogits(*sparse.session, tokens, vocab_size);
          if (expected.empty()) expected = logits;
          EXPECT_TRUE(SameBits(logits, expected));
          const BundleStats stats = sparse.session->stats().bundles;
          if (window == 0) {
            EXPECT_EQ(stats.num_hits, 0u);
            EXPECT_EQ(stats.num_reads, stats.num_wanted);
          } else {
            EXPECT_GT(stats.num_hits, 0u);
            EXPECT_LT(stats.num_reads, stats.num_misses);
            EXPECT_GT(stats.memory_ns, 0u);
          }
        }
      }
    }
  }
}

// So do layers that are streamed.
TEST_P(SparseTest, StreamedLayersGiveTheBitsOfSingleReads) {
  for (const double kept_fraction : {0.0, 0.5}) {
    if (!IsTested(GetParam(), kept_fraction)) continue;
    for (const bool rows : {false, true}) {
      const bool is_relu = kept_fraction == 0;
      const CalibratedModel model(
          is_relu ? "tiny-stories-relu" : "tiny-stories", GetParam(), rows);
      std::vector<float> expected;
      for (const Streamed streamed :
           {Streamed::kNone, Streamed::kSome, Streamed::kAll}) {
        // Of SwiGLU models, all layers are used alike. Of few bits, so small a
        // model is smaller than what single reads need besides, as it is beside
        // a sanitizer's stacks.
        if (streamed == Streamed::kSome &&
            (!is_relu || IsGrouped(GetParam()) || kIsSanitized))
          continue;
        for (const uint32_t batch : {1u, 32u}) {
          SCOPED_TRACE(testing::Message()
                       << kept_fraction << rows << ", streamed "
                       << static_cast<int>(streamed) << ", batch " << batch);
          EngineOptions options =
              Sparse(Options(kUnlimitedBytes, 2, batch), kept_fraction);
          // What single reads need, too.
          const uint64_t least = SmallestBudget(model.path(), options);
          options = Streaming(options, streamed);
          options.plan.budget_bytes = least + (uint64_t{256} << 10);
          Running sparse = Start(model.path(), options);
          ASSERT_NE(sparse.session, nullptr);
          const std::vector<bool>& layers =
              sparse.engine->plan().streamed_layers;
          const auto num_streamed = std::ranges::count(layers, true);
          EXPECT_EQ(num_streamed, streamed == Streamed::kNone   ? 0
                                  : streamed == Streamed::kSome ? 1
                                                                : 6);
          const uint32_t vocab_size = sparse.engine->config().vocab_size;
          const auto logits = AllLogits(*sparse.session,
                                        SomeTokens(40, vocab_size), vocab_size);
          if (expected.empty()) expected = logits;
          EXPECT_TRUE(SameBits(logits, expected));
          const SessionStats stats = sparse.session->stats();
          EXPECT_GT(stats.sparsity.num_kept, 0u);
          EXPECT_LT(stats.sparsity.num_kept, stats.sparsity.num_neurons);
          EXPECT_EQ(stats.bundles.num_wanted > 0, streamed != Streamed::kAll);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Encodings, SparseTest,
                         testing::ValuesIn(TestedEncodings()),
                         [](const auto& test) {
                           return std::string(EncodingName(test.param));
                         });

TEST(SparseReluTest, GivesTheGoldenText) {
  const CalibratedModel model("tiny-stories-relu", Encoding::kBf16);
  Running sparse = Start(model.path(), Sparse(Options()));
  ASSERT_NE(sparse.session, nullptr);
  const uint32_t vocab_size = sparse.engine->config().vocab_size;
  for (const GoldenPrompt& prompt : ReadGolden("tiny-stories-relu").prompts) {
    ASSERT_TRUE(sparse.session->Truncate(0).ok());
    const auto logits = AllLogits(*sparse.session, prompt.ids, vocab_size);
    EXPECT_LT(LargestDifference(logits, prompt.logits), 1e-4);
    ASSERT_TRUE(sparse.session->Truncate(0).ok());
    EXPECT_EQ(GreedyIds(*sparse.session, prompt.ids, prompt.greedy_ids.size(),
                        vocab_size),
              prompt.greedy_ids);
  }
}

class SparseFaultTest : public testing::TestWithParam<bool> {};

TEST_P(SparseFaultTest, AFailedReadEndsTheCallAndTheNextOneWorks) {
  const bool streams = GetParam();
  const CalibratedModel model("tiny-stories-relu", Encoding::kBf16);
  const CancelToken never;
  std::vector<TokenId> tokens;
  std::vector<float> expected;
  int num_failed_runs = 0;
  for (const Fault fault :
       {Fault::kIoError, Fault::kShort, Fault::kEmpty, Fault::kFlipByte}) {
    for (const uint64_t read : {0, 1, 7, 20}) {
      SCOPED_TRACE(testing::Message()
                   << "read " << read << ", fault " << static_cast<int>(fault));
      // No room for a cache, so that bundles are read again and again.
      EngineOptions options =
          Streaming(Sparse(Options(kUnlimitedBytes, 2, 1)),
                    streams ? Streamed::kAll : Streamed::kNone);
      options.plan.budget_bytes = SmallestBudget(model.path(), options);
      int num_readers = 0;
      options.make_reader =
          [&](std::shared_ptr<const RandomAccessFile> file,
              uint32_t depth) -> Result<std::unique_ptr<AsyncReader>> {
        FLASHELM_ASSIGN_OR_RETURN(
            std::unique_ptr<AsyncReader> inner,
            PreadReader::Create(std::move(file), depth, 2));
        // The second one reads bundles; the first one loads, and then streams.
        if (++num_readers != (streams ? 1 : 2)) return inner;
        constexpr uint64_t kLoaded = 40;
        return std::make_unique<OwningFaultyReader>(
            std::move(inner), FaultAt{streams ? kLoaded + read : read, fault});
      };
      Running sparse = Start(model.path(), options);
      ASSERT_NE(sparse.session, nullptr);
      const uint32_t vocab_size = sparse.engine->config().vocab_size;
      if (tokens.empty()) tokens = SomeTokens(6, vocab_size);
      const auto last = static_cast<uint32_t>(tokens.size() - 1);
      const Status status = sparse.session->Run(tokens, {&last, 1}, never);
      if (!status.ok()) {
        ++num_failed_runs;
        EXPECT_EQ(status.code(), StatusCode::kUnavailable);
        EXPECT_NE(status.message().find(model.path()), std::string::npos);
        EXPECT_EQ(sparse.session->position(), 0u);
        ASSERT_TRUE(sparse.session->Run(tokens, {&last, 1}, never).ok());
      }
      const auto logits = sparse.session->logits(0);
      const std::vector<float> got(logits.begin(), logits.end());
      if (expected.empty()) expected = got;
      EXPECT_TRUE(SameBits(got, expected));
    }
  }
  // A wrong bit may be in a page that belongs to others.
  EXPECT_GE(num_failed_runs, 12);
}

INSTANTIATE_TEST_SUITE_P(Reads, SparseFaultTest, testing::Bool(),
                         [](const auto& test) {
                           return test.param ? "Streamed" : "OneByOne";
                         });

TEST(SparseRefusalTest, SaysHowToCalibrate) {
  const ConvertedModel model(SampleModelDirectory("tiny-stories-relu"),
                             Encoding::kBf16);
  auto file = ModelFile::Open(model.path());
  ASSERT_TRUE(file);
  const auto engine = Engine::Create(std::move(*file), Sparse(Options()));
  ASSERT_FALSE(engine);
  EXPECT_EQ(engine.error().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(
      engine.error().message().find("flashelm calibrate -m " + model.path()),
      std::string::npos);
}

TEST(SparseRefusalTest, LosslessNeedsRelu) {
  const CalibratedModel model("tiny-stories", Encoding::kBf16);
  auto file = ModelFile::Open(model.path());
  ASSERT_TRUE(file);
  const auto engine = Engine::Create(std::move(*file), Sparse(Options()));
  ASSERT_FALSE(engine);
  EXPECT_EQ(engine.error().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace flashelm::test
