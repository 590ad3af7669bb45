#include "predictor/gate_selector.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/predictor/random.h"

namespace flashelm {
namespace {

constexpr Activation kActivations[] = {Activation::kSilu, Activation::kRelu};

double Activate(Activation activation, double gate) {
  if (activation == Activation::kRelu) return std::max(gate, 0.0);
  return gate / (1 + std::exp(-gate));
}

// A layer's gates and importances.
struct Layer {
  std::vector<float> gates;
  std::vector<float> importance;

  uint32_t size() const { return static_cast<uint32_t>(gates.size()); }
  // Exact up to the rounding of long double.
  long double Skipped(Activation activation,
                      const std::vector<uint32_t>& active) const {
    long double sum = 0;
    for (uint32_t i = 0; i < size(); ++i) {
      if (std::binary_search(active.begin(), active.end(), i)) continue;
      const long double gate = gates[i];
      const long double value = activation == Activation::kRelu
                                    ? std::max(gate, 0.0L)
                                    : gate / (1 + std::exp(-gate));
      sum += std::abs(value) * static_cast<long double>(importance[i]);
    }
    return sum;
  }
};

Layer RandomLayer(size_t n, uint32_t seed, float deviation = 2) {
  Layer layer{RandomNormals(n, seed, deviation), RandomNormals(n, seed + 1)};
  for (float& value : layer.importance) value = std::abs(value);
  // Some that are equal, and some that are nothing.
  for (size_t i = 0; i + 9 < n; i += 9) {
    layer.gates[i + 3] = layer.gates[i];
    layer.importance[i + 3] = layer.importance[i];
    layer.importance[i + 5] = 0;
    layer.gates[i + 6] = 0;
  }
  return layer;
}

struct Selection {
  std::vector<uint32_t> active;
  float skipped;
};

Selection Top(const Layer& layer, Activation activation, size_t num_kept) {
  std::vector<float> scratch(2 * layer.gates.size());
  Selection selection{std::vector<uint32_t>(layer.gates.size()), -1};
  selection.active.resize(SelectTop(
      layer.gates.data(), layer.importance.data(), activation, layer.size(),
      num_kept, scratch.data(), selection.active.data(), &selection.skipped));
  return selection;
}

Selection Within(const Layer& layer, Activation activation, float max_skipped) {
  std::vector<float> scratch(2 * layer.gates.size());
  Selection selection{std::vector<uint32_t>(layer.gates.size()), -1};
  selection.active.resize(
      SelectWithin(layer.gates.data(), layer.importance.data(), activation,
                   layer.size(), max_skipped, scratch.data(),
                   selection.active.data(), &selection.skipped));
  return selection;
}

TEST(SelectPositiveTest, TakesGatesAboveZero) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float least = std::numeric_limits<float>::denorm_min();
  const std::vector<float> gates = {1, -1, 0, -0.0f, least, nan, 3};
  std::vector<uint32_t> active(gates.size());
  active.resize(SelectPositive(gates.data(), 7, active.data()));
  EXPECT_EQ(active, (std::vector<uint32_t>{0, 4, 6}));
}

TEST(SelectTopTest, AgreesWithAStableSort) {
  for (const Activation activation : kActivations) {
    for (const size_t n : {1, 2, 7, 64, 500}) {
      const Layer layer = RandomLayer(n, 3);
      std::vector<float> keys(n);
      GluActivate(activation, layer.gates.data(), layer.importance.data(), n,
                  keys.data());
      std::vector<uint32_t> order(n);
      for (uint32_t i = 0; i < n; ++i) order[i] = i;
      std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
        return std::abs(keys[a]) > std::abs(keys[b]);
      });
      for (size_t kept = 0; kept <= n + 1; ++kept) {
        std::vector<uint32_t> expected(
            order.begin(),
            order.begin() + static_cast<ptrdiff_t>(std::min(kept, n)));
        std::sort(expected.begin(), expected.end());
        ASSERT_EQ(Top(layer, activation, kept).active, expected)
            << kept << " of " << n;
      }
    }
  }
}

TEST(SelectTopTest, SkippedIsAnUpperBoundAndATightOne) {
  for (const Activation activation : kActivations) {
    for (uint32_t seed = 0; seed < 50; ++seed) {
      // Gates from tiny to so low that silu underflows.
      const Layer layer = RandomLayer(
          300, 2 * seed, std::ldexp(1.0f, static_cast<int>(seed) - 40));
      for (const size_t kept : {0, 1, 100, 299, 300}) {
        const Selection selection = Top(layer, activation, kept);
        const long double exact = layer.Skipped(activation, selection.active);
        ASSERT_GE(selection.skipped, exact);
        ASSERT_LE(selection.skipped, exact * 1.00001L + 1e-37L);
      }
    }
  }
}

TEST(SelectTopTest, NothingPositiveSkippedCostsNothingWithRelu) {
  Layer layer = RandomLayer(200, 5);
  const size_t num_positive = static_cast<size_t>(std::count_if(
      layer.gates.begin(), layer.gates.end(), [](float g) { return g > 0; }));
  EXPECT_EQ(Top(layer, Activation::kRelu, num_positive).skipped, 0);
  EXPECT_GT(Top(layer, Activation::kRelu, num_positive / 2).skipped, 0);
}

