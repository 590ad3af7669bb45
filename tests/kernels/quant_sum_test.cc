#include "kernels/quant_sum.h"

#include "kernels/reference.h"
#include "tests/kernels/kernel_test.h"

namespace flashelm {
namespace {

constexpr MatrixShape kSumShapes[] = {
    {"no rows", 0, 64, 2},
    {"no columns", 3, 0, 5},
    {"no tokens", 3, 64, 0},
    {"one row, one group", 1, 32, 1},
    {"a short block of a batch", 5, 96, 9},
    {"one block, a strip", 32, 512, 1},
    {"a row more than a block, a group more than a strip", 33, 544, 2},
    {"a batch of two blocks", 64, 1024, 8},
    {"blocks and strips with a rest", 95, 640, 19},
    {"more blocks than join at once", 300, 96, 7},
    {"the columns of 3B", 64, 3072, 3},
};

size_t FactorsStride(const MatrixShape& s) { return s.num_rows + kStrideGap; }
size_t YStride(const MatrixShape& s) { return s.num_cols + kStrideGap; }

std::vector<float> RandomFactors(const MatrixShape& s, float magnitude = 1) {
  return RandomFloats(s.num_tokens * FactorsStride(s), /*seed=*/2, magnitude);
}

std::vector<float> RandomSums(const MatrixShape& s, float magnitude = 1) {
  return RandomFloats(s.num_tokens * YStride(s), /*seed=*/3, magnitude);
}

// For one test at a time.
std::byte* Workspace() {
  static std::vector<std::byte> bytes;
  bytes.assign(QuantSumWorkspaceBytes() + 64, std::byte{0xFF});
  const auto address = reinterpret_cast<uintptr_t>(bytes.data());
  return bytes.data() + (64 - address % 64) % 64;
}

void RunSum(const WeightView& w, const MatrixShape& s,
            const std::vector<float>& factors, std::vector<float>& y) {
  AddQuantRows(w, s.num_rows, s.num_cols, factors.data(), FactorsStride(s),
               s.num_tokens, Workspace(), y.data(), YStride(s));
}

class QuantSumTest : public TargetTest {
 protected:
  bool is_fused() const { return HasFma(GetParam()); }
};
FLASHELM_TEST_ALL_TARGETS(QuantSumTest);

TEST_P(QuantSumTest, HasTheBitsOfTheCanonicalArithmetic) {
  for (const WeightType type : kQuantTypes) {
    for (const MatrixShape& s : kSumShapes) {
      SCOPED_TRACE(s.name);
      const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/1,
                            /*gap_bytes=*/5, /*offset_bytes=*/3);
      for (const float magnitude : {1.0f, 3e-20f, 1e-26f, 1e25f}) {
        const std::vector<float> factors = RandomFactors(s, magnitude);
        std::vector<float> y = RandomSums(s, magnitude);
        std::vector<float> expected = y;
        RunSum(w.view(), s, factors, y);
        for (size_t t = 0; t < s.num_tokens; ++t) {
          reference::AddQuantRows(w.view(), s.num_rows, s.num_cols,
                                  factors.data() + t * FactorsStride(s),
                                  is_fused(), expected.data() + t * YStride(s));
        }
        EXPECT_TRUE(HaveEqualBits(y, expected)) << "magnitude " << magnitude;
      }
    }
  }
}

TEST_P(QuantSumTest, TheHighNibblesOfQ8RunAloneAsQ4) {
  for (const size_t num_tokens : {1, 6}) {
    const MatrixShape s = {"", 70, 288, num_tokens};
    const RandomWeights q8(s.num_rows, s.num_cols, WeightType::kQ8, /*seed=*/1);
    const HighNibbles high(q8.view(), s.num_rows, s.num_cols);
    const std::vector<float> factors = RandomFactors(s);
    std::vector<float> of_q4 = RandomSums(s);
    std::vector<float> of_q8 = of_q4;
    RunSum(high.q4(), s, factors, of_q4);
    RunSum(high.q8(), s, factors, of_q8);
    EXPECT_TRUE(HaveEqualBits(of_q4, of_q8));
  }
}

TEST_P(QuantSumTest, ColumnsAndBlocksCanBeSplit) {
  const MatrixShape s = {"", 80, 704, 5};
  for (const WeightType type : kQuantTypes) {
    const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/1);
    const std::vector<float> factors = RandomFactors(s);
    std::vector<float> whole = RandomSums(s);
    std::vector<float> parts = whole;
    RunSum(w.view(), s, factors, whole);
    for (const size_t row : {0, 32, 64}) {
      const size_t rows = std::min<size_t>(kQuantSumRows, s.num_rows - row);
      for (const auto& [begin, end] :
           {std::pair<size_t, size_t>{0, 32}, {32, 576}, {576, 704}}) {
        AddQuantRows(w.view(row, begin), rows, end - begin,
                     factors.data() + row, FactorsStride(s), s.num_tokens,
                     Workspace(), parts.data() + begin, YStride(s));
      }
    }
    EXPECT_TRUE(HaveEqualBits(whole, parts));
  }
}

