#include "predictor/active_set.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

namespace flashelm {
namespace {

using Ids = std::vector<uint32_t>;

TEST(SelectAboveTest, TakesWhatIsAboveAndNeitherTheThresholdNorNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> scores = {0.5f, 0.6f, nan, 0.4f, 9.0f, 0.5f};
  Ids active(scores.size());
  active.resize(SelectAbove(scores.data(), 6, 0.5f, active.data()));
  EXPECT_EQ(active, (Ids{1, 4}));
  EXPECT_EQ(SelectAbove(scores.data(), 0, 0.5f, active.data()), 0u);
}

TEST(SelectAboveTest, CanTakeAllAndNone) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> scores = {-1e30f, 0, 1e30f};
  Ids active(3);
  EXPECT_EQ(SelectAbove(scores.data(), 3, infinity, active.data()), 0u);
  EXPECT_EQ(SelectAbove(scores.data(), 3, -infinity, active.data()), 3u);
  EXPECT_EQ(active, (Ids{0, 1, 2}));
}

TEST(SelectLargestTest, AgreesWithSortingAll) {
  std::mt19937 random(5);
  for (int round = 0; round < 100; ++round) {
    // Of few values, so that many are equal, with either sign.
    std::vector<float> scores(1 + random() % 40);
    for (float& score : scores) {
      score = static_cast<float>(random() % 9) - 4;
    }
    Ids order(scores.size());
    for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      return scores[a] > scores[b];
    });
    const auto num_neurons = static_cast<uint32_t>(scores.size());
    for (size_t num_kept = 0; num_kept <= scores.size() + 1; ++num_kept) {
      Ids expected(order.begin(),
                   order.begin() + std::min(num_kept, scores.size()));
      std::sort(expected.begin(), expected.end());
      std::vector<float> scratch(scores.size());
      Ids active(scores.size());
      active.resize(SelectLargest(scores.data(), num_neurons, num_kept,
                                  scratch.data(), active.data()));
      EXPECT_EQ(active, expected);
    }
  }
}

TEST(SelectLargestTest, NanCountsAsTheLeast) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> scores = {nan, -1e30f, nan, 3};
  std::vector<float> scratch(4);
  Ids active(4);
  ASSERT_EQ(SelectLargest(scores.data(), 4, 2, scratch.data(), active.data()),
            2u);
  EXPECT_EQ(active[0], 1u);
  EXPECT_EQ(active[1], 3u);
  ASSERT_EQ(SelectLargest(scores.data(), 4, 3, scratch.data(), active.data()),
            3u);
  EXPECT_EQ(active[0], 0u);
}

}  // namespace
}  // namespace flashelm
