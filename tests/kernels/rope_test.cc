#include "kernels/rope.h"

#include "kernels/reference.h"
#include "tests/kernels/kernel_test.h"

namespace flashelm {
namespace {

TEST(RopeAnglesTest, PositionZeroRotatesNothing) {
  std::vector<float> cos(32), sin(32);
  RopeAngles(0, 10000.0f, 64, cos.data(), sin.data());
  EXPECT_EQ(cos, std::vector<float>(32, 1.0f));
  EXPECT_EQ(sin, std::vector<float>(32, 0.0f));
}

TEST(RopeAnglesTest, FirstFrequencyIsOneRadianPerPosition) {
  std::vector<float> cos(32), sin(32);
  for (const uint32_t position : {1u, 7u, 2047u}) {
    RopeAngles(position, 10000.0f, 64, cos.data(), sin.data());
    EXPECT_FLOAT_EQ(cos[0], std::cos(static_cast<float>(position)));
    EXPECT_FLOAT_EQ(sin[0], std::sin(static_cast<float>(position)));
  }
}

TEST(RopeAnglesTest, StaysAsCloseToTheExactAngleAsTheReferenceModelDoes) {
  // These head_dims are powers of two, so the exponent is exact. The power errs
  // by an ulp, which is 1 epsilon of it at most; its inverse and that times the
  // position round once each, by half an epsilon: 2 epsilon of the angle. No
  // cosine or sine changes faster than its angle, and an ulp of theirs is half
  // an epsilon. 2.5 for both, since errors multiply, and so that a power that
  // is off by an ulp and a half still passes.
  for (const size_t head_dim : {2, 64, 128}) {
    std::vector<float> cos(head_dim / 2), sin(head_dim / 2);
    for (const uint32_t position : {1u, 100u, 2047u}) {
      RopeAngles(position, 10000.0f, head_dim, cos.data(), sin.data());
      for (size_t d = 0; d < head_dim / 2; ++d) {
        const double angle =
            position * std::pow(10000.0, -2.0 * static_cast<double>(d) /
                                             static_cast<double>(head_dim));
        const double bound = 2.5 * kEpsilon * (angle + 1);
        EXPECT_NEAR(cos[d], std::cos(angle), bound);
        EXPECT_NEAR(sin[d], std::sin(angle), bound);
      }
    }
  }
}

constexpr size_t kHeadDims[] = {0, 2, 6, 30, 32, 34, 64, 66, 128};

class RopeTest : public TargetTest {};
FLASHELM_TEST_ALL_TARGETS(RopeTest);

TEST_P(RopeTest, StaysWithinTheErrorBoundOfTheReference) {
  for (const size_t head_dim : kHeadDims) {
    SCOPED_TRACE(head_dim);
    const size_t half = head_dim / 2;
    std::vector<float> cos(half), sin(half);
    RopeAngles(1234, 10000.0f, head_dim, cos.data(), sin.data());
    const std::vector<float> before = RandomFloats(head_dim, /*seed=*/1, 5);
    std::vector<double> expected(head_dim);
    reference::Rope(cos.data(), sin.data(), head_dim, before.data(),
                    expected.data());
    std::vector<float> x = before;
    Rope(cos.data(), sin.data(), head_dim, x.data());
    for (size_t i = 0; i < head_dim; ++i) {
      const size_t d = i % half;
      const double magnitude = i < half
                                   ? std::abs(before[d] * cos[d]) +
                                         std::abs(before[d + half] * sin[d])
                                   : std::abs(before[d + half] * cos[d]) +
                                         std::abs(before[d] * sin[d]);
      EXPECT_NEAR(x[i], expected[i], 2 * kEpsilon * magnitude);
    }
  }
}

TEST_P(RopeTest, PairsAnElementWithTheOneHalfAHeadAway) {
  const std::vector<float> cos = {0, 0}, sin = {1, 1};
  std::vector<float> x = {1, 2, 3, 4};
  Rope(cos.data(), sin.data(), 4, x.data());
  EXPECT_EQ(x, (std::vector<float>{-3, -4, 1, 2}));
}

TEST_P(RopeTest, HasTheBitsOfTheUnfusedFormula) {
  const size_t half = 33;
  std::vector<float> cos(half), sin(half);
  RopeAngles(99, 10000.0f, 2 * half, cos.data(), sin.data());
  std::vector<float> x = RandomFloats(2 * half, /*seed=*/2);
  std::vector<float> expected = x;
  for (size_t d = 0; d < half; ++d) {
    expected[d] = x[d] * cos[d] - x[d + half] * sin[d];
    expected[d + half] = x[d + half] * cos[d] + x[d] * sin[d];
  }
  Rope(cos.data(), sin.data(), 2 * half, x.data());
  EXPECT_TRUE(HaveEqualBits(x, expected));
}

}  // namespace
}  // namespace flashelm
