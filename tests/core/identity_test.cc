// Residency never changes results: budget, threads and chunks leave every bit
// of every logit as it is.

#include <gtest/gtest.h>

#include <cstring>

#include "tests/core/test_model.h"

namespace flashelm::test {
namespace {

CheckpointOptions SmallCheckpoint() {
  CheckpointOptions checkpoint;
  checkpoint.num_layers = 4;
  checkpoint.model_dim = 256;
  checkpoint.head_dim = 32;
  checkpoint.ffn_dim_divisor = 64;
  return checkpoint;
}

// Comparing bytes, not values: -0 and 0 differ.
bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

class IdentityTest : public testing::TestWithParam<Encoding> {
 protected:
  IdentityTest() : model_(SmallCheckpoint(), GetParam()) {
    EngineOptions options = Options(kUnlimitedBytes, 1, 128);
    Running running = Start(model_.path(), options);
    vocab_size_ = running.engine->config().vocab_size;
    // More than one attention block, and no multiple of any chunk.
    tokens_ = SomeTokens(101, vocab_size_);
    expected_ = AllLogits(*running.session, tokens_, vocab_size_);
    const MemoryPlan& plan = running.engine->plan();
    EXPECT_EQ(plan.streamed_bytes_per_token, 0u);
    EXPECT_EQ(plan.residency.planar.size(),
              running.engine->config().num_layers());
  }

  static EngineOptions Options(uint64_t budget, uint32_t threads,
                               uint32_t batch) {
    EngineOptions options;
    options.plan.budget_bytes = budget;
    options.plan.num_threads = threads;
    options.plan.max_batch = batch;
    options.plan.all_logits = true;
    return options;
  }

