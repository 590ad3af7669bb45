#include "core/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <vector>

namespace flashelm {
namespace {

SamplerOptions Everything(float temperature) {
  SamplerOptions options;
  options.temperature = temperature;
  options.top_k = 0;
  options.top_p = 1.0f;
  options.min_p = 0.0f;
  options.seed = 42;
  return options;
}

std::map<TokenId, int> Draw(const SamplerOptions& options,
                            const std::vector<float>& logits, int count) {
  Sampler sampler(options, static_cast<uint32_t>(logits.size()));
  std::map<TokenId, int> drawn;
  for (int i = 0; i < count; ++i) ++drawn[sampler.Sample(logits)];
  return drawn;
}

TEST(SamplerTest, TemperatureZeroTakesTheBestAndTheLowerIdOnTies) {
  Sampler sampler(SamplerOptions{}, 4);
  EXPECT_EQ(sampler.Sample(std::vector<float>{1, 3, 3, 2}), 1u);
}

TEST(SamplerTest, DrawsInProportionToTheSoftmax) {
  constexpr int kDraws = 40000;
  const std::vector<float> logits = {0.0f, std::log(2.0f), std::log(5.0f)};
  const auto drawn = Draw(Everything(1.0f), logits, kDraws);
  // Six standard deviations of a binomial count.
  const double expected[] = {1.0 / 8, 2.0 / 8, 5.0 / 8};
  for (TokenId id = 0; id < 3; ++id) {
    const double p = expected[id];
    EXPECT_NEAR(drawn.at(id), kDraws * p, 6 * std::sqrt(kDraws * p * (1 - p)));
  }
}

TEST(SamplerTest, TemperatureSharpensAfterTheCuts) {
  const std::vector<float> logits = {0.0f, 1.0f};
  const auto cold = Draw(Everything(0.1f), logits, 1000);
  EXPECT_GT(cold.at(1), 990);
  // Were it applied first, the second token would be all of the top 70 %.
  SamplerOptions options = Everything(10.0f);
  options.top_p = 0.7f;  // softmax: 0.27, 0.73
  EXPECT_EQ(Draw(options, logits, 1000).size(), 1u);
}

TEST(SamplerTest, TopKTopPAndMinPCutTheTail) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f),
                                     std::log(0.15f), std::log(0.05f)};
  SamplerOptions top_k = Everything(1.0f);
  top_k.top_k = 2;
  SamplerOptions top_p = Everything(1.0f);
  top_p.top_p = 0.79f;  // The first two reach it.
  SamplerOptions min_p = Everything(1.0f);
  min_p.min_p = 0.4f;  // 0.4 of 0.5 is 0.2.
  for (const SamplerOptions& options : {top_k, top_p, min_p}) {
    const auto drawn = Draw(options, logits, 2000);
    EXPECT_EQ(drawn.size(), 2u);
    EXPECT_TRUE(drawn.count(0) && drawn.count(1));
  }
}

TEST(SamplerTest, PenaltyFallsOnEveryTokenOfTheContextOnce) {
  SamplerOptions options;
  options.repeat_penalty = 2.0f;
  Sampler sampler(options, 3);
  const std::vector<float> logits = {3.0f, 2.0f, -1.0f};
  EXPECT_EQ(sampler.Sample(logits), 0u);
  sampler.Accept(0);
  sampler.Accept(0);  // Twice: still 3 / 2.
  EXPECT_EQ(sampler.Sample(logits), 1u);
  sampler.Accept(1);  // 1.5, 1, -1.
  EXPECT_EQ(sampler.Sample(logits), 0u);
  // Negative logits are multiplied: less likely, not more.
  Sampler negative(options, 2);
  negative.Accept(0);
  EXPECT_EQ(negative.Sample(std::vector<float>{-1.0f, -1.5f}), 1u);
}

TEST(SamplerTest, TheSameSeedDrawsTheSame) {
  const std::vector<float> logits(50, 0.0f);
  EXPECT_EQ(Draw(Everything(1.0f), logits, 100),
            Draw(Everything(1.0f), logits, 100));
  SamplerOptions other = Everything(1.0f);
  other.seed = 43;
  EXPECT_NE(Draw(other, logits, 100), Draw(Everything(1.0f), logits, 100));
}

TEST(SamplerTest, SurvivesLogitsThatAreNoNumbers) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  for (const float temperature : {0.0f, 1.0f}) {
    SamplerOptions options;
    options.temperature = temperature;
    for (const std::vector<float>& logits :
         {std::vector<float>{nan, 1.0f, nan}, std::vector<float>{nan, nan},
          std::vector<float>{inf, -inf, nan}}) {
      Sampler sampler(options, static_cast<uint32_t>(logits.size()));
      EXPECT_LT(sampler.Sample(logits), logits.size());
    }
  }
}

TEST(SamplerOptionsTest, AreCheckedByName) {
  struct Case {
    const char* name;
    void (*change)(SamplerOptions&);
  };
  for (const Case& c : {
           Case{"temperature", [](auto& o) { o.temperature = -1; }},
           Case{"temperature",
                [](auto& o) {
                  o.temperature = std::numeric_limits<float>::quiet_NaN();
                }},
           Case{"top-p", [](auto& o) { o.top_p = 1.5f; }},
           Case{"min-p", [](auto& o) { o.min_p = -0.1f; }},
           Case{"repeat penalty", [](auto& o) { o.repeat_penalty = 0; }},
       }) {
    SamplerOptions options;
    EXPECT_TRUE(CheckSamplerOptions(options).ok());
    c.change(options);
    const Status status = CheckSamplerOptions(options);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(status.message().rfind(c.name, 0), 0u) << status.message();
  }
}

}  // namespace
}  // namespace flashelm
