#include "kernels/activation.h"

#include "kernels/reference.h"
#include "tests/kernels/kernel_test.h"

namespace flashelm {
namespace {

constexpr Activation kActivations[] = {Activation::kSilu, Activation::kRelu};
constexpr size_t kSizes[] = {0, 1, 3, 16, 17, 31, 32, 33, 64, 129, 8192};

std::vector<float> RunGlu(Activation activation, const std::vector<float>& gate,
                          const std::vector<float>& up) {
  std::vector<float> out(gate.size());
  GluActivate(activation, gate.data(), up.data(), gate.size(), out.data());
  return out;
}

void ExpectWithinBound(Activation activation, const std::vector<float>& gate,
                       const std::vector<float>& up) {
  const std::vector<float> out = RunGlu(activation, gate, up);
  std::vector<double> expected(gate.size());
  reference::GluActivate(activation, gate.data(), up.data(), gate.size(),
                         expected.data());
  const double terms = activation == Activation::kSilu ? 4 : 0.5;
  for (size_t i = 0; i < gate.size(); ++i) {
    const double subnormal =
        (std::abs(gate[i]) + 1) * (std::abs(up[i]) + 1) * kLeastSubnormal;
    ASSERT_NEAR(out[i], expected[i],
                terms * kEpsilon * std::abs(expected[i]) + subnormal)
        << "gate " << gate[i] << ", up " << up[i];
  }
}

class GluActivateTest : public TargetTest {};
FLASHELM_TEST_ALL_TARGETS(GluActivateTest);

TEST_P(GluActivateTest, StaysWithinTheErrorBoundOfTheReference) {
  for (const Activation activation : kActivations) {
    for (const size_t n : kSizes) {
      SCOPED_TRACE(n);
      ExpectWithinBound(activation, RandomFloats(n, /*seed=*/1, 20),
                        RandomFloats(n, /*seed=*/2, 3));
    }
  }
}

TEST_P(GluActivateTest, StaysWithinTheBoundFromTinyToHugeGates) {
  // 256 gates per power of two, and every 1/512 between -120 and 120.
  std::vector<float> gate;
  for (int exponent = -149; exponent < 127; ++exponent) {
    for (int step = 0; step < 256; ++step) {
      const float x =
          std::ldexp(1.0f + static_cast<float>(step) / 256, exponent);
      gate.insert(gate.end(), {x, -x});
    }
  }
  for (int step = -120 * 512; step <= 120 * 512; ++step) {
    gate.push_back(static_cast<float>(step) / 512);
  }
  for (const Activation activation : kActivations) {
    ExpectWithinBound(activation, gate, std::vector<float>(gate.size(), 1.0f));
  }
}

TEST_P(GluActivateTest, ExtremeGatesGiveNoNan) {
  const float max = std::numeric_limits<float>::max();
  const float min = std::numeric_limits<float>::min();
  std::vector<float> gate;
  for (const float x : {0.0f, min, 1.0f, 87.0f, 88.8f, 103.9f, 104.1f, 105.0f,
                        1e10f, 1e30f, max}) {
    gate.insert(gate.end(), {x, -x});
  }
  for (const Activation activation : kActivations) {
    for (const float up : {0.0f, -0.0f, 1.0f, -1.0f, min}) {
      const std::vector<float> out =
          RunGlu(activation, gate, std::vector<float>(gate.size(), up));
      EXPECT_EQ(CountNonFinite(out.data(), out.size()), 0u) << up;
    }
  }
  EXPECT_EQ(RunGlu(Activation::kSilu, {-1e30f, 1e30f, 0.0f, -0.0f},
                   {1.0f, 1.0f, 1.0f, 1.0f}),
            (std::vector<float>{0.0f, 1e30f, 0.0f, 0.0f}));
  EXPECT_EQ(RunGlu(Activation::kRelu, {-1e30f, 1e30f, 0.0f, -0.0f},
                   {1.0f, 1.0f, 1.0f, 1.0f}),
            (std::vector<float>{0.0f, 1e30f, 0.0f, 0.0f}));
}

TEST_P(GluActivateTest, KeepsANanOfTheGateOrUp) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const Activation activation : kActivations) {
    for (const size_t n : {1, 16}) {
      const std::vector<float> ones(n, 1.0f), nans(n, nan);
      EXPECT_EQ(CountNonFinite(RunGlu(activation, nans, ones).data(), n), n);
      EXPECT_EQ(CountNonFinite(RunGlu(activation, ones, nans).data(), n), n);
    }
  }
}

TEST_P(GluActivateTest, BitsDependOnTheElementOnly) {
  const size_t n = 67;
  const std::vector<float> gate = RandomFloats(n, /*seed=*/3, 10);
  const std::vector<float> up = RandomFloats(n, /*seed=*/4);
  for (const Activation activation : kActivations) {
    const std::vector<float> whole = RunGlu(activation, gate, up);
    for (size_t i = 0; i < n; ++i) {
      EXPECT_TRUE(
          HaveEqualBits(RunGlu(activation, {gate[i]}, {up[i]}), {whole[i]}));
    }
  }
}

TEST_P(GluActivateTest, MayOverwriteEitherInput) {
  for (const Activation activation : kActivations) {
    for (const size_t n : kSizes) {
      const std::vector<float> gate = RandomFloats(n, /*seed=*/5, 10);
      const std::vector<float> up = RandomFloats(n, /*seed=*/6);
      const std::vector<float> expected = RunGlu(activation, gate, up);
      std::vector<float> x = gate;
      GluActivate(activation, x.data(), up.data(), n, x.data());
      EXPECT_TRUE(HaveEqualBits(x, expected));
      x = up;
      GluActivate(activation, gate.data(), x.data(), n, x.data());
      EXPECT_TRUE(HaveEqualBits(x, expected));
    }
  }
}

TEST(GluActivateTargetsTest, TargetsWithFusedMultiplyAddAgreeBitForBit) {
  const std::vector<float> gate = RandomFloats(1001, /*seed=*/7, 100);
  const std::vector<float> up = RandomFloats(1001, /*seed=*/8);
  StoredAnswers bits("kernel_bits/activation");
  ExpectTargetsAgree([&] { return RunGlu(Activation::kSilu, gate, up); }, bits);
  ExpectStoredBits(bits);
}

}  // namespace
}  // namespace flashelm
