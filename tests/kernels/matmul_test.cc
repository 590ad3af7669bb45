#include "kernels/matmul.h"

#include "kernels/reference.h"
#include "tests/kernels/kernel_test.h"

namespace flashelm {
namespace {

constexpr WeightType kAllTypes[] = {WeightType::kF32, WeightType::kBf16,
                                    WeightType::kQ8, WeightType::kQ4};

constexpr MatrixShape kMatMulShapes[] = {
    {"no rows", 0, 64, 2},
    {"no columns", 3, 0, 2},
    {"no tokens", 3, 64, 0},
    {"one element", 1, 1, 1},
    {"shorter than a vector", 2, 3, 1},
    {"one less than the partial sums", 3, 31, 2},
    {"the partial sums", 4, 32, 3},
    {"one more than the partial sums", 5, 33, 4},
    {"whole vectors", 9, 128, 7},
    {"one element over", 6, 129, 5},
    {"some rows and tokens", 11, 95, 11},
    {"more tokens of whole vectors", 11, 96, 15},
    {"rows beyond a strip", 133, 96, 9},
    {"columns beyond whole strips", 10, 1100, 3},
    {"a 3B layer", 17, 3072, 4},
    {"many rows of a 3B layer", 67, 3072, 7},
    {"many columns and rows", 19, 1056, 10},
    {"one token of a 3B layer", 18, 3072, 1},
};

std::vector<float> RunMatMul(const WeightView& w, const MatrixShape& shape,
                             const std::vector<float>& x) {
  const size_t out_stride = shape.num_rows + kStrideGap;
  std::vector<float> out(shape.num_tokens * out_stride, 7.0f);
  MatMul(w, shape.num_rows, shape.num_cols, x.data(),
         shape.num_cols + kStrideGap, shape.num_tokens, out.data(), out_stride);
  return out;
}

class MatMulTest : public TargetTest {};
FLASHELM_TEST_ALL_TARGETS(MatMulTest);

TEST_P(MatMulTest, StaysWithinTheErrorBoundOfTheReference) {
  for (const WeightType type : kFloatTypes) {
    for (const MatrixShape& s : kMatMulShapes) {
      SCOPED_TRACE(s.name);
      const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/1);
      const std::vector<float> x = RandomTokens(s, /*seed=*/2);
      const size_t x_stride = s.num_cols + kStrideGap;
      const size_t out_stride = s.num_rows + kStrideGap;
      std::vector<double> expected(s.num_tokens * out_stride, 7.0);
      reference::MatMul(w.view(), s.num_rows, s.num_cols, x.data(), x_stride,
                        s.num_tokens, expected.data(), out_stride);
      const std::vector<float> out = RunMatMul(w.view(), s, x);
      for (size_t t = 0; t < s.num_tokens; ++t) {
        for (size_t r = 0; r < out_stride; ++r) {
          double magnitude = 0;
          for (size_t k = 0; r < s.num_rows && k < s.num_cols; ++k) {
            magnitude += std::abs(
                static_cast<double>(reference::WeightAt(w.view(), r, k)) *
                x[t * x_stride + k]);
          }
          const double n = static_cast<double>(s.num_cols);
          const double bound =
              (n / 32 + 7) * kEpsilon * magnitude + n * kLeastSubnormal;
          ASSERT_NEAR(out[t * out_stride + r], expected[t * out_stride + r],
                      bound)
              << "token " << t << ", row " << r;
        }
      }
    }
  }
}

TEST_P(MatMulTest, FollowsTheCanonicalOrderBitForBit) {
  for (const WeightType type : kFloatTypes) {
    for (const MatrixShape& s : kMatMulShapes) {
      SCOPED_TRACE(s.name);
      const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/3);
      const std::vector<float> x = RandomTokens(s, /*seed=*/4);
      std::vector<float> expected(s.num_tokens * (s.num_rows + kStrideGap),
                                  7.0f);
      for (size_t t = 0; t < s.num_tokens; ++t) {
        for (size_t r = 0; r < s.num_rows; ++r) {
          expected[t * (s.num_rows + kStrideGap) + r] = reference::CanonicalDot(
              w.view(), r, s.num_cols, x.data() + t * (s.num_cols + kStrideGap),
              HasFma(GetParam()));
        }
      }
      EXPECT_TRUE(HaveEqualBits(RunMatMul(w.view(), s, x), expected));
    }
  }
}

