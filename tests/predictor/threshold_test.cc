#include "predictor/threshold.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/predictor/random.h"

namespace flashelm {
namespace {

// By counting.
ThresholdChoice Measure(const std::vector<float>& scores,
                        const std::vector<uint8_t>& labels, float threshold) {
  double active = 0;
  double kept = 0;
  double found = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    active += labels[i] != 0;
    kept += scores[i] > threshold;
    found += labels[i] != 0 && scores[i] > threshold;
  }
  return {threshold, found / active, found / kept,
          kept / static_cast<double>(scores.size())};
}

TEST(ChooseThresholdTest, ReachesTheRecallWithTheLargestThreshold) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    std::vector<float> scores = RandomNormals(307, seed);
    const std::vector<float> noise = RandomNormals(307, seed + 100);
    std::vector<uint8_t> labels(scores.size());
    for (size_t i = 0; i < scores.size(); ++i) {
      labels[i] = scores[i] + noise[i] > 1 ? 7 : 0;
      // So that some are equal.
      scores[i] = std::round(scores[i] * 10) / 10;
    }
    for (const double target : {0.01, 0.1, 0.5, 0.9, 0.95, 0.999, 1.0}) {
      const auto choice = ChooseThreshold(scores, labels, target);
      ASSERT_TRUE(choice);
      EXPECT_GE(choice->recall, target);
      const ThresholdChoice measured =
          Measure(scores, labels, choice->threshold);
      EXPECT_EQ(choice->recall, measured.recall);
      EXPECT_EQ(choice->precision, measured.precision);
      EXPECT_EQ(choice->kept_fraction, measured.kept_fraction);
      const float above = std::nextafter(
          choice->threshold, std::numeric_limits<float>::infinity());
      EXPECT_LT(Measure(scores, labels, above).recall, target);
    }
  }
}

TEST(ChooseThresholdTest, CountsWithoutRoundingWhatIsEnough) {
  std::vector<float> scores;
  for (int i = 0; i < 10; ++i) scores.push_back(static_cast<float>(i));
  const std::vector<uint8_t> labels(10, 1);
  // 0.7 * 10 and 0.9 * 10 are whole numbers, though not in binary.
  EXPECT_EQ(ChooseThreshold(scores, labels, 0.7)->recall, 0.7);
  EXPECT_EQ(ChooseThreshold(scores, labels, 0.9)->recall, 0.9);
  EXPECT_EQ(ChooseThreshold(scores, labels, 0.91)->recall, 1.0);
}

TEST(ChooseThresholdTest, NothingIsKeptWhereNothingIsActive) {
  const std::vector<float> scores = {1, 1e38f};
  const auto choice = ChooseThreshold(scores, std::vector<uint8_t>{0, 0}, 0.9);
  ASSERT_TRUE(choice);
  EXPECT_GT(choice->threshold, 1e38f);
  EXPECT_EQ(choice->kept_fraction, 0);
}

TEST(ChooseThresholdTest, RefusesWhatMakesNoSense) {
  const std::vector<float> scores = {1, 2};
  const std::vector<uint8_t> labels = {0, 1};
  const auto code = [](const Result<ThresholdChoice>& result) {
    return result ? StatusCode::kOk : result.error().code();
  };
  EXPECT_EQ(code(ChooseThreshold(scores, labels, 0.5)), StatusCode::kOk);
  for (const double target : {0.0, -1.0, 1.01, std::nan("")}) {
    EXPECT_EQ(code(ChooseThreshold(scores, labels, target)),
              StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(code(ChooseThreshold(scores, std::vector<uint8_t>{1}, 0.5)),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code(ChooseThreshold(std::vector<float>{1, NAN}, labels, 0.5)),
            StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace flashelm