TEST_P(QuantSumTest, SumsOfTheLargestProductsAreExact) {
  const MatrixShape s = {"", 32, 64, 3};
  for (const WeightType type : kQuantTypes) {
    for (const int byte : {0x80, 0x77, 0x00, 0xFF}) {
      std::vector<std::byte> rows(s.num_rows * RowBytes(type, s.num_cols),
                                  static_cast<std::byte>(byte));
      const WeightView w =
          ViewOfRows(rows.data(), RowBytes(type, s.num_cols), type, s.num_cols);
      const F16 one = F16FromF32(1);
      for (size_t r = 0; r < s.num_rows; ++r) {
        for (size_t g = 0; g < 2; ++g) {
          std::memcpy(rows.data() + r * w.stride_bytes +
                          ElementsBytes(type, s.num_cols) + g * sizeof(one),
                      &one, sizeof(one));
        }
      }
      for (const float factor : {1.0f, -1.0f}) {
        const std::vector<float> factors(s.num_tokens * FactorsStride(s),
                                         factor);
        std::vector<float> y(s.num_tokens * YStride(s), 0.0f);
        std::vector<float> expected = y;
        RunSum(w, s, factors, y);
        for (size_t t = 0; t < s.num_tokens; ++t) {
          reference::AddQuantRows(w, s.num_rows, s.num_cols,
                                  factors.data() + t * FactorsStride(s),
                                  is_fused(), expected.data() + t * YStride(s));
        }
        EXPECT_TRUE(HaveEqualBits(y, expected))
            << "codes " << byte << ", factor " << factor;
      }
    }
  }
}

TEST_P(QuantSumTest, FactorsThatAreNotFiniteMakeTheirTokenNan) {
  const MatrixShape s = {"", 40, 64, 9};
  for (const WeightType type : kQuantTypes) {
    const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/1);
    for (const float bad : {std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::quiet_NaN()}) {
      std::vector<float> factors = RandomFactors(s);
      factors[4 * FactorsStride(s) + 37] = bad;
      std::vector<float> y = RandomSums(s);
      RunSum(w.view(), s, factors, y);
      for (size_t t = 0; t < s.num_tokens; ++t) {
        for (size_t k = 0; k < s.num_cols; ++k) {
          EXPECT_EQ(std::isnan(y[t * YStride(s) + k]), t == 4);
        }
      }
    }
  }
}