TEST_P(MatMulTest, OneTokenAtATimeHasTheBitsOfTheBatch) {
  for (const auto& [type, num_cols] :
       {std::pair(WeightType::kF32, 101), std::pair(WeightType::kF32, 544),
        std::pair(WeightType::kBf16, 101), std::pair(WeightType::kBf16, 544)}) {
    const MatrixShape s = {"", 19, static_cast<size_t>(num_cols), 10};
    const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/5);
    const std::vector<float> x = RandomFloats(s.num_tokens * s.num_cols, 6);
    std::vector<float> batch(s.num_tokens * s.num_rows);
    MatMul(w.view(), s.num_rows, s.num_cols, x.data(), s.num_cols, s.num_tokens,
           batch.data(), s.num_rows);
    std::vector<float> single(batch.size());
    for (size_t t = 0; t < s.num_tokens; ++t) {
      MatMul(w.view(), s.num_rows, s.num_cols, x.data() + t * s.num_cols, 0, 1,
             single.data() + t * s.num_rows, 0);
    }
    EXPECT_TRUE(HaveEqualBits(single, batch));
  }
}

TEST_P(MatMulTest, AnySplitOfTheRowsHasTheSameBits) {
  for (const auto& [type, num_cols] :
       {std::pair(WeightType::kF32, 101), std::pair(WeightType::kF32, 544),
        std::pair(WeightType::kBf16, 101), std::pair(WeightType::kBf16, 544)}) {
    const MatrixShape s = {"", 19, static_cast<size_t>(num_cols), 10};
    const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/7);
    const std::vector<float> x = RandomFloats(s.num_tokens * s.num_cols, 8);
    std::vector<float> whole(s.num_tokens * s.num_rows);
    MatMul(w.view(), s.num_rows, s.num_cols, x.data(), s.num_cols, s.num_tokens,
           whole.data(), s.num_rows);
    for (size_t split = 0; split <= s.num_rows; ++split) {
      std::vector<float> parts(whole.size());
      MatMul(w.view(), split, s.num_cols, x.data(), s.num_cols, s.num_tokens,
             parts.data(), s.num_rows);
      MatMul(w.view(split), s.num_rows - split, s.num_cols, x.data(),
             s.num_cols, s.num_tokens, parts.data() + split, s.num_rows);
      EXPECT_TRUE(HaveEqualBits(parts, whole)) << "split at " << split;
    }
  }
}

TEST_P(MatMulTest, UnalignedAndDistantRowsHaveTheSameBits) {
  const MatrixShape s = {"", 7, 101, 5};
  for (const WeightType type : kFloatTypes) {
    const std::vector<float> x = RandomTokens(s, /*seed=*/9);
    const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/10);
    const std::vector<float> expected = RunMatMul(w.view(), s, x);
    for (const size_t gap_bytes : {1, 2, 3, 54, 4096}) {
      for (const size_t offset_bytes : {0, 1, 2, 3}) {
        const RandomWeights moved(s.num_rows, s.num_cols, type, /*seed=*/10,
                                  gap_bytes, offset_bytes);
        EXPECT_TRUE(HaveEqualBits(RunMatMul(moved.view(), s, x), expected))
            << "gap " << gap_bytes << ", offset " << offset_bytes;
      }
    }
  }
}

