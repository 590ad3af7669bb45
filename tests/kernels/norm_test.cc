#include "kernels/norm.h"

#include "kernels/reference.h"
#include "tests/kernels/kernel_test.h"

namespace flashelm {
namespace {

constexpr size_t kNormSizes[] = {0,  1,  3,  16,  17,  31,
                                 32, 33, 64, 128, 129, 3072};
constexpr float kEps = 1e-6f;

std::vector<float> RunRmsNorm(size_t n) {
  const std::vector<float> x = RandomFloats(n, /*seed=*/1, 10);
  const std::vector<float> weight = RandomFloats(n, /*seed=*/2);
  std::vector<float> out(n);
  RmsNorm(x.data(), weight.data(), n, kEps, out.data());
  return out;
}

class NormTest : public TargetTest {};
FLASHELM_TEST_ALL_TARGETS(NormTest);

TEST_P(NormTest, RmsNormStaysWithinTheErrorBoundOfTheReference) {
  for (const size_t n : kNormSizes) {
    for (const float magnitude : {0.0f, 1e-5f, 1.0f, 1e10f}) {
      SCOPED_TRACE(testing::Message() << n << " of magnitude " << magnitude);
      const std::vector<float> x = RandomFloats(n, /*seed=*/1, magnitude);
      const std::vector<float> weight = RandomFloats(n, /*seed=*/2);
      std::vector<double> expected(n);
      reference::RmsNorm(x.data(), weight.data(), n, kEps, expected.data());
      std::vector<float> out(n);
      RmsNorm(x.data(), weight.data(), n, kEps, out.data());
      const double terms = static_cast<double>(n) / 64 + 8;
      for (size_t i = 0; i < n; ++i) {
        EXPECT_NEAR(out[i], expected[i],
                    terms * kEpsilon * std::abs(expected[i]));
      }
    }
  }
}

TEST_P(NormTest, RmsNormMayOverwriteItsInput) {
  for (const size_t n : kNormSizes) {
    std::vector<float> x = RandomFloats(n, /*seed=*/1, 10);
    const std::vector<float> weight = RandomFloats(n, /*seed=*/2);
    RmsNorm(x.data(), weight.data(), n, kEps, x.data());
    EXPECT_TRUE(HaveEqualBits(x, RunRmsNorm(n))) << n;
  }
}

TEST_P(NormTest, AddInPlaceAddsEachElementOnce) {
  for (const size_t n : kNormSizes) {
    const std::vector<float> x = RandomFloats(n, /*seed=*/3);
    std::vector<float> y = RandomFloats(n, /*seed=*/4);
    std::vector<float> expected = y;
    for (size_t i = 0; i < n; ++i) expected[i] += x[i];
    AddInPlace(x.data(), n, y.data());
    EXPECT_TRUE(HaveEqualBits(y, expected)) << n;
  }
}

TEST_P(NormTest, ReadsNothingPastTheEnds) {
  for (size_t n = 0; n <= 70; ++n) {
    const GuardedCopy x(RandomFloats(n, 1));
    const GuardedCopy weight(RandomFloats(n, 2));
    const GuardedCopy out(RandomFloats(n, 3));
    RmsNorm(x.floats(), weight.floats(), n, kEps, out.floats());
    AddInPlace(x.floats(), n, out.floats());
  }
}

TEST(NormTargetsTest, TargetsWithFusedMultiplyAddAgreeBitForBit) {
  StoredAnswers bits("kernel_bits/norm");
  for (const size_t n : kNormSizes)
    ExpectTargetsAgree([&] { return RunRmsNorm(n); }, bits);
  ExpectStoredBits(bits);
}

}  // namespace
}  // namespace flashelm
