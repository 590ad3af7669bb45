#include "predictor/low_bit_gate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "tests/predictor/random.h"

namespace flashelm {
namespace {

using GateShape = LowBitGate::Shape;

std::vector<std::byte> Quantize(const GateShape& shape,
                                const std::vector<float>& rows) {
  // All ones where nothing was written.
  std::vector<std::byte> bytes(LowBitGate::NumBytes(shape), std::byte{0xFF});
  LowBitGate::Quantize(shape, rows.data(), 0, shape.num_neurons, bytes);
  return bytes;
}

std::vector<float> Prepare(const Predictor& predictor,
                           const std::vector<float>& x) {
  std::vector<float> prepared(predictor.prepared_floats(), -1);
  predictor.Prepare(x.data(), prepared.data());
  return prepared;
}

std::vector<float> Scores(const Predictor& predictor,
                          const std::vector<float>& x) {
  std::vector<float> scores(predictor.num_neurons());
  predictor.Score(Prepare(predictor, x).data(), 0, scores.size(),
                  scores.data());
  return scores;
}

// Reads the layout that the header documents.
struct Reader {
  GateShape shape;
  const std::vector<std::byte>& bytes;

  size_t row_bytes() const {
    const size_t per_block = 256 / shape.bits;
    return (shape.model_dim + per_block - 1) / per_block * 32;
  }
  float Scale(size_t row) const {
    float scale;
    std::memcpy(&scale,
                bytes.data() + shape.num_neurons * row_bytes() + 4 * row, 4);
    return scale;
  }
  double Weight(size_t row, size_t k) const {
    const size_t per_block = 256 / shape.bits;
    const size_t in_block = k % per_block;
    uint16_t word;
    std::memcpy(&word,
                bytes.data() + row * row_bytes() + k / per_block * 32 +
                    2 * (in_block % 16),
                2);
    const int levels = 1 << shape.bits;
    const int code = word >> (shape.bits * (in_block / 16)) & (levels - 1);
    return static_cast<double>(2 * code - (levels - 1)) * Scale(row);
  }
};

constexpr GateShape kShapes[] = {{1, 1, 1},     {2, 1, 1},    {1, 3, 255},
                                 {2, 3, 127},   {1, 70, 256}, {2, 70, 256},
                                 {1, 130, 700}, {2, 130, 700}};

TEST(LowBitGateTest, ScoresAreDotProductsWithTheStoredWeights) {
  for (const GateShape& shape : kShapes) {
    const size_t dim = shape.model_dim;
    const auto bytes =
        Quantize(shape, RandomNormals(shape.num_neurons * dim, 1));
    const LowBitGate gate(shape, bytes, 0.5f);
    const Reader reader{shape, bytes};
    const auto x = RandomNormals(dim, 2);
    float amax = 0;
    for (const float value : x) amax = std::max(amax, std::abs(value));
    const std::vector<float> scores = Scores(gate, x);
    for (size_t i = 0; i < shape.num_neurons; ++i) {
      double sum = 0;
      double magnitudes = 0;
      for (size_t k = 0; k < dim; ++k) {
        sum += reader.Weight(i, k) * x[k];
        magnitudes += std::abs(reader.Weight(i, k));
      }
      // Half a step of the rounded input, and some for f32.
      EXPECT_NEAR(scores[i], sum,
                  magnitudes * amax * (0.51 / 4095) + 1e-6 * std::abs(sum));
    }
  }
}

TEST(LowBitGateTest, ScoresOfWholeNumbersAreExact) {
  // With the largest at 4095 nothing is rounded.
  for (const GateShape& shape : kShapes) {
    std::vector<float> x = RandomNormals(shape.model_dim, 4, 1000);
    for (float& value : x) value = std::round(value);
    x[0] = -4095;
    const auto bytes =
        Quantize(shape, RandomNormals(shape.num_neurons * shape.model_dim, 3));
    const Reader reader{shape, bytes};
    const std::vector<float> scores = Scores(LowBitGate(shape, bytes, 0), x);
    for (size_t i = 0; i < shape.num_neurons; ++i) {
      double sum = 0;
      for (size_t k = 0; k < shape.model_dim; ++k) {
        sum += reader.Weight(i, k) * x[k];
      }
      EXPECT_NEAR(scores[i], sum, 1e-6 * std::abs(sum) + 1e-9);
    }
  }
}

TEST(LowBitGateTest, EverySplitIntoRangesGivesTheSameBits) {
  const GateShape shape{2, 301, 300};
  const auto bytes =
      Quantize(shape, RandomNormals(shape.num_neurons * shape.model_dim, 5));
  const LowBitGate gate(shape, bytes, 0);
  const auto x = RandomNormals(shape.model_dim, 6);
  const std::vector<float> expected = Scores(gate, x);
  const std::vector<float> prepared = Prepare(gate, x);
  for (const size_t step : {1, 7, 64, 300}) {
    std::vector<float> scores(shape.num_neurons);
    for (size_t begin = 0; begin < scores.size(); begin += step) {
      gate.Score(prepared.data(), begin, std::min(begin + step, scores.size()),
                 scores.data());
    }
    EXPECT_EQ(scores, expected);
  }
}

TEST(LowBitGateTest, RowsCanBeQuantizedInParts) {
  const GateShape shape{2, 10, 200};
  const auto rows = RandomNormals(shape.num_neurons * shape.model_dim, 7);
  std::vector<std::byte> bytes(LowBitGate::NumBytes(shape));
  LowBitGate::Quantize(shape, &rows[3 * shape.model_dim], 3, 7, bytes);
  LowBitGate::Quantize(shape, rows.data(), 0, 3, bytes);
  EXPECT_EQ(bytes, Quantize(shape, rows));
}

double SquaredError(const std::vector<float>& row, unsigned bits,
                    double scale) {
  double sum = 0;
  for (const double w : row) {
    double level = 1;
    if (bits == 2 && std::abs(w) > 2 * scale) level = 3;
    const double error = std::abs(w) - level * scale;
    sum += error * error;
  }
  return sum;
}

TEST(LowBitGateTest, NoScaleHasALesserSquaredError) {
  for (const unsigned bits : {1u, 2u}) {
    for (uint32_t seed = 0; seed < 30; ++seed) {
      const GateShape shape{bits, 1, 1 + 20 * seed};
      auto row = RandomNormals(shape.model_dim, seed);
      // Also long tails, where the error has several minima.
      if (seed % 2 == 1) {
        for (float& w : row) w = w * w * w;
      }
      const auto bytes = Quantize(shape, row);
      const Reader reader{shape, bytes};
      double found = 0;
      for (size_t k = 0; k < row.size(); ++k) {
        const double error = row[k] - reader.Weight(0, k);
        found += error * error;
      }
      const double largest = std::abs(*std::max_element(
          row.begin(), row.end(),
          [](float a, float b) { return std::abs(a) < std::abs(b); }));
      for (int i = 0; i <= 2000; ++i) {
        ASSERT_LE(
            found,
            SquaredError(row, bits, i * largest / 2000) * (1 + 1e-6) + 1e-12)
            << seed << " " << i;
      }
    }
  }
}

TEST(LowBitGateTest, MoreBitsGuessTheSignOfGatesBetter) {
  constexpr uint32_t kNeurons = 400;
  constexpr uint32_t kDim = 512;
  const auto rows = RandomNormals(kNeurons * kDim, 9);
  const auto x = RandomNormals(kDim, 10);
  size_t num_right[3] = {};
  for (const unsigned bits : {1u, 2u}) {
    const GateShape shape{bits, kNeurons, kDim};
    const auto bytes = Quantize(shape, rows);
    const auto scores = Scores(LowBitGate(shape, bytes, 0), x);
    for (size_t i = 0; i < kNeurons; ++i) {
      double gate = 0;
      for (size_t k = 0; k < kDim; ++k) {
        gate += static_cast<double>(rows[i * kDim + k]) * x[k];
      }
      num_right[bits] += (gate > 0) == (scores[i] > 0) ? 1 : 0;
    }
  }
  // The angle between a normal row and its code is 37 degrees with one bit, 20
  // with two; that share of 180 is wrong.
  EXPECT_GT(num_right[1], kNeurons * 72 / 100);
  EXPECT_LT(num_right[1], kNeurons * 87 / 100);
  EXPECT_GT(num_right[2], kNeurons * 84 / 100);
}

TEST(LowBitGateTest, ZerosAndInputsThatAreNoNumbers) {
  for (const unsigned bits : {1u, 2u}) {
    const GateShape shape{bits, 3, 40};
    const auto zeros = Quantize(shape, std::vector<float>(120));
    for (const float score :
         Scores(LowBitGate(shape, zeros, 0), RandomNormals(40, 1))) {
      EXPECT_EQ(score, 0);
    }
    const auto bytes = Quantize(shape, RandomNormals(120, 11));
    const LowBitGate gate(shape, bytes, 0);
    for (const float score : Scores(gate, std::vector<float>(40))) {
      EXPECT_EQ(score, 0);
    }
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity()}) {
      auto x = RandomNormals(40, 12);
      x[7] = bad;
      for (const float score : Scores(gate, x)) EXPECT_TRUE(std::isnan(score));
    }
  }
}

TEST(LowBitGateTest, SaysWhatItTakes) {
  const GateShape shape{1, 10, 257};
  EXPECT_EQ(LowBitGate::NumBytes(shape), 10u * (64 + 4));
  const auto bytes = Quantize(shape, std::vector<float>(2570, 1.0f));
  const LowBitGate gate(shape, bytes, 0.25f);
  EXPECT_EQ(gate.num_bytes(), bytes.size());
  EXPECT_EQ(gate.num_neurons(), 10u);
  EXPECT_EQ(gate.model_dim(), 257u);
  EXPECT_EQ(gate.threshold(), 0.25f);
  EXPECT_TRUE(LowBitGate::IsValid(shape));
  EXPECT_FALSE(LowBitGate::IsValid({3, 10, 257}));
  EXPECT_FALSE(LowBitGate::IsValid({1, 10, 0}));
  EXPECT_FALSE(LowBitGate::IsValid({1, 10, (1 << 17) + 1}));
  // No overflow even where everything is as large as it can be.
  EXPECT_EQ(LowBitGate::NumBytes({2, 0xFFFFFFFF, 1 << 17}),
            0xFFFFFFFFull * ((1 << 15) + 4));
}

}  // namespace
}  // namespace flashelm