TEST(SelectTopTest, GatesThatAreNoNumbersComeFirst) {
  Layer layer = RandomLayer(50, 6);
  layer.gates[17] = std::numeric_limits<float>::quiet_NaN();
  layer.gates[40] = std::numeric_limits<float>::infinity();
  for (const Activation activation : kActivations) {
    EXPECT_EQ(Top(layer, activation, 2).active,
              (std::vector<uint32_t>{17, 40}));
    EXPECT_TRUE(std::isfinite(Top(layer, activation, 2).skipped));
    // Nothing is known of what the FFN would have been.
    EXPECT_FALSE(Top(layer, activation, 1).skipped <= 1e30f);
  }
}

TEST(SelectWithinTest, TakesTheFewestOfSelectTopThatStayBelow) {
  for (const Activation activation : kActivations) {
    for (uint32_t seed = 0; seed < 20; ++seed) {
      const Layer layer = RandomLayer(201, seed);
      const float all = Top(layer, activation, 0).skipped;
      for (const float part : {0.0f, 0.001f, 0.1f, 0.5f, 0.99f, 1.01f}) {
        const Selection selection = Within(layer, activation, part * all);
        EXPECT_LE(selection.skipped, part * all);
        const size_t kept = selection.active.size();
        EXPECT_EQ(selection.active, Top(layer, activation, kept).active);
        EXPECT_EQ(selection.skipped, Top(layer, activation, kept).skipped);
        if (kept > 0) {
          EXPECT_GT(Top(layer, activation, kept - 1).skipped,
                    part * all * 0.99999f);
        }
      }
      EXPECT_TRUE(Within(layer, activation, all * 1.01f).active.empty());
    }
  }
}

TEST(SelectWithinTest, NoErrorAllowedKeepsWhatReluLetsPass) {
  const Layer layer = RandomLayer(300, 8);
  std::vector<uint32_t> expected;
  for (uint32_t i = 0; i < layer.size(); ++i) {
    if (layer.gates[i] > 0 && layer.importance[i] > 0) expected.push_back(i);
  }
  EXPECT_EQ(Within(layer, Activation::kRelu, 0).active, expected);
}

TEST(NeuronImportanceTest, IsTheProductOfTheNormsRoundedUp) {
  for (uint32_t seed = 0; seed < 100; ++seed) {
    const std::vector<float> up = RandomNormals(77, seed);
    const std::vector<float> down = RandomNormals(77, seed + 1, 0.01f);
    long double up_squares = 0;
    long double down_squares = 0;
    for (const long double x : up) up_squares += x * x;
    for (const long double x : down) down_squares += x * x;
    const long double exact = std::sqrt(up_squares) * std::sqrt(down_squares);
    const float importance = NeuronImportance(up.data(), down.data(), 77);
    EXPECT_GE(importance, exact);
    EXPECT_LE(importance, exact * 1.000001L);
  }
}

// The whole claim: with a true FFN, the output moves by no more than the bound.
TEST(GateSelectorTest, TheOutputDiffersByAtMostTheBound) {
  constexpr size_t kModelDim = 24;
  constexpr size_t kFfnDim = 90;
  for (const Activation activation : kActivations) {
    for (uint32_t seed = 0; seed < 20; ++seed) {
      const auto b = RandomNormals(kModelDim, 4 * seed);
      const auto up = RandomNormals(kModelDim * kFfnDim, 4 * seed + 1);
      const auto down = RandomNormals(kModelDim * kFfnDim, 4 * seed + 2);
      Layer layer{RandomNormals(kFfnDim, 4 * seed + 3),
                  std::vector<float>(kFfnDim)};
      for (size_t i = 0; i < kFfnDim; ++i) {
        layer.importance[i] = NeuronImportance(&up[i * kModelDim],
                                               &down[i * kModelDim], kModelDim);
      }
      double b_squares = 0;
      for (const double x : b) b_squares += x * x;
      for (const size_t kept : {0, 10, 45, 89}) {
        const Selection selection = Top(layer, activation, kept);
        std::vector<double> difference(kModelDim);
        for (uint32_t i = 0; i < kFfnDim; ++i) {
          if (std::binary_search(selection.active.begin(),
                                 selection.active.end(), i)) {
            continue;
          }
          double product = 0;
          for (size_t k = 0; k < kModelDim; ++k) {
            product += static_cast<double>(up[i * kModelDim + k]) * b[k];
          }
          for (size_t k = 0; k < kModelDim; ++k) {
            difference[k] += Activate(activation, layer.gates[i]) * product *
                             down[i * kModelDim + k];
          }
        }
        double squares = 0;
        for (const double x : difference) squares += x * x;
        EXPECT_LE(std::sqrt(squares), std::sqrt(b_squares) * selection.skipped);
        if (kept < 45) {
          EXPECT_GT(std::sqrt(squares),
                    0.001 * std::sqrt(b_squares) * selection.skipped);
        }
      }
    }
  }
}

// One neuron whose up row is parallel to b meets the bound with equality.
TEST(GateSelectorTest, TheBoundIsReached) {
  const std::vector<float> b = {3, 4};
  const std::vector<float> down = {0, 2};
  const Layer layer{{1.5f}, {NeuronImportance(b.data(), down.data(), 2)}};
  const Selection selection = Top(layer, Activation::kSilu, 0);
  // |silu(1.5)| |b|^2 |down|.
  const double output = Activate(Activation::kSilu, 1.5) * 25 * 2;
  EXPECT_LE(output, 5.0 * selection.skipped);
  EXPECT_NEAR(output, 5.0 * selection.skipped, 1e-4);
}

}  // namespace
}  // namespace flashelm