TEST_P(QuantSumTest, ScalesMayBeZero) {
  const MatrixShape s = {"", 32, 64, 3};
  for (const WeightType type : kQuantTypes) {
    std::vector<std::byte> rows(s.num_rows * RowBytes(type, s.num_cols),
                                std::byte{0x35});
    const WeightView w =
        ViewOfRows(rows.data(), RowBytes(type, s.num_cols), type, s.num_cols);
    for (size_t r = 0; r < s.num_rows; ++r) {
      // The groups: all 0; 0 but for one row.
      const F16 scales[] = {F16FromF32(0), F16FromF32(r == 7 ? 0.5f : 0)};
      std::memcpy(
          rows.data() + r * w.stride_bytes + ElementsBytes(type, s.num_cols),
          scales, sizeof(scales));
    }
    const std::vector<float> factors = RandomFactors(s);
    const std::vector<float> before = RandomSums(s);
    std::vector<float> y = before;
    RunSum(w, s, factors, y);
    for (size_t t = 0; t < s.num_tokens; ++t) {
      for (size_t k = 0; k < 32; ++k) {
        const float* at = y.data() + t * YStride(s) + k;
        EXPECT_EQ(at[0], before[t * YStride(s) + k]);
        EXPECT_NEAR(at[32],
                    before[t * YStride(s) + k + 32] +
                        factors[t * FactorsStride(s) + 7] *
                            reference::WeightAt(w, 7, k + 32),
                    0.1);
        EXPECT_NE(at[32], before[t * YStride(s) + k + 32]);
      }
    }
  }
}

TEST_P(QuantSumTest, StaysWithinTheErrorBoundOfTheExactSum) {
  const MatrixShape s = {"", 70, 96, 2};
  for (const WeightType type : kQuantTypes) {
    const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/1);
    const std::vector<float> factors = RandomFactors(s);
    std::vector<float> y(s.num_tokens * YStride(s), 0.0f);
    RunSum(w.view(), s, factors, y);
    for (size_t t = 0; t < s.num_tokens; ++t) {
      const float* f = factors.data() + t * FactorsStride(s);
      for (size_t k = 0; k < s.num_cols; ++k) {
        double exact = 0;
        double bound = 0;
        for (size_t first = 0; first < s.num_rows; first += kQuantSumRows) {
          const size_t last = std::min(first + kQuantSumRows, s.num_rows);
          double max_factor = 0;
          double max_scale = 0;
          double codes = 0;
          for (size_t i = first; i < last; ++i) {
            const int code = reference::CodeAt(w.view(), i, k);
            const double weight = reference::WeightAt(w.view(), i, k);
            exact += f[i] * weight;
            codes += std::abs(code);
            max_factor = std::max<double>(max_factor, std::abs(f[i]));
            max_scale = std::max<double>(
                max_scale, std::abs(reference::ScaleAt(w.view(), i, k)) /
                               (type == WeightType::kQ8 ? 16 : 1));
          }
          bound += (max_factor / 253 + 0x1p-80) * max_scale * codes;
        }
        // Three blocks, each rounded twice at most.
        bound += 6 * kEpsilon * (std::abs(exact) + bound);
        EXPECT_NEAR(y[t * YStride(s) + k], exact, bound);
      }
    }
  }
}

TEST_P(QuantSumTest, ReadsNothingPastTheLastRow) {
  const MatrixShape s = {"", 33, 96, 2};
  for (const WeightType type : kQuantTypes) {
    const size_t stride = RowBytes(type, s.num_cols);
    const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/1);
    const GuardedCopy guarded(w.view().data, s.num_rows * stride);
    const std::vector<float> factors = RandomFactors(s);
    std::vector<float> y = RandomSums(s);
    std::vector<float> expected = y;
    RunSum(w.view(), s, factors, expected);
    RunSum(ViewOfRows(guarded.bytes(), stride, type, s.num_cols), s, factors,
           y);
    EXPECT_TRUE(HaveEqualBits(y, expected));
  }
}

TEST(QuantSumTargetsTest, Agree) {
  StoredAnswers bits("kernel_bits/quant_sum");
  const MatrixShape s = {"", 64, 640, 5};
  for (const WeightType type : kQuantTypes) {
    const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/1);
    ExpectTargetsAgree(
        [&] {
          std::vector<float> y = RandomSums(s);
          RunSum(w.view(), s, RandomFactors(s), y);
          return y;
        },
        bits);
  }
  ExpectStoredBits(bits);
}

}  // namespace
}  // namespace flashelm
