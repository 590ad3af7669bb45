// The engine against a forward pass written a second time, on checkpoints of
// other dimensions than the sample models'.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>

#include "core/simd.h"
#include "kernels/float_types.h"
#include "tests/core/reference_forward.h"
#include "tests/core/test_model.h"

namespace flashelm::test {
namespace {

struct ReferenceCase {
  const char* name;
  uint32_t head_dim;
  uint32_t ffn_dim_divisor;
  const char* activation;
  const char* dtype;
  Encoding encoding;
};

class ReferenceTest : public testing::TestWithParam<ReferenceCase> {};

// The same tensors in F32, which the second implementation takes.
std::vector<RawTensor> Widened(std::vector<RawTensor> tensors) {
  for (RawTensor& tensor : tensors) {
    if (tensor.dtype != "BF16") continue;
    std::vector<float> values(tensor.bytes.size() / sizeof(Bf16));
    for (size_t i = 0; i < values.size(); ++i) {
      Bf16 bits;
      std::memcpy(&bits, tensor.bytes.data() + i * sizeof(bits), sizeof(bits));
      values[i] = F32FromBf16(bits);
    }
    tensor.dtype = "F32";
    tensor.bytes = EncodeValues(values, "F32");
  }
  return tensors;
}

// Of all elements, what the engine's logits are farthest from.
double WorstDifference(const std::vector<float>& logits,
                       const Eigen::MatrixXd& expected) {
  double worst = 0;
  for (Eigen::Index t = 0; t < expected.rows(); ++t) {
    for (Eigen::Index v = 0; v < expected.cols(); ++v) {
      const auto at = static_cast<size_t>(t * expected.cols() + v);
      worst = std::max(worst, std::abs(logits[at] - expected(t, v)));
    }
  }
  return worst;
}

// Streamed, and resident, where neurons lie by parts; on every SIMD target.
TEST_P(ReferenceTest, LogitsMatchASecondImplementationInDoublePrecision) {
  CheckpointOptions checkpoint;
  checkpoint.num_layers = 5;
  checkpoint.model_dim = 128;
  checkpoint.head_dim = GetParam().head_dim;
  checkpoint.ffn_dim_divisor = GetParam().ffn_dim_divisor;
  checkpoint.activation = GetParam().activation;
  checkpoint.dtype = GetParam().dtype;
  checkpoint.num_shards = 3;
  const ConvertedModel model(checkpoint, GetParam().encoding);
  const std::vector<TokenId> tokens = SomeTokens(70, checkpoint.vocab_size);
  const Eigen::MatrixXd expected = ReferenceLogits(
      MakeHfConfig(checkpoint), Widened(MakeTensors(checkpoint)), tokens);
  ASSERT_EQ(expected.rows(), static_cast<Eigen::Index>(tokens.size()));
  ASSERT_EQ(expected.cols(), static_cast<Eigen::Index>(checkpoint.vocab_size));
  const double scale = expected.cwiseAbs().maxCoeff();
  EXPECT_GT(scale, 1.0);

  EngineOptions options;
  options.plan.all_logits = true;
  const uint64_t least = SmallestBudget(model.path(), options);
  std::vector<std::string_view> targets = SimdTargets();
#ifdef FLASHELM_SANITIZED
  targets.resize(1);  // The kernels of all are tested there by themselves.
#endif
  for (const std::string_view target : targets) {
    ASSERT_TRUE(UseSimdTarget(target));
    for (const uint64_t budget : {least, kUnlimitedBytes}) {
      SCOPED_TRACE(testing::Message() << target << ", budget " << budget);
      options.plan.budget_bytes = budget;
      Running running = Start(model.path(), options);
      ASSERT_NE(running.session, nullptr);
      EXPECT_EQ(running.engine->plan().residency.planar.empty(),
                budget == least);
      const std::vector<float> logits =
          AllLogits(*running.session, tokens, checkpoint.vocab_size);
      ASSERT_EQ(logits.size(), tokens.size() * checkpoint.vocab_size);
      const double worst = WorstDifference(logits, expected);
      RecordProperty("relative_error", std::to_string(worst / scale));
      EXPECT_LE(worst, 1e-4 * scale);
    }
    UseSimdTarget("");
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, ReferenceTest,
    testing::Values(
        ReferenceCase{"HeadDim64", 64, 64, "swish", "F32", Encoding::kF32},
        ReferenceCase{"HeadDim16", 16, 64, "swish", "F32", Encoding::kF32},
        ReferenceCase{"Relu", 16, 32, "relu", "F32", Encoding::kF32},
        ReferenceCase{"Bf16", 64, 64, "swish", "BF16", Encoding::kBf16}),
    [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace flashelm::test
