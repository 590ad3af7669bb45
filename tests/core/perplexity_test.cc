#include "core/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/core/golden.h"
#include "tests/core/test_model.h"

namespace flashelm::test {
namespace {

TEST(PerplexityTest, OfUniformLogitsIsTheirNumber) {
  const std::vector<float> logits(37, 2.5f);
  EXPECT_NEAR(NegativeLogLikelihood(logits, 3), std::log(37.0), 1e-12);
}

TEST(PerplexityTest, DoesNotOverflowOnLargeLogits) {
  const std::vector<float> logits = {1e4f, 0.0f, -1e4f};
  EXPECT_NEAR(NegativeLogLikelihood(logits, 0), 0.0, 1e-12);
  EXPECT_NEAR(NegativeLogLikelihood(logits, 2), 2e4, 1e-6);
}

TEST(PerplexityTest, DivergenceIsThatOfTheDefinition) {
  // p = (1/2, 1/4, 1/4) and q = (1/4, 1/2, 1/4), shifted by any constant.
  const float ln2 = std::log(2.0f);
  const std::vector<float> p = {ln2, 0, 0};
  const std::vector<float> q = {7, 7 + ln2, 7};
  EXPECT_NEAR(KlDivergence(p, q), 0.5 * std::log(2.0) - 0.25 * std::log(2.0),
              1e-6);
  EXPECT_NEAR(KlDivergence(p, p), 0, 1e-12);
  EXPECT_GT(KlDivergence(q, p), 0);
}

TEST(PerplexityTest, ComparesWithAReference) {
  const ConvertedModel exact(CheckpointOptions{}, Encoding::kF32);
  const ConvertedModel rounded(CheckpointOptions{}, Encoding::kBf16);
  EngineOptions options;
  options.plan.all_logits = true;
  Running reference = Start(exact.path(), options);
  options.plan.max_batch = 5;  // Calls of different sizes.
  Running model = Start(rounded.path(), options);
  ASSERT_NE(reference.session, nullptr);
  ASSERT_NE(model.session, nullptr);
  const CancelToken never;
  const std::vector<TokenId> tokens =
      SomeTokens(100, reference.engine->config().vocab_size);
  const auto alone =
      MeasurePerplexity(*model.session, tokens, 1, 32, never, {});
  const auto compared = MeasurePerplexity(*model.session, tokens, 1, 32, never,
                                          {}, reference.session.get());
  ASSERT_TRUE(alone) << alone.error().message();
  ASSERT_TRUE(compared) << compared.error().message();
  EXPECT_FALSE(alone->divergence);
  ASSERT_TRUE(compared->divergence);
  EXPECT_EQ(alone->mean_nll, compared->mean_nll);
  EXPECT_GT(compared->divergence->mean_kl, 0);
  EXPECT_LT(compared->divergence->mean_kl, 0.01);
  EXPECT_GT(compared->divergence->same_top, 0.5);
  const auto of_reference =
      MeasurePerplexity(*reference.session, tokens, 1, 32, never, {});
  ASSERT_TRUE(of_reference) << of_reference.error().message();
  EXPECT_EQ(compared->divergence->reference_mean_nll, of_reference->mean_nll);
  EXPECT_EQ(compared->divergence->reference_perplexity,
            of_reference->perplexity);
  EXPECT_NE(of_reference->perplexity, compared->perplexity);
}

TEST(PerplexityTest, RefusesNoTextAndImpossibleWindows) {
  const ConvertedModel model(CheckpointOptions{}, Encoding::kF32);
  EngineOptions options;
  options.plan.all_logits = true;
  Running running = Start(model.path(), options);
  ASSERT_NE(running.session, nullptr);
  const CancelToken never;
  const std::vector<TokenId> tokens = {5, 6, 7};
  for (const uint32_t n_ctx : {0u, 1u, 129u}) {
    EXPECT_EQ(MeasurePerplexity(*running.session, tokens, 1, n_ctx, never, {})
                  .error()
                  .code(),
              StatusCode::kInvalidArgument)
        << n_ctx;
  }
  EXPECT_EQ(
      MeasurePerplexity(*running.session, {}, 1, 16, never, {}).error().code(),
      StatusCode::kInvalidArgument);
}

// Scoring whole texts takes minutes under a sanitizer and hours in an emulator,
// where it would show nothing new: the bits that kernels give are tested apart.
TEST(PerplexityGoldenTest, OfBothTextsIsThatOfTheReference) {
#ifdef FLASHELM_FOREIGN_MEMORY
  GTEST_SKIP() << "too slow under a sanitizer or in an emulator";
#endif
  for (const char* name : {"tiny-stories", "tiny-stories-relu"}) {
    const ConvertedModel model(SampleModelDirectory(name), Encoding::kBf16);
    EngineOptions options;
    options.plan.all_logits = true;
    options.plan.num_threads = 2;
    Running running = Start(model.path(), options);
    ASSERT_NE(running.session, nullptr);
    for (const GoldenPerplexity& golden : ReadGolden(name).perplexity) {
      SCOPED_TRACE(std::string(name) + " on " + golden.file);
      const std::vector<TokenId> tokens =
          TokensOfText(*running.engine, golden.file);
      const CancelToken never;
      const auto result = MeasurePerplexity(*running.session, tokens,
                                            running.engine->config().bos_id,
                                            golden.n_ctx, never, {});
      ASSERT_TRUE(result) << result.error().message();
      EXPECT_EQ(result->num_tokens, golden.n_tokens);
      EXPECT_NEAR(result->perplexity, golden.perplexity,
                  0.0005 * golden.perplexity);
      EXPECT_NEAR(result->mean_nll, golden.mean_nll, 0.0005);
      EXPECT_NEAR(result->stderr_nll, golden.stderr_nll,
                  0.001 * golden.stderr_nll);
    }
  }
}

// Codes of eight bits for weights and activations together.
TEST(PerplexityGoldenTest, OfQ8IsWithinAThousandthOfTheReference) {
#ifdef FLASHELM_FOREIGN_MEMORY
  GTEST_SKIP() << "too slow under a sanitizer or in an emulator";
#endif
  const ConvertedModel model(SampleModelDirectory("tiny-stories"),
                             Encoding::kQ8);
  EngineOptions options;
  options.plan.all_logits = true;
  options.plan.num_threads = 2;
  Running running = Start(model.path(), options);
  ASSERT_NE(running.session, nullptr);
  for (const GoldenPerplexity& golden : ReadGolden("tiny-stories").perplexity) {
    SCOPED_TRACE(golden.file);
    const CancelToken never;
    const auto result = MeasurePerplexity(
        *running.session, TokensOfText(*running.engine, golden.file),
        running.engine->config().bos_id, golden.n_ctx, never, {});
    ASSERT_TRUE(result) << result.error().message();
    EXPECT_NEAR(result->perplexity, golden.perplexity,
                0.001 * golden.perplexity);
  }
}

}  // namespace
}  // namespace flashelm::test
