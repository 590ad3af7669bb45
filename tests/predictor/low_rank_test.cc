#include "predictor/low_rank.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/float_types.h"
#include "tests/predictor/random.h"

namespace flashelm {
namespace {

using Shape = LowRankPredictor::Shape;

struct Matrices {
  Shape shape;
  std::vector<float> a;
  std::vector<float> b;
  std::vector<float> bias;

  Matrices(const Shape& of_shape, uint32_t seed)
      : shape(of_shape),
        a(RandomNormals(size_t{shape.rank} * shape.model_dim, seed)),
        b(RandomNormals(size_t{shape.num_neurons} * shape.rank, seed + 1)),
        bias(RandomNormals(shape.num_neurons, seed + 2)) {}
  std::vector<std::byte> Bytes() const {
    return LowRankPredictor::Serialize(shape, a.data(), b.data(), bias.data());
  }
};

std::vector<float> Scores(const Predictor& predictor,
                          const std::vector<float>& x, size_t step) {
  std::vector<float> prepared(predictor.prepared_floats());
  predictor.Prepare(x.data(), prepared.data());
  std::vector<float> scores(predictor.num_neurons());
  for (size_t begin = 0; begin < scores.size(); begin += step) {
    predictor.Score(prepared.data(), begin,
                    std::min(begin + step, scores.size()), scores.data());
  }
  return scores;
}

TEST(LowRankPredictorTest, ScoresAreTheTwoProductsPlusTheBias) {
  for (const WeightType type : {WeightType::kF32, WeightType::kBf16}) {
    for (const Shape& shape : {Shape{type, 1, 1, 1}, Shape{type, 50, 33, 7},
                               Shape{type, 9, 70, 64}}) {
      Matrices m(shape, 1);
      if (type == WeightType::kBf16) {
        // Those whose bytes are exact.
        for (auto* values : {&m.a, &m.b}) {
          for (float& v : *values) v = F32FromBf16(Bf16FromF32(v));
        }
      }
      const auto bytes = m.Bytes();
      ASSERT_EQ(bytes.size(), LowRankPredictor::NumBytes(shape));
      const auto x = RandomNormals(shape.model_dim, 9);
      const auto scores = Scores(LowRankPredictor(shape, bytes, 0), x, 1000);
      for (size_t i = 0; i < shape.num_neurons; ++i) {
        double sum = m.bias[i];
        for (size_t r = 0; r < shape.rank; ++r) {
          double product = 0;
          for (size_t k = 0; k < shape.model_dim; ++k) {
            product += static_cast<double>(m.a[r * shape.model_dim + k]) * x[k];
          }
          sum += m.b[i * shape.rank + r] * product;
        }
        EXPECT_NEAR(scores[i], sum, 1e-3);
      }
    }
  }
}

// Up to a power of two, and within what rounding inputs and weights costs.
TEST(LowRankPredictorTest, QuantizedScoresAreNearTheExactOnes) {
  struct Case {
    WeightType type;
    double most;  // Of the error, as a part of the scores.
  };
  for (const auto& [type, most] :
       {Case{WeightType::kQ8, 0.02}, Case{WeightType::kQ4, 0.2}}) {
    // What F16 could not have as it is, too.
    for (const float size : {1.0f, 1e-9f, 1e9f}) {
      const Shape shape{type, 70, 288, 64};
      Matrices m(shape, 1);
      for (float& v : m.a) v *= size;
      for (float& v : m.b) v /= size;
      const Shape exact_shape{WeightType::kF32, 70, 288, 64};
      const auto x = RandomNormals(shape.model_dim, 9);
      const auto bytes = m.Bytes();
      const auto exact_bytes = LowRankPredictor::Serialize(
          exact_shape, m.a.data(), m.b.data(), m.bias.data());
      const auto scores = Scores(LowRankPredictor(shape, bytes, 0), x, 1000);
      const auto expected =
          Scores(LowRankPredictor(exact_shape, exact_bytes, 0), x, 1000);
      double product = 0;
      double square = 0;
      double expected_square = 0;
      for (size_t i = 0; i < scores.size(); ++i) {
        product += double{scores[i]} * expected[i];
        square += double{scores[i]} * scores[i];
        expected_square += double{expected[i]} * expected[i];
      }
      const double scale = product / expected_square;
      EXPECT_NEAR(std::log2(scale), std::round(std::log2(scale)), 0.05);
      EXPECT_LT(std::sqrt(square / (scale * scale * expected_square) - 1), most)
          << size;
    }
  }
}

TEST(LowRankPredictorTest, EverySplitAndAddressGivesTheSameBits) {
  for (const WeightType type : {WeightType::kF32, WeightType::kBf16,
                                WeightType::kQ8, WeightType::kQ4}) {
    const bool is_quantized = IsQuantized(type);
    const Shape shape{type, 103, is_quantized ? 64u : 40u,
                      is_quantized ? 32u : 12u};
    const auto bytes = Matrices(shape, 3).Bytes();
    const auto x = RandomNormals(shape.model_dim, 4);
    const auto expected = Scores(LowRankPredictor(shape, bytes, 0), x, 103);
    for (const size_t step : {1, 5, 64}) {
      EXPECT_EQ(Scores(LowRankPredictor(shape, bytes, 0), x, step), expected);
    }
    std::vector<std::byte> moved(bytes.size() + 1);
    std::copy(bytes.begin(), bytes.end(), moved.begin() + 1);
    EXPECT_EQ(
        Scores(LowRankPredictor(shape, std::span(moved).subspan(1), 0), x, 103),
        expected);
  }
}

TEST(LowRankPredictorTest, TheLayoutIsAThenBThenBias) {
  const Shape shape{WeightType::kBf16, 3, 5, 2};
  const Matrices m(shape, 5);
  const auto bytes = m.Bytes();
  ASSERT_EQ(bytes.size(), 2u * (2 * 5 + 3 * 2) + 4 * 3);
  Bf16 half;
  std::memcpy(&half, bytes.data() + 2 * 9, 2);
  EXPECT_EQ(half, Bf16FromF32(m.a[9]));
  std::memcpy(&half, bytes.data() + 2 * 10, 2);
  EXPECT_EQ(half, Bf16FromF32(m.b[0]));
  float bias;
  std::memcpy(&bias, bytes.data() + 2 * 16 + 4, 4);
  EXPECT_EQ(bias, m.bias[1]);
}

TEST(LowRankPredictorTest, SaysWhatItTakesAndWhatItCannotBe) {
  const Shape shape{WeightType::kF32, 10, 20, 3};
  const auto bytes = Matrices(shape, 6).Bytes();
  const LowRankPredictor predictor(shape, bytes, -0.5f);
  EXPECT_EQ(predictor.num_bytes(), 4u * (60 + 30 + 10));
  EXPECT_EQ(predictor.num_neurons(), 10u);
  EXPECT_EQ(predictor.model_dim(), 20u);
  EXPECT_EQ(predictor.prepared_floats(), 3u);
  EXPECT_EQ(predictor.threshold(), -0.5f);

  EXPECT_TRUE(LowRankPredictor::IsValid(shape));
  EXPECT_TRUE(LowRankPredictor::IsValid({WeightType::kQ8, 1, 32, 64}));
  EXPECT_FALSE(LowRankPredictor::IsValid({WeightType::kQ8, 32, 48, 32}));
  EXPECT_FALSE(LowRankPredictor::IsValid({WeightType::kQ4, 32, 32, 48}));
  EXPECT_FALSE(LowRankPredictor::IsValid({WeightType::kF32, 0, 20, 3}));
  EXPECT_FALSE(LowRankPredictor::IsValid({WeightType::kF32, 10, 0, 3}));
  EXPECT_FALSE(LowRankPredictor::IsValid({WeightType::kF32, 10, 20, 0}));
  EXPECT_FALSE(LowRankPredictor::IsValid({WeightType::kF32, 10, 20, ~0u}));
}

}  // namespace
}  // namespace flashelm
