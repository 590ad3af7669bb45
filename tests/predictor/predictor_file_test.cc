#include "predictor/predictor_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "tests/predictor/random.h"

namespace flashelm {
namespace {

constexpr uint32_t kNumNeurons = 40;
constexpr uint32_t kModelDim = 32;

std::vector<float> ScoresOf(const Predictor& predictor) {
  const std::vector<float> x = RandomNormals(kModelDim, 1);
  std::vector<float> prepared(predictor.prepared_floats());
  std::vector<float> scores(kNumNeurons);
  predictor.Prepare(x.data(), prepared.data());
  predictor.Score(prepared.data(), 0, kNumNeurons, scores.data());
  return scores;
}

std::vector<std::byte> StoredLowBit(unsigned bits, float threshold) {
  const LowBitGate::Shape shape = {bits, kNumNeurons, kModelDim};
  std::vector<std::byte> weights(LowBitGate::NumBytes(shape));
  const std::vector<float> rows = RandomNormals(kNumNeurons * kModelDim, 2);
  LowBitGate::Quantize(shape, rows.data(), 0, kNumNeurons, weights);
  return StorePredictor(shape, threshold, weights);
}

TEST(PredictorFileTest, GivesThePredictorBack) {
  for (const unsigned bits : {1u, 2u}) {
    const std::vector<std::byte> bytes = StoredLowBit(bits, 0.5f);
    const auto opened = OpenPredictor(bytes, kNumNeurons, kModelDim, "it");
    ASSERT_TRUE(opened) << opened.error().message();
    EXPECT_EQ(PredictorKindName(opened->kind), "low-bit");
    EXPECT_EQ(opened->predictor->threshold(), 0.5f);
    const LowBitGate gate({bits, kNumNeurons, kModelDim},
                          std::span(bytes).subspan(kPredictorHeaderBytes), 0);
    EXPECT_EQ(ScoresOf(*opened->predictor), ScoresOf(gate));
    EXPECT_EQ(*ReadPredictorKind(bytes, "it"), opened->kind);
    EXPECT_GE(MaxPreparedFloats(bytes.size(), kNumNeurons, kModelDim),
              opened->predictor->prepared_floats());
  }
  for (const WeightType type : {WeightType::kF32, WeightType::kBf16,
                                WeightType::kQ8, WeightType::kQ4}) {
    const uint32_t rank = IsQuantized(type) ? 32 : 3;
    const LowRankPredictor::Shape shape = {type, kNumNeurons, kModelDim, rank};
    const std::vector<std::byte> weights = LowRankPredictor::Serialize(
        shape, RandomNormals(rank * kModelDim, 3).data(),
        RandomNormals(kNumNeurons * rank, 4).data(),
        RandomNormals(kNumNeurons, 5).data());
    const std::vector<std::byte> bytes = StorePredictor(shape, -2, weights);
    const auto opened = OpenPredictor(bytes, kNumNeurons, kModelDim, "it");
    ASSERT_TRUE(opened) << opened.error().message();
    EXPECT_EQ(PredictorKindName(opened->kind), "low-rank");
    EXPECT_EQ(opened->predictor->threshold(), -2);
    EXPECT_EQ(ScoresOf(*opened->predictor),
              ScoresOf(LowRankPredictor(shape, weights, 0)));
    EXPECT_EQ(*ReadPredictorKind(bytes, "it"), opened->kind);
  }
}

TEST(PredictorFileTest, NoRankIsPreparedInMoreThanTheMost) {
  for (const WeightType type : {WeightType::kF32, WeightType::kBf16,
                                WeightType::kQ8, WeightType::kQ4}) {
    for (const uint32_t rank : {1u, 32u, 100u, 1024u}) {
      const LowRankPredictor::Shape shape = {type, kNumNeurons, kModelDim,
                                             rank};
      if (!LowRankPredictor::IsValid(shape)) continue;
      EXPECT_GE(MaxPreparedFloats(
                    kPredictorHeaderBytes + LowRankPredictor::NumBytes(shape),
                    kNumNeurons, kModelDim),
                LowRankPredictor::PreparedFloats(shape));
    }
  }
}

TEST(PredictorFileTest, KnowsNoOtherKind) {
  std::vector<std::byte> bytes = StoredLowBit(2, 0);
  EXPECT_FALSE(ReadPredictorKind(
      std::span(bytes).first(kPredictorHeaderBytes - 1), "it"));
  for (const int kind : {0, 3}) {
    bytes[0] = static_cast<std::byte>(kind);
    const auto read = ReadPredictorKind(bytes, "it");
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code(), StatusCode::kDataLoss);
  }
}

TEST(PredictorFileTest, RefusesWhatIsNone) {
  const std::vector<std::byte> good = StoredLowBit(2, 1);
  const auto refused = [](const std::vector<std::byte>& bytes,
                          uint32_t num_neurons = kNumNeurons) {
    const auto opened = OpenPredictor(bytes, num_neurons, kModelDim, "it");
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code(), StatusCode::kDataLoss);
    EXPECT_EQ(opened.error().message().find("it: "), 0u);
  };
  refused({});
  refused(good, kNumNeurons + 1);
  const auto with = [&](size_t offset, auto value) {
    std::vector<std::byte> bytes = good;
    std::memcpy(bytes.data() + offset, &value, sizeof(value));
    return bytes;
  };
  refused(with(0, uint32_t{0}));
  refused(with(0, uint32_t{3}));
  refused(with(0, uint32_t{257}));
  refused(with(4, uint32_t{3}));
  refused(with(8, uint32_t{1}));
  refused(with(12, std::numeric_limits<float>::quiet_NaN()));
  for (size_t size = 0; size < good.size(); ++size) {
    refused({good.begin(), good.begin() + static_cast<ptrdiff_t>(size)});
  }
  // A rank of which the matrices would be too long.
  std::vector<std::byte> wide = with(0, uint32_t{2});
  const uint32_t rank = UINT32_MAX;
  std::memcpy(wide.data() + 4, &rank, sizeof(rank));
  refused(wide);
}

}  // namespace
}  // namespace flashelm