TEST_P(MatMulTest, ReadsNothingPastTheEnds) {
  for (const WeightType type : kFloatTypes) {
    for (size_t num_cols = 0; num_cols <= 70; ++num_cols) {
      for (const size_t num_tokens : {1, 4, 9}) {
        const size_t num_rows = 5;
        const RandomWeights weights(num_rows, num_cols, type, 1);
        const GuardedCopy w(weights.view().data,
                            num_rows * RowBytes(type, num_cols));
        const GuardedCopy x(RandomFloats(num_tokens * num_cols, 2));
        const GuardedCopy out(std::vector<float>(num_tokens * num_rows));
        MatMul(ViewOfRows(w.bytes(), RowBytes(type, num_cols), type, num_cols),
               num_rows, num_cols, x.floats(), num_cols, num_tokens,
               out.floats(), num_rows);
      }
    }
  }
}

TEST(MatMulTargetsTest, TargetsWithFusedMultiplyAddAgreeBitForBit) {
  StoredAnswers bits("kernel_bits/matmul");
  for (const WeightType type : kFloatTypes) {
    for (const MatrixShape& s : kMatMulShapes) {
      SCOPED_TRACE(s.name);
      const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/11);
      const std::vector<float> x = RandomTokens(s, /*seed=*/12);
      ExpectTargetsAgree([&] { return RunMatMul(w.view(), s, x); }, bits);
    }
  }
  ExpectStoredBits(bits);
}

std::vector<float> RunAddScaledRows(const WeightView& w, const MatrixShape& s,
                                    const std::vector<float>& scale) {
  std::vector<float> y =
      RandomFloats(s.num_tokens * (s.num_cols + kStrideGap), /*seed=*/20);
  AddScaledRows(w, s.num_rows, s.num_cols, scale.data(),
                s.num_rows + kStrideGap, s.num_tokens, y.data(),
                s.num_cols + kStrideGap);
  return y;
}

// A quantized matrix is whole groups.
std::vector<MatrixShape> ShapesOf(WeightType type) {
  std::vector<MatrixShape> shapes(std::begin(kMatMulShapes),
                                  std::end(kMatMulShapes));
  for (MatrixShape& shape : shapes) {
    if (IsQuantized(type)) {
      shape.num_cols =
          (shape.num_cols + kQuantGroup - 1) / kQuantGroup * kQuantGroup;
    }
  }
  return shapes;
}

std::vector<float> RandomScales(const MatrixShape& s, uint32_t seed) {
  return RandomFloats(s.num_tokens * (s.num_rows + kStrideGap), seed);
}

class AddScaledRowsTest : public TargetTest {};
FLASHELM_TEST_ALL_TARGETS(AddScaledRowsTest);

TEST_P(AddScaledRowsTest, StaysWithinTheErrorBoundOfTheReference) {
  for (const WeightType type : kAllTypes) {
    for (const MatrixShape& s : ShapesOf(type)) {
      SCOPED_TRACE(s.name);
      const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/21);
      const std::vector<float> scale = RandomScales(s, /*seed=*/22);
      const size_t scale_stride = s.num_rows + kStrideGap;
      const size_t y_stride = s.num_cols + kStrideGap;
      const std::vector<float> before =
          RandomFloats(s.num_tokens * y_stride, /*seed=*/20);
      std::vector<double> expected(before.begin(), before.end());
      reference::AddScaledRows(w.view(), s.num_rows, s.num_cols, scale.data(),
                               scale_stride, s.num_tokens, expected.data(),
                               y_stride);
      const std::vector<float> y = RunAddScaledRows(w.view(), s, scale);
      for (size_t t = 0; t < s.num_tokens; ++t) {
        for (size_t d = 0; d < y_stride; ++d) {
          double magnitude = std::abs(before[t * y_stride + d]);
          for (size_t i = 0; d < s.num_cols && i < s.num_rows; ++i) {
            magnitude += std::abs(
                static_cast<double>(reference::WeightAt(w.view(), i, d)) *
                scale[t * scale_stride + i]);
          }
          const double n = static_cast<double>(s.num_rows);
          const double bound =
              (n + 1) * kEpsilon * magnitude + n * kLeastSubnormal;
          ASSERT_NEAR(y[t * y_stride + d], expected[t * y_stride + d], bound)
              << "token " << t << ", column " << d;
        }
      }
    }
  }
}

