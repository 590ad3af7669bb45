#include "predictor/neuron_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace flashelm {
namespace {

// Neurons 0, 3, 6, ... are active for one third of the tokens, and so on.
TEST(NeuronOrderTest, PutsNeuronsSideBySideThatAreActiveTogether) {
  constexpr size_t kWords = 2;
  constexpr uint32_t kNeurons = 30;
  std::vector<uint64_t> samples(kNeurons * kWords);
  for (uint32_t i = 0; i < kNeurons; ++i) {
    for (size_t token = 0; token < 64 * kWords; ++token) {
      if (token % 3 == i % 3) {
        samples[i * kWords + token / 64] |= uint64_t{1} << (token % 64);
      }
    }
  }
  const auto order = OrderByCoActivation(samples, kWords);
  ASSERT_EQ(order.size(), kNeurons);
  size_t num_changes = 0;
  for (size_t i = 1; i < order.size(); ++i) {
    num_changes += order[i] % 3 != order[i - 1] % 3;
  }
  EXPECT_EQ(num_changes, 2u);
}

TEST(NeuronOrderTest, IsAPermutation) {
  std::mt19937_64 random(7);
  std::vector<uint64_t> samples(101 * 3);
  for (size_t i = 0; i < samples.size(); ++i) {
    samples[i] = i / 3 % 5 == 0 ? 0 : random() & random() & random();
  }
  auto order = OrderByCoActivation(samples, 3);
  // Those without a token are last.
  EXPECT_TRUE(std::is_sorted(order.end() - 21, order.end()));
  EXPECT_EQ(order[order.size() - 21], 0u);
  std::sort(order.begin(), order.end());
  std::vector<uint32_t> all(101);
  std::iota(all.begin(), all.end(), 0u);
  EXPECT_EQ(order, all);
}

TEST(NeuronOrderTest, NeedsNoTokens) {
  const std::vector<uint64_t> samples(4);
  EXPECT_EQ(OrderByCoActivation(samples, 2), (std::vector<uint32_t>{0, 1}));
  EXPECT_TRUE(OrderByCoActivation({}, 2).empty());
}

TEST(NeuronOrderTest, FrequencyFallsAndKeepsEqualsInOrder) {
  const std::vector<uint32_t> counts = {3, 9, 3, 0, 9};
  EXPECT_EQ(OrderByFrequency(counts), (std::vector<uint32_t>{1, 4, 0, 2, 3}));
}

}  // namespace
}  // namespace flashelm
