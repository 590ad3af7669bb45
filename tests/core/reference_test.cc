// The engine against a forward pass written a second time, on checkpoints of
// other dimensions than the sample models'.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/core/reference_forward.h"
#include "tests/core/test_model.h"

namespace flashelm::test {
namespace {

struct ReferenceCase {
  const char* name;
  uint32_t head_dim;
  uint32_t ffn_dim_divisor;
  const char* activation;
};

class ReferenceTest : public testing::TestWithParam<ReferenceCase> {};

TEST_P(ReferenceTest, LogitsMatchASecondImplementationInDoublePrecision) {
  CheckpointOptions checkpoint;
  checkpoint.num_layers = 5;
  checkpoint.model_dim = 128;
  checkpoint.head_dim = GetParam().head_dim;
  checkpoint.ffn_dim_divisor = GetParam().ffn_dim_divisor;
  checkpoint.activation = GetParam().activation;
  checkpoint.num_shards = 3;
  const ConvertedModel model(checkpoint, Encoding::kF32);
  const std::vector<TokenId> tokens = SomeTokens(70, checkpoint.vocab_size);
  const Eigen::MatrixXd expected = ReferenceLogits(
      MakeHfConfig(checkpoint), MakeTensors(checkpoint), tokens);

  EngineOptions options;
  options.plan.all_logits = true;
  options.plan.budget_bytes = SmallestBudget(model.path(), options);
  Running running = Start(model.path(), options);
  ASSERT_NE(running.session, nullptr);
  const std::vector<float> logits =
      AllLogits(*running.session, tokens, checkpoint.vocab_size);
  ASSERT_EQ(logits.size(), tokens.size() * checkpoint.vocab_size);
  double worst = 0;
  for (size_t t = 0; t < tokens.size(); ++t) {
    for (size_t v = 0; v < checkpoint.vocab_size; ++v) {
      worst = std::max(worst, std::abs(logits[t * checkpoint.vocab_size + v] -
                                       expected(static_cast<Eigen::Index>(t),
                                                static_cast<Eigen::Index>(v))));
    }
  }
  const double scale = expected.cwiseAbs().maxCoeff();
  RecordProperty("relative_error", std::to_string(worst / scale));
  EXPECT_LE(worst, 1e-4 * scale);
  EXPECT_GT(scale, 1.0);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, ReferenceTest,
    testing::Values(ReferenceCase{"HeadDim64", 64, 64, "swish"},
                    ReferenceCase{"HeadDim16", 16, 64, "swish"},
                    ReferenceCase{"Relu", 16, 32, "relu"}),
    [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace flashelm::test
