#include "predictor/active_set.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <set>
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

TEST(ActiveSetTest, AgreesWithStdSet) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    std::set<uint32_t> a;
    std::set<uint32_t> b;
    const size_t a_draws = random() % 40;
    const size_t b_draws = random() % 40;
    for (size_t i = 0; i < a_draws; ++i) a.insert(random() % 50);
    for (size_t i = 0; i < b_draws; ++i) b.insert(random() % 50);
    const Ids a_ids(a.begin(), a.end());
    const Ids b_ids(b.begin(), b.end());

    std::set<uint32_t> both = a;
    both.insert(b.begin(), b.end());
    Ids out(a.size() + b.size());
    out.resize(SetUnion(a_ids, b_ids, out.data()));
    EXPECT_EQ(out, Ids(both.begin(), both.end()));

    std::set<uint32_t> rest = a;
    for (const uint32_t id : b) rest.erase(id);
    Ids difference(a.size());
    difference.resize(SetDifference(a_ids, b_ids, difference.data()));
    EXPECT_EQ(difference, Ids(rest.begin(), rest.end()));

    EXPECT_EQ(IntersectionSize(a_ids, b_ids), a.size() - rest.size());
  }
}

}  // namespace
}  // namespace flashelm
