#include "core/cache_share.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

namespace flashelm {
namespace {

using Frequencies = std::vector<std::vector<float>>;

std::vector<LayerBundles> LayersOf(const Frequencies& frequencies,
                                   uint64_t slot_bytes) {
  std::vector<LayerBundles> layers;
  for (const auto& frequency : frequencies) {
    layers.push_back({frequency.size(), slot_bytes, frequency});
  }
  return layers;
}

uint64_t BytesOf(const std::vector<LayerBundles>& layers,
                 const std::vector<uint32_t>& slots) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    bytes += slots[i] * layers[i].slot_bytes;
  }
  return bytes;
}

double Misses(const std::vector<LayerBundles>& layers,
              const std::vector<uint32_t>& slots) {
  double misses = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    misses += ExpectedMisses(layers[i], slots[i]);
  }
  return misses;
}

Frequencies RandomFrequencies(uint64_t seed) {
  std::mt19937_64 random(seed);
  Frequencies frequencies(1 + random() % 6);
  for (auto& frequency : frequencies) {
    const uint64_t scale = 1 + random() % 20;
    frequency.resize(1 + random() % 200);
    // Many are equal.
    for (float& p : frequency) {
      p = static_cast<float>(random() % 10) / static_cast<float>(10 * scale);
    }
  }
  return frequencies;
}

TEST(ShareCacheTest, EqualFrequenciesGiveEqualParts) {
  for (const float p : {0.0f, 0.05f, 0.5f, 1.0f}) {
    SCOPED_TRACE(p);
    const Frequencies frequencies = {std::vector<float>(100, p),
                                     std::vector<float>(400, p),
                                     std::vector<float>(1000, p)};
    const auto layers = LayersOf(frequencies, 64);
    for (const double part : {0.0, 0.02, 0.2, 0.7, 1.0}) {
      const auto bytes = static_cast<uint64_t>(part * 1500 * 64);
      const std::vector<uint32_t> slots = ShareCache(layers, bytes);
      for (size_t i = 0; i < layers.size(); ++i) {
        EXPECT_NEAR(slots[i], part * static_cast<double>(layers[i].num_bundles),
                    1.01);
      }
    }
  }
}

TEST(ShareCacheTest, UnknownFrequenciesGiveEqualParts) {
  const std::vector<LayerBundles> layers = {{100, 64, {}}, {300, 128, {}}};
  EXPECT_EQ(ShareCache(layers, 0), (std::vector<uint32_t>{0, 0}));
  EXPECT_EQ(ShareCache(layers, (50 * 64) + (150 * 128)),
            (std::vector<uint32_t>{50, 150}));
  EXPECT_EQ(ShareCache(layers, 1 << 30), (std::vector<uint32_t>{100, 300}));
}

TEST(ShareCacheTest, GivesSlotsToTheNeuronsThatAreUsedMost) {
  // A token uses 2 of the first, 1 of the second on average.
  const Frequencies frequencies = {{0.5f, 0.5f, 0.5f, 0.5f},
                                   {0.7f, 0.1f, 0.1f, 0.1f, 0.0f, 0.0f}};
  const auto layers = LayersOf(frequencies, 10);
  EXPECT_EQ(ShareCache(layers, 0), (std::vector<uint32_t>{0, 0}));
  // Not enough for what a token uses: the same part of it.
  EXPECT_EQ(ShareCache(layers, 20), (std::vector<uint32_t>{1, 0}));
  EXPECT_EQ(ShareCache(layers, 30), (std::vector<uint32_t>{2, 1}));
  EXPECT_EQ(ShareCache(layers, 50), (std::vector<uint32_t>{4, 1}));
  EXPECT_EQ(ShareCache(layers, 70), (std::vector<uint32_t>{4, 3}));
  EXPECT_EQ(ShareCache(layers, 80), (std::vector<uint32_t>{4, 4}));
  EXPECT_EQ(ShareCache(layers, 90), (std::vector<uint32_t>{4, 5}));
  EXPECT_EQ(ShareCache(layers, 1000), (std::vector<uint32_t>{4, 6}));
}

TEST(ShareCacheTest, KeepsToTheBytesAndUsesThem) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    const Frequencies frequencies = RandomFrequencies(seed);
    std::vector<LayerBundles> layers = LayersOf(frequencies, 0);
    std::mt19937_64 random(seed);
    uint64_t all_bytes = 0;
    uint64_t slot_bytes = 0;
    for (LayerBundles& layer : layers) {
      layer.slot_bytes = 1 + random() % 100;
      slot_bytes += layer.slot_bytes;
      all_bytes += layer.num_bundles * layer.slot_bytes;
    }
    const uint64_t bytes = random() % (all_bytes + 100);
    const std::vector<uint32_t> slots = ShareCache(layers, bytes);
    EXPECT_LE(BytesOf(layers, slots), bytes);
    // Rounding leaves less than a slot of each layer.
    EXPECT_GT(BytesOf(layers, slots) + slot_bytes, std::min(bytes, all_bytes));
    for (size_t i = 0; i < layers.size(); ++i) {
      EXPECT_LE(slots[i], layers[i].num_bundles);
    }
  }
}

TEST(ShareCacheTest, MissesNoMoreThanEqualPartsOnceATokenFits) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE(seed);
    const Frequencies frequencies = RandomFrequencies(seed);
    const auto layers = LayersOf(frequencies, 1);
    double used = 0;
    uint64_t num_bundles = 0;
    for (const LayerBundles& layer : layers) {
      used += ExpectedUsed(layer);
      num_bundles += layer.num_bundles;
    }
    for (const double part : {0.3, 0.6, 0.9}) {
      const double bytes = part * static_cast<double>(num_bundles);
      std::vector<uint32_t> equal;
      for (const LayerBundles& layer : layers) {
        equal.push_back(static_cast<uint32_t>(
            part * static_cast<double>(layer.num_bundles)));
      }
      // What a token uses comes first, whatever it is worth.
      if (bytes < 2 * used + static_cast<double>(layers.size())) continue;
      // Rounding leaves a slot of each layer, of at most the next frequency.
      EXPECT_LE(
          Misses(layers, ShareCache(layers, static_cast<uint64_t>(bytes))),
          Misses(layers, equal) + static_cast<double>(layers.size()));
    }
  }
}

TEST(ExpectedMissesTest, AddsWhatIsNotAmongTheMostFrequent) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const Frequencies frequencies = RandomFrequencies(seed);
    std::vector<float> sorted = frequencies[0];
    std::ranges::sort(sorted, std::greater<>());
    const LayerBundles layer = {sorted.size(), 1, frequencies[0]};
    for (size_t slots = 0; slots <= sorted.size() + 1; ++slots) {
      const auto begin = sorted.begin() + static_cast<std::ptrdiff_t>(
                                              std::min(slots, sorted.size()));
      EXPECT_NEAR(ExpectedMisses(layer, slots),
                  std::accumulate(begin, sorted.end(), 0.0), 1e-5);
    }
  }
  EXPECT_EQ(ExpectedMisses({10, 1, {}}, 3), 7);
  EXPECT_EQ(ExpectedMisses({10, 1, {}}, 12), 0);
}

}  // namespace
}  // namespace flashelm
