// SparsityStats::num_in_both and num_in_either: of a token that is computed
// alone, against the one before it.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "tests/core/predicted_model.h"
#include "tests/core/selecting.h"

namespace flashelm::test {
namespace {

struct Overlap {
  uint64_t num_in_both = 0;
  uint64_t num_in_either = 0;
  friend bool operator==(const Overlap&, const Overlap&) = default;
};

class SparseOverlapTest : public testing::TestWithParam<Selector> {
 protected:
  static constexpr double kKeptFraction = 0.3;

  SparseOverlapTest()
      : model_(PredictedModelOptions{}),
        selecting_(model_, GetParam(), kKeptFraction),
        running_(
            Start(model_.path(), WithSelector(GetParam(), kKeptFraction, 2))) {}

  // Runs tokens up to `end`, all in one call or each in its own.
  void RunTo(uint32_t end, bool together) {
    const CancelToken never;
    const uint32_t begin = running_.session->position();
    const auto tokens = SomeTokens(end, running_.engine->config().vocab_size);
    const uint32_t step = together ? end - begin : 1;
    for (uint32_t at = begin; at < end; at += step) {
      const Status status =
          running_.session->Run(std::span(tokens).subspan(at, step), {}, never);
      ASSERT_TRUE(status.ok()) << status.message();
    }
  }

  Overlap Counted() const {
    const SparsityStats stats = running_.session->stats().sparsity;
    return {stats.num_in_both, stats.num_in_either};
  }

  // Of positions [begin, end), each but the first with the one before it. These
  // selectors look at positions, not at inputs.
  Overlap Expected(uint32_t begin, uint32_t end) {
    Overlap sum;
    const uint32_t first = begin - Selecting::kPosition;
    for (uint32_t layer = 0; layer < running_.engine->config().num_layers();
         ++layer) {
      const auto kept = selecting_.Kept(layer, first, end - begin);
      for (size_t i = 1; i < kept.size(); ++i) {
        std::vector<uint32_t> both;
        std::ranges::set_intersection(kept[i - 1], kept[i],
                                      std::back_inserter(both));
        sum.num_in_both += both.size();
        sum.num_in_either += kept[i - 1].size() + kept[i].size() - both.size();
      }
    }
    return sum;
  }

  const PredictedModel model_;
  Selecting selecting_;
  Running running_;
};

constexpr uint32_t kFirst = Selecting::kPosition;

TEST_P(SparseOverlapTest, IsThatOfEachTokenWithTheOneBefore) {
  ASSERT_NE(running_.session, nullptr);
  RunTo(kFirst, true);
  RunTo(kFirst + 6, false);
  const Overlap counted = Counted();
  EXPECT_EQ(counted, Expected(kFirst, kFirst + 6));
  if (GetParam() == Selector::kMagnitude) {
    EXPECT_EQ(counted.num_in_both, counted.num_in_either) << "always the same";
  } else {
    // 0.3 * 0.3 of 0.3 + 0.3 - 0.3 * 0.3.
    EXPECT_NEAR(static_cast<double>(counted.num_in_both) /
                    static_cast<double>(counted.num_in_either),
                0.09 / 0.51, 0.03);
  }
}

TEST_P(SparseOverlapTest, TokensOfABatchDoNotCountNorDoesTheFirstAfterOne) {
  ASSERT_NE(running_.session, nullptr);
  RunTo(kFirst, true);
  EXPECT_EQ(Counted(), Overlap{});
  RunTo(kFirst + 1, false);
  EXPECT_EQ(Counted(), Overlap{});
  RunTo(kFirst + 3, false);
  Overlap expected = Expected(kFirst, kFirst + 3);
  EXPECT_EQ(Counted(), expected);
  // What comes next is a batch of two, after which it begins anew.
  RunTo(kFirst + 5, true);
  RunTo(kFirst + 6, false);
  EXPECT_EQ(Counted(), expected);
  RunTo(kFirst + 8, false);
  const Overlap more = Expected(kFirst + 5, kFirst + 8);
  expected.num_in_both += more.num_in_both;
  expected.num_in_either += more.num_in_either;
  EXPECT_EQ(Counted(), expected);
}

TEST_P(SparseOverlapTest, ATokenElsewhereHasNoneBeforeIt) {
  ASSERT_NE(running_.session, nullptr);
  RunTo(kFirst, true);
  RunTo(kFirst + 5, false);
  Overlap expected = Expected(kFirst, kFirst + 5);
  EXPECT_EQ(Counted(), expected);
  ASSERT_TRUE(running_.session->Truncate(kFirst + 2).ok());
  RunTo(kFirst + 3, false);
  EXPECT_EQ(Counted(), expected);
  RunTo(kFirst + 4, false);
  const Overlap more = Expected(kFirst + 2, kFirst + 4);
  expected.num_in_both += more.num_in_both;
  expected.num_in_either += more.num_in_either;
  EXPECT_EQ(Counted(), expected);
}

INSTANTIATE_TEST_SUITE_P(Selectors, SparseOverlapTest,
                         testing::Values(Selector::kMagnitude,
                                         Selector::kRandom),
                         [](const auto& test) {
                           return std::string(SelectorName(test.param));
                         });

}  // namespace
}  // namespace flashelm::test
