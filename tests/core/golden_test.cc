// Logits and greedy text against a float32 reference run of the sample models.

#include "tests/core/golden.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <tuple>

#include "tests/core/test_model.h"

namespace flashelm::test {
namespace {

using Parameter = std::tuple<const char*, Encoding>;

class GoldenTest : public testing::TestWithParam<Parameter> {
 protected:
  GoldenTest()
      : golden_(ReadGolden(std::get<0>(GetParam()))),
        model_(SampleModelDirectory(std::get<0>(GetParam())),
               std::get<1>(GetParam())) {}

  const Golden golden_;
  const ConvertedModel model_;
};

TEST_P(GoldenTest, LogitsAreThoseOfTheReference) {
  // Far above float32 noise, far below what any wrong rule would give: the
  // weights are the reference's own, as bf16 and as f32.
  constexpr float kTolerance = 2e-3f;
  EngineOptions options;
  options.plan.all_logits = true;
  Running running = Start(model_.path(), options);
  ASSERT_NE(running.session, nullptr);
  float worst = 0;
  for (const GoldenPrompt& prompt : golden_.prompts) {
    SCOPED_TRACE(prompt.text);
    ASSERT_TRUE(running.session->Truncate(0).ok());
    const std::vector<float> logits = AllLogits(
        *running.session, prompt.ids, running.engine->config().vocab_size);
    ASSERT_EQ(logits.size(), prompt.logits.size());
    for (size_t i = 0; i < logits.size(); ++i) {
      worst = std::max(worst, std::abs(logits[i] - prompt.logits[i]));
    }
  }
  RecordProperty("max_abs_logit_error", std::to_string(worst));
  EXPECT_LE(worst, kTolerance);
  EXPECT_GT(worst, 0.0f) << "equal to the bit: was anything computed?";
}

TEST_P(GoldenTest, GreedyTextIsThatOfTheReference) {
  Running running = Start(model_.path(), {});
  ASSERT_NE(running.session, nullptr);
  const Tokenizer& tokenizer = running.engine->tokenizer();
  for (const GoldenPrompt& prompt : golden_.prompts) {
    SCOPED_TRACE(prompt.text);
    EXPECT_EQ(tokenizer.Encode(prompt.text, /*add_bos=*/true), prompt.ids);
    ASSERT_TRUE(running.session->Truncate(0).ok());
    std::vector<TokenId> tokens = prompt.ids;
    const std::vector<TokenId> generated =
        GreedyIds(*running.session, tokens, prompt.greedy_ids.size(),
                  running.engine->config().vocab_size);
    EXPECT_EQ(generated, prompt.greedy_ids);
    tokens.insert(tokens.end(), generated.begin(), generated.end());
    EXPECT_EQ(tokenizer.Decode(tokens), prompt.greedy_text);
  }
}

INSTANTIATE_TEST_SUITE_P(
    SampleModels, GoldenTest,
    testing::Combine(testing::Values("tiny-stories", "tiny-stories-relu"),
                     testing::Values(Encoding::kBf16, Encoding::kF32)),
    [](const auto& test) {
      return std::string(std::get<0>(test.param) ==
                                 std::string_view("tiny-stories")
                             ? "Swish"
                             : "Relu") +
             std::string(EncodingName(std::get<1>(test.param)));
    });

}  // namespace
}  // namespace flashelm::test