TEST_P(AddScaledRowsTest, AddsOneRowAfterAnotherBitForBit) {
  for (const WeightType type : kAllTypes) {
    for (const MatrixShape& s : ShapesOf(type)) {
      SCOPED_TRACE(s.name);
      const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/30);
      const std::vector<float> scale = RandomScales(s, /*seed=*/31);
      std::vector<float> expected =
          RandomFloats(s.num_tokens * (s.num_cols + kStrideGap), /*seed=*/20);
      for (size_t t = 0; t < s.num_tokens; ++t) {
        for (size_t i = 0; i < s.num_rows; ++i) {
          for (size_t d = 0; d < s.num_cols; ++d) {
            const float weight = reference::WeightAt(w.view(), i, d);
            const float factor = scale[t * (s.num_rows + kStrideGap) + i];
            float& y = expected[t * (s.num_cols + kStrideGap) + d];
            if (HasFma(GetParam())) {
              y = std::fma(factor, weight, y);
            } else {
              const float product = factor * weight;
              y = y + product;
            }
          }
        }
      }
      EXPECT_TRUE(
          HaveEqualBits(RunAddScaledRows(w.view(), s, scale), expected));
    }
  }
}

TEST_P(AddScaledRowsTest, WhatIsFetchedMeanwhileChangesNoBit) {
  const std::vector<std::byte> next(20'000);
  for (const WeightType type : {WeightType::kF32, WeightType::kBf16}) {
    for (const size_t num_rows : {1, 2, 3, 7, 8, 9, 16, 17}) {
      constexpr size_t kCols = 100;
      const RandomWeights w(num_rows, kCols, type, /*seed=*/21);
      const std::vector<float> scale = RandomFloats(num_rows, 22);
      std::vector<float> expected = RandomFloats(kCols, 23);
      std::vector<float> y = expected;
      AddScaledRows(w.view(), num_rows, kCols, scale.data(), 0, 1,
                    expected.data(), 0);
      AddScaledRows(w.view(), num_rows, kCols, scale.data(), 0, 1, y.data(), 0,
                    next);
      EXPECT_TRUE(HaveEqualBits(y, expected)) << num_rows << " rows";
    }
  }
}

TEST_P(AddScaledRowsTest, OneTokenOrOneRowAtATimeHasTheBitsOfTheBatch) {
  for (const WeightType type : kAllTypes) {
    const MatrixShape s = {"", 19, IsQuantized(type) ? 1120u : 1101u, 3};
    const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/23);
    const std::vector<float> scale =
        RandomFloats(s.num_tokens * s.num_rows, 24);
    const std::vector<float> before =
        RandomFloats(s.num_tokens * s.num_cols, /*seed=*/25);
    std::vector<float> batch = before;
    AddScaledRows(w.view(), s.num_rows, s.num_cols, scale.data(), s.num_rows,
                  s.num_tokens, batch.data(), s.num_cols);
    std::vector<float> by_token = before;
    std::vector<float> by_row = before;
    for (size_t t = 0; t < s.num_tokens; ++t) {
      AddScaledRows(w.view(), s.num_rows, s.num_cols,
                    scale.data() + t * s.num_rows, 0, 1,
                    by_token.data() + t * s.num_cols, 0);
    }
    for (size_t i = 0; i < s.num_rows; ++i) {
      AddScaledRows(w.view(i), 1, s.num_cols, scale.data() + i, s.num_rows,
                    s.num_tokens, by_row.data(), s.num_cols);
    }
    EXPECT_TRUE(HaveEqualBits(by_token, batch));
    EXPECT_TRUE(HaveEqualBits(by_row, batch));
  }
}