  const ConvertedModel model_;
  uint32_t vocab_size_ = 0;
  std::vector<TokenId> tokens_;
  std::vector<float> expected_;
};

TEST_P(IdentityTest, AnyBudgetGivesTheSameBits) {
  const uint64_t least =
      SmallestBudget(model_.path(), Options(kUnlimitedBytes, 2, 64));
  Running whole = Start(model_.path(), Options(kUnlimitedBytes, 2, 64));
  const uint64_t most = whole.engine->plan().total_bytes;
  ASSERT_LT(least, most);
  uint64_t streamed_before = UINT64_MAX;
  for (int part = 0; part <= 4; ++part) {
    const uint64_t budget = least + (most - least) * part / 4;
    SCOPED_TRACE(budget);
    Running running = Start(model_.path(), Options(budget, 2, 64));
    ASSERT_NE(running.session, nullptr);
    const MemoryPlan& plan = running.engine->plan();
    const uint64_t streamed = plan.streamed_bytes_per_token;
    if (part == 0) {
      EXPECT_TRUE(plan.residency.planar.empty());
    }
    // What is left when all weights fit goes to the batch.
    EXPECT_TRUE(streamed < streamed_before || streamed == 0)
        << "more memory pins more";
    streamed_before = streamed;
    EXPECT_TRUE(
        SameBits(AllLogits(*running.session, tokens_, vocab_size_), expected_));
  }
}

TEST_P(IdentityTest, AnyReaderGivesTheSameBits) {
  for (const IoBackend io :
       {IoBackend::kUring, IoBackend::kPread, IoBackend::kMmap}) {
    EngineOptions options = Options(kUnlimitedBytes, 2, 64);
    options.plan.io = io;
    options.plan.whole_process = false;
    const uint64_t least = SmallestBudget(model_.path(), options);
    for (const uint64_t budget : {least, kUnlimitedBytes}) {
      options.plan.budget_bytes = budget;
      auto model = ModelFile::Open(model_.path());
      ASSERT_TRUE(model);
      auto engine = Engine::Create(std::move(*model), options);
      if (!engine && io == IoBackend::kUring) {
        // The system or this build has none; the other readers still count.
        EXPECT_EQ(engine.error().code(), StatusCode::kUnimplemented);
        continue;
      }
      ASSERT_TRUE(engine) << engine.error().message();
      SCOPED_TRACE(testing::Message()
                   << (*engine)->io_backend() << " with " << budget);
      EXPECT_EQ((*engine)->budget_enforced(), io != IoBackend::kMmap);
      auto session = Session::Create(**engine);
      ASSERT_TRUE(session);
      EXPECT_TRUE(
          SameBits(AllLogits(**session, tokens_, vocab_size_), expected_));
    }
  }
}

TEST_P(IdentityTest, AnyNumberOfThreadsGivesTheSameBits) {
  const uint64_t least =
      SmallestBudget(model_.path(), Options(kUnlimitedBytes, 4, 16));
  for (uint32_t threads = 1; threads <= 4; ++threads) {
    for (const uint64_t budget : {least, kUnlimitedBytes}) {
      SCOPED_TRACE(testing::Message() << threads << " threads, " << budget);
      Running running = Start(model_.path(), Options(budget, threads, 16));
      ASSERT_NE(running.session, nullptr);
      EXPECT_TRUE(SameBits(AllLogits(*running.session, tokens_, vocab_size_),
                           expected_));
    }
  }
}

TEST_P(IdentityTest, AnyChunkGivesTheSameBits) {
  for (const uint32_t chunk : {1u, 3u, 64u}) {
    SCOPED_TRACE(chunk);
    // By the engine's own batches, and by the caller's calls.
    Running batches = Start(model_.path(), Options(kUnlimitedBytes, 2, chunk));
    ASSERT_NE(batches.session, nullptr);
    EXPECT_TRUE(
        SameBits(AllLogits(*batches.session, tokens_, vocab_size_), expected_));
    Running calls = Start(model_.path(), Options(kUnlimitedBytes, 2, 64));
    ASSERT_NE(calls.session, nullptr);
    EXPECT_TRUE(SameBits(AllLogits(*calls.session, tokens_, vocab_size_, chunk),
                         expected_));
  }
}

TEST_P(IdentityTest, WithABf16KvCacheAsWell) {
  struct Case {
    bool is_resident;
    uint32_t threads;
    uint32_t batch;
  };
  std::vector<float> first;
  for (const Case& c : {Case{true, 1, 128}, Case{true, 3, 1}, Case{false, 2, 7},
                        Case{false, 1, 64}}) {
    SCOPED_TRACE(testing::Message()
                 << (c.is_resident ? "resident, " : "streamed, ") << c.threads
                 << " threads, batches of " << c.batch);
    EngineOptions options = Options(kUnlimitedBytes, c.threads, c.batch);
    options.plan.kv_type = KvType::kBf16;
    if (!c.is_resident) {
      options.plan.budget_bytes = SmallestBudget(model_.path(), options);
    }
    Running running = Start(model_.path(), options);
    ASSERT_NE(running.session, nullptr);
    const std::vector<float> logits =
        AllLogits(*running.session, tokens_, vocab_size_);
    if (first.empty()) first = logits;
    EXPECT_TRUE(SameBits(logits, first));
  }
  EXPECT_FALSE(SameBits(first, expected_)) << "it was not used";
}

TEST_P(IdentityTest, LogitsOfTheLastTokenAloneAreTheSame) {
  EngineOptions options = Options(kUnlimitedBytes, 2, 16);
  options.plan.all_logits = false;
  Running running = Start(model_.path(), options);
  ASSERT_NE(running.session, nullptr);
  const auto last = static_cast<uint32_t>(tokens_.size() - 1);
  const CancelToken never;
  ASSERT_TRUE(running.session->Run(tokens_, {&last, 1}, never).ok());
  const auto logits = running.session->logits(0);
  EXPECT_EQ(std::memcmp(logits.data(), expected_.data() + last * vocab_size_,
                        vocab_size_ * sizeof(float)),
            0);
}

TEST_P(IdentityTest, RowsGiveTheBitsOfBundles) {
  const ConvertedModel rows(SmallCheckpoint(), GetParam(), /*rows=*/true);
  const uint64_t least =
      SmallestBudget(rows.path(), Options(kUnlimitedBytes, 2, 64));
  for (const uint64_t budget : {least, kUnlimitedBytes}) {
    for (const uint32_t batch : {1u, 64u}) {
      SCOPED_TRACE(testing::Message() << budget << ", batch " << batch);
      Running running = Start(rows.path(), Options(budget, 2, batch));
      ASSERT_NE(running.session, nullptr);
      EXPECT_TRUE(running.engine->model().has_rows());
      EXPECT_EQ(running.engine->plan().streamed_bytes_per_token == 0,
                budget == kUnlimitedBytes);
      EXPECT_TRUE(SameBits(AllLogits(*running.session, tokens_, vocab_size_),
                           expected_));
    }
  }
}

TEST_P(IdentityTest, StreamingAllOfItGivesTheSameBits) {
  EngineOptions options = Options(kUnlimitedBytes, 2, 64);
  options.plan.pins_weights = false;
  const uint64_t least = SmallestBudget(model_.path(), options);
  for (const uint64_t budget : {least, kUnlimitedBytes}) {
    options.plan.budget_bytes = budget;
    Running running = Start(model_.path(), options);
    ASSERT_NE(running.session, nullptr);
    const MemoryPlan& plan = running.engine->plan();
    EXPECT_GT(plan.streamed_bytes_per_token, 0.99 * plan.weight_bytes);
    EXPECT_TRUE(
        SameBits(AllLogits(*running.session, tokens_, vocab_size_), expected_));
  }
}

INSTANTIATE_TEST_SUITE_P(Encodings, IdentityTest,
                         testing::ValuesIn(TestedEncodings()),
                         [](const auto& test) {
                           return std::string(EncodingName(test.param));
                         });

}  // namespace
}  // namespace flashelm::test