TEST_P(AddScaledRowsTest, RowsAnywhereHaveTheBitsOfOneAfterAnother) {
  for (const WeightType type : kAllTypes) {
    // Scales are taken in several steps of a row, elements may not fill one.
    const size_t num_cols = IsQuantized(type) ? 1120u : 1101u;
    for (const size_t num_rows : {0, 1, 7, 8, 16, 29}) {
      const RandomWeights w(num_rows + 2, num_cols, type, /*seed=*/28,
                            /*gap_bytes=*/3, /*offset_bytes=*/1);
      const std::vector<float> scale = RandomFloats(num_rows, 29);
      std::vector<float> by_row = RandomFloats(num_cols, 30);
      std::vector<float> at_once = by_row;
      std::vector<const std::byte*> rows;
      size_t scales_offset = 0;
      for (size_t i = 0; i < num_rows; ++i) {
        // Backwards, one after another and two steps apart in turn.
        const WeightView row = w.view(num_rows - (i ^ 1));
        rows.push_back(row.data);
        if (IsQuantized(type)) {
          scales_offset = static_cast<size_t>(row.scales - row.data);
        }
        AddScaledRows(row, 1, num_cols, scale.data() + i, 1, 1, by_row.data(),
                      num_cols);
      }
      AddScaledRowsAt(rows.data(), type, scales_offset, num_rows, num_cols,
                      scale.data(), at_once.data());
      EXPECT_TRUE(HaveEqualBits(at_once, by_row)) << num_rows << " rows";
    }
  }
}

TEST_P(AddScaledRowsTest, AnySplitOfTheColumnsHasTheSameBits) {
  for (const WeightType type : kAllTypes) {
    const size_t step = IsQuantized(type) ? kQuantGroup : 1;
    const MatrixShape s = {"", 11, IsQuantized(type) ? 608u : 67u, 2};
    const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/26,
                          /*gap_bytes=*/3, /*offset_bytes=*/1);
    const std::vector<float> scale =
        RandomFloats(s.num_tokens * s.num_rows, 27);
    std::vector<float> whole(s.num_tokens * s.num_cols);
    AddScaledRows(w.view(), s.num_rows, s.num_cols, scale.data(), s.num_rows,
                  s.num_tokens, whole.data(), s.num_cols);
    for (size_t split = 0; split <= s.num_cols; split += step) {
      std::vector<float> parts(whole.size());
      AddScaledRows(w.view(), s.num_rows, split, scale.data(), s.num_rows,
                    s.num_tokens, parts.data(), s.num_cols);
      AddScaledRows(w.view(0, split), s.num_rows, s.num_cols - split,
                    scale.data(), s.num_rows, s.num_tokens,
                    parts.data() + split, s.num_cols);
      EXPECT_TRUE(HaveEqualBits(parts, whole)) << "split at " << split;
    }
  }
}

TEST_P(AddScaledRowsTest, ReadsNothingPastTheEnds) {
  for (const WeightType type : kAllTypes) {
    const size_t step = IsQuantized(type) ? kQuantGroup : 1;
    for (size_t num_cols = 0; num_cols <= 40 * step; num_cols += step) {
      for (const size_t num_tokens : {1, 9}) {
        const size_t num_rows = 9;
        const RandomWeights weights(num_rows, num_cols, type, 1);
        const GuardedCopy w(weights.view().data,
                            num_rows * RowBytes(type, num_cols));
        const GuardedCopy scale(RandomFloats(num_tokens * num_rows, 2));
        const GuardedCopy y(RandomFloats(num_tokens * num_cols, 3));
        AddScaledRows(
            ViewOfRows(w.bytes(), RowBytes(type, num_cols), type, num_cols),
            num_rows, num_cols, scale.floats(), num_rows, num_tokens,
            y.floats(), num_cols);
      }
    }
  }
}

TEST(AddScaledRowsTargetsTest, TargetsWithFusedMultiplyAddAgreeBitForBit) {
  StoredAnswers bits("kernel_bits/add_scaled_rows");
  for (const WeightType type : kAllTypes) {
    for (const MatrixShape& s : ShapesOf(type)) {
      SCOPED_TRACE(s.name);
      const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/28);
      const std::vector<float> scale = RandomScales(s, /*seed=*/29);
      ExpectTargetsAgree([&] { return RunAddScaledRows(w.view(), s, scale); },
                         bits);
    }
  }
  ExpectStoredBits(bits);
}

}  // namespace
}  // namespace flashelm
