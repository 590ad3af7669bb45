#include "kernels/quant_matmul.h"

#include "kernels/reference.h"
#include "tests/kernels/kernel_test.h"

namespace flashelm {
namespace {

constexpr MatrixShape kQuantShapes[] = {
    {"no rows", 0, 64, 2},
    {"no columns", 3, 0, 5},
    {"no tokens", 3, 64, 0},
    {"one group", 1, 32, 1},
    {"one group of a batch", 1, 32, 9},
    {"a pair of groups", 2, 64, 2},
    {"an odd number of groups", 5, 96, 6},
    {"one group less than the partial sums", 7, 224, 3},
    {"as many groups as partial sums", 33, 256, 4},
    {"one group more than the partial sums", 31, 288, 11},
    {"a batch of panels", 65, 320, 8},
    {"one token of a 3B layer", 18, 3072, 1},
    {"a 3B layer", 35, 3072, 17},
    {"no columns of a panel", 33, 0, 9},
    {"one group of a panel", 40, 32, 9},
    {"a large batch", 48, 352, 40},
};

// Memory that begins at a cache line.
class AlignedBytes {
 public:
  explicit AlignedBytes(size_t size)
      // NaN and codes of 127 or 255, so that what was not written shows.
      : bytes_(size + 64, std::byte{0x7F}) {}
  std::byte* data() {
    const auto address = reinterpret_cast<uintptr_t>(bytes_.data());
    return bytes_.data() + (64 - address % 64) % 64;
  }

 private:
  std::vector<std::byte> bytes_;
};

// The product with tokens that follow each other in `x`, `x_stride` apart.
std::vector<float> RunQuantMatMul(const WeightView& w, const MatrixShape& s,
                                  const float* x, size_t x_stride) {
  AlignedBytes tokens(QuantizedTokensBytes(s.num_cols, s.num_tokens));
  AlignedBytes workspace(QuantMatMulWorkspaceBytes(s.num_cols));
  QuantizeTokens(x, x_stride, s.num_cols, 0, s.num_tokens, s.num_tokens,
                 tokens.data());
  const size_t out_stride = s.num_rows + kStrideGap;
  std::vector<float> out(s.num_tokens * out_stride, 7.0f);
  QuantMatMul(w, s.num_rows, s.num_cols, tokens.data(), s.num_tokens,
              workspace.data(), out.data(), out_stride);
  return out;
}

std::vector<float> RunQuantMatMul(const WeightView& w, const MatrixShape& s,
                                  const std::vector<float>& x) {
  return RunQuantMatMul(w, s, x.data(), s.num_cols + kStrideGap);
}

std::vector<float> RunReference(const WeightView& w, const MatrixShape& s,
                                const std::vector<float>& x, bool is_fused) {
  const size_t out_stride = s.num_rows + kStrideGap;
  std::vector<float> out(s.num_tokens * out_stride, 7.0f);
  for (size_t t = 0; t < s.num_tokens; ++t) {
    const reference::QuantizedToken token = reference::QuantizeToken(
        x.data() + t * (s.num_cols + kStrideGap), s.num_cols);
    for (size_t r = 0; r < s.num_rows; ++r) {
      out[t * out_stride + r] =
          reference::QuantDot(w, r, s.num_cols, token, is_fused);
    }
  }
  return out;
}

std::vector<float> RandomQuantTokens(const MatrixShape& s, uint32_t seed,
                                     float magnitude = 1) {
  return RandomFloats(s.num_tokens * (s.num_cols + kStrideGap), seed,
                      magnitude);
}

// Rows whose codes and scales are given, scales behind the codes.
class ConstantWeights {
 public:
  ConstantWeights(const MatrixShape& s, WeightType type, uint8_t codes,
                  F16 scale)
      : type_(type),
        num_cols_(s.num_cols),
        bytes_(s.num_rows * RowBytes(type, s.num_cols), std::byte{codes}) {
    for (size_t r = 0; r < s.num_rows; ++r) {
      std::byte* scales = bytes_.data() + r * RowBytes(type, num_cols_) +
                          ElementsBytes(type, num_cols_);
      for (size_t g = 0; g < num_cols_ / kQuantGroup; ++g) {
        std::memcpy(scales + g * sizeof(scale), &scale, sizeof(scale));
      }
    }
  }
  WeightView view() const {
    return ViewOfRows(bytes_.data(), RowBytes(type_, num_cols_), type_,
                      num_cols_);
  }

 private:
  WeightType type_;
  size_t num_cols_;
  std::vector<std::byte> bytes_;
};

class QuantMatMulTest : public TargetTest {};
FLASHELM_TEST_ALL_TARGETS(QuantMatMulTest);

// q4 makes of its codes what q8 makes of 16 times as large ones.
TEST_P(QuantMatMulTest, TheHighNibblesOfQ8RunAloneAsQ4) {
  for (const size_t num_tokens : {1, 6}) {
    const MatrixShape s = {"", 33, 288, num_tokens};
    const RandomWeights q8(s.num_rows, s.num_cols, WeightType::kQ8, /*seed=*/1);
    const HighNibbles high(q8.view(), s.num_rows, s.num_cols);
    const std::vector<float> x = RandomQuantTokens(s, /*seed=*/2);
    EXPECT_TRUE(HaveEqualBits(RunQuantMatMul(high.q4(), s, x),
                              RunQuantMatMul(high.q8(), s, x)));
  }
}

TEST_P(QuantMatMulTest, HasTheBitsOfTheCanonicalArithmetic) {
  for (const WeightType type : kQuantTypes) {
    for (const MatrixShape& s : kQuantShapes) {
      SCOPED_TRACE(s.name);
      const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/1);
      for (const float magnitude : {1.0f, 3e-20f, 1e25f}) {
        const std::vector<float> x =
            RandomQuantTokens(s, /*seed=*/2, magnitude);
        EXPECT_TRUE(
            HaveEqualBits(RunQuantMatMul(w.view(), s, x),
                          RunReference(w.view(), s, x, HasFma(GetParam()))))
            << "magnitude " << magnitude;
      }
    }
  }
}

TEST_P(QuantMatMulTest, SumsOfTheLargestProductsAreExact) {
  struct Case {
    const char* name;
    WeightType type;
    uint8_t codes;
    double weight;
  };
  constexpr Case kCases[] = {
      {"q8 -128", WeightType::kQ8, 0x80, -8.0},
      {"q8 119", WeightType::kQ8, 119, 119.0 / 16},
      {"q8 -1", WeightType::kQ8, 0xFF, -1.0 / 16},
      {"q4 15", WeightType::kQ4, 0xFF, 7},
      {"q4 0", WeightType::kQ4, 0, -8},
      {"q4 15 and 0", WeightType::kQ4, 0x0F, -0.5},
  };
  for (const Case& c : kCases) {
    for (const size_t num_tokens : {1, 2, 8}) {
      const MatrixShape s = {c.name, 35, 288, num_tokens};
      const ConstantWeights w(s, c.type, c.codes, 0x3C00);
      for (const float sign : {1.0f, -1.0f}) {
        SCOPED_TRACE(c.name);
        const std::vector<float> x(num_tokens * (s.num_cols + kStrideGap),
                                   127 * sign);
        const std::vector<float> out = RunQuantMatMul(w.view(), s, x);
        for (size_t i = 0; i < out.size(); ++i) {
          const size_t r = i % (s.num_rows + kStrideGap);
          ASSERT_EQ(out[i], r < s.num_rows ? 288 * 127 * sign * c.weight : 7);
        }
      }
    }
  }
}

TEST_P(QuantMatMulTest, MixedSignsOfTheLargestCodesKeepTheBits) {
  for (const WeightType type : kQuantTypes) {
    for (const size_t num_tokens : {1, 7}) {
      const MatrixShape s = {"", 41, 512, num_tokens};
      const ConstantWeights w(s, type, type == WeightType::kQ8 ? 0x80 : 0xF0,
                              0x2E66);
      std::vector<float> x = RandomQuantTokens(s, /*seed=*/3);
      for (float& value : x) value = value < 0.3f ? -1.0f : 1.0f;
      EXPECT_TRUE(
          HaveEqualBits(RunQuantMatMul(w.view(), s, x),
                        RunReference(w.view(), s, x, HasFma(GetParam()))));
    }
  }
}

TEST_P(QuantMatMulTest, StaysWithinTheErrorBoundOfTheExactProduct) {
  for (const WeightType type : kQuantTypes) {
    for (const MatrixShape& s : kQuantShapes) {
      SCOPED_TRACE(s.name);
      const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/4);
      const std::vector<float> x = RandomQuantTokens(s, /*seed=*/5);
      const size_t x_stride = s.num_cols + kStrideGap;
      const size_t out_stride = s.num_rows + kStrideGap;
      std::vector<double> expected(s.num_tokens * out_stride, 7.0);
      reference::MatMul(w.view(), s.num_rows, s.num_cols, x.data(), x_stride,
                        s.num_tokens, expected.data(), out_stride);
      const std::vector<float> out = RunQuantMatMul(w.view(), s, x);
      const size_t num_groups = s.num_cols / kQuantGroup;
      const double rounding =
          1.0 / 253 + (static_cast<double>(num_groups) / 8 + 6) * kEpsilon;
      for (size_t t = 0; t < s.num_tokens; ++t) {
        for (size_t r = 0; r < out_stride; ++r) {
          double bound = 0;
          for (size_t g = 0; r < s.num_rows && g < num_groups; ++g) {
            double amax = 0;
            double weights = 0;
            for (size_t k = g * kQuantGroup; k < (g + 1) * kQuantGroup; ++k) {
              amax = std::max<double>(amax, std::abs(x[t * x_stride + k]));
              weights += std::abs(reference::WeightAt(w.view(), r, k));
            }
            bound += (amax * rounding + 0x1p-80) * weights;
          }
          ASSERT_NEAR(out[t * out_stride + r], expected[t * out_stride + r],
                      bound)
              << "token " << t << ", row " << r;
        }
      }
    }
  }
}

TEST_P(QuantMatMulTest, OneTokenHasTheBitsItHasInABatch) {
  const MatrixShape s = {"", 37, 416, 40};
  for (const WeightType type : kQuantTypes) {
    const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/6);
    const std::vector<float> x = RandomQuantTokens(s, /*seed=*/7);
    const size_t x_stride = s.num_cols + kStrideGap;
    std::vector<float> alone;
    for (size_t t = 0; t < s.num_tokens; ++t) {
      const std::vector<float> out =
          RunQuantMatMul(w.view(), {"", s.num_rows, s.num_cols, 1},
                         x.data() + t * x_stride, x_stride);
      alone.insert(alone.end(), out.begin(), out.end());
    }
    for (size_t num_tokens = 2; num_tokens <= s.num_tokens; ++num_tokens) {
      const std::vector<float> batch =
          RunQuantMatMul(w.view(), {"", s.num_rows, s.num_cols, num_tokens}, x);
      EXPECT_TRUE(HaveEqualBits(
          batch, {alone.begin(),
                  alone.begin() + static_cast<ptrdiff_t>(batch.size())}))
          << num_tokens << " tokens";
    }
  }
}

TEST_P(QuantMatMulTest, AnySplitOfTheRowsHasTheSameBits) {
  for (const WeightType type : kQuantTypes) {
    for (const size_t num_tokens : {1, 2, 13}) {
      const MatrixShape s = {"", 41, 160, num_tokens};
      const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/8);
      const std::vector<float> x = RandomQuantTokens(s, /*seed=*/9);
      const std::vector<float> whole = RunQuantMatMul(w.view(), s, x);
      const size_t out_stride = s.num_rows + kStrideGap;
      for (size_t split = 0; split <= s.num_rows; ++split) {
        const std::vector<float> low =
            RunQuantMatMul(w.view(), {"", split, s.num_cols, num_tokens}, x);
        const std::vector<float> high = RunQuantMatMul(
            w.view(split), {"", s.num_rows - split, s.num_cols, num_tokens}, x);
        std::vector<float> parts(whole.size(), 7.0f);
        for (size_t t = 0; t < num_tokens; ++t) {
          for (size_t r = 0; r < s.num_rows; ++r) {
            parts[t * out_stride + r] =
                r < split
                    ? low[t * (split + kStrideGap) + r]
                    : high[t * (s.num_rows - split + kStrideGap) + r - split];
          }
        }
        EXPECT_TRUE(HaveEqualBits(parts, whole)) << "split at " << split;
      }
    }
  }
}

TEST_P(QuantMatMulTest, TokensQuantizedInPartsHaveTheSameBits) {
  for (const size_t num_tokens : {2, 3, 9}) {
    const MatrixShape s = {"", 21, 160, num_tokens};
    const RandomWeights w(s.num_rows, s.num_cols, WeightType::kQ4, 10);
    const std::vector<float> x = RandomQuantTokens(s, /*seed=*/11);
    const size_t x_stride = s.num_cols + kStrideGap;
    const size_t out_stride = s.num_rows + kStrideGap;
    const std::vector<float> expected = RunQuantMatMul(w.view(), s, x);
    for (size_t split = 0; split <= num_tokens; ++split) {
      AlignedBytes tokens(QuantizedTokensBytes(s.num_cols, num_tokens));
      AlignedBytes workspace(QuantMatMulWorkspaceBytes(s.num_cols));
      QuantizeTokens(x.data(), x_stride, s.num_cols, split, num_tokens,
                     num_tokens, tokens.data());
      QuantizeTokens(x.data(), x_stride, s.num_cols, 0, split, num_tokens,
                     tokens.data());
      std::vector<float> out(expected.size(), 7.0f);
      QuantMatMul(w.view(), s.num_rows, s.num_cols, tokens.data(), num_tokens,
                  workspace.data(), out.data(), out_stride);
      EXPECT_TRUE(HaveEqualBits(out, expected)) << "split at " << split;
    }
  }
}

TEST_P(QuantMatMulTest, RowsOfBundlesHaveTheSameBits) {
  for (const WeightType type : kQuantTypes) {
    for (const size_t num_tokens : {1, 10}) {
      const MatrixShape s = {"", 51, 352, num_tokens};
      const std::vector<float> x = RandomQuantTokens(s, /*seed=*/12);
      const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/13);
      const std::vector<float> expected = RunQuantMatMul(w.view(), s, x);
      const size_t row_bytes = RowBytes(type, s.num_cols);
      for (const size_t gap_bytes : {size_t{1}, size_t{2}, 2 * row_bytes}) {
        for (const size_t offset_bytes : {size_t{0}, size_t{3}, row_bytes}) {
          const RandomWeights moved(s.num_rows, s.num_cols, type, /*seed=*/13,
                                    gap_bytes, offset_bytes);
          EXPECT_TRUE(
              HaveEqualBits(RunQuantMatMul(moved.view(), s, x), expected))
              << "gap " << gap_bytes << ", offset " << offset_bytes;
        }
      }
    }
  }
}

TEST_P(QuantMatMulTest, ColumnsFromAGroupOnAreAProductOfTheirOwn) {
  for (const WeightType type : kQuantTypes) {
    for (const size_t num_tokens : {1, 7}) {
      const MatrixShape whole = {"", 22, 512, num_tokens};
      const MatrixShape part = {"", 22, 320, num_tokens};
      const RandomWeights w(whole.num_rows, whole.num_cols, type, 14);
      const WeightView view = w.view(0, 96);
      const std::vector<float> x = RandomQuantTokens(part, /*seed=*/15);
      EXPECT_TRUE(
          HaveEqualBits(RunQuantMatMul(view, part, x),
                        RunReference(view, part, x, HasFma(GetParam()))));
    }
  }
}

TEST_P(QuantMatMulTest, ReadsNothingPastTheEnds) {
  for (const WeightType type : kQuantTypes) {
    for (size_t num_cols = 0; num_cols <= 544; num_cols += 32) {
      for (const size_t num_tokens : {1, 10}) {
        const size_t num_rows = 21;
        const RandomWeights weights(num_rows, num_cols, type, 16);
        const size_t stride_bytes = RowBytes(type, num_cols);
        // Once the scales end where memory ends, once the codes do.
        const GuardedCopy w(weights.view().data, num_rows * stride_bytes);
        const GuardedCopy codes_last(
            weights.view().data,
            num_rows * stride_bytes - ScalesBytes(type, num_cols));
        const GuardedCopy x(RandomFloats(num_tokens * num_cols, 17));
        const GuardedCopy out(std::vector<float>(num_tokens * num_rows));
        const GuardedCopy out2(std::vector<float>(num_tokens * num_rows));
        AlignedBytes tokens(QuantizedTokensBytes(num_cols, num_tokens));
        AlignedBytes workspace(QuantMatMulWorkspaceBytes(num_cols));
        QuantizeTokens(x.floats(), num_cols, num_cols, 0, num_tokens,
                       num_tokens, tokens.data());
        WeightView view = ViewOfRows(w.bytes(), stride_bytes, type, num_cols);
        QuantMatMul(view, num_rows, num_cols, tokens.data(), num_tokens,
                    workspace.data(), out.floats(), num_rows);
        view.data = codes_last.bytes();
        QuantMatMul(view, num_rows, num_cols, tokens.data(), num_tokens,
                    workspace.data(), out2.floats(), num_rows);
        EXPECT_EQ(std::memcmp(out.bytes(), out2.bytes(),
                              num_tokens * num_rows * sizeof(float)),
                  0);
      }
    }
  }
}

TEST_P(QuantMatMulTest, WritesNothingPastTokensAndWorkspace) {
  for (size_t num_cols = 0; num_cols <= 544; num_cols += 32) {
    for (const size_t num_tokens : {1, 2, 3, 4, 5, 9}) {
      const size_t num_rows = 70;
      const RandomWeights w(num_rows, num_cols, WeightType::kQ8, 18);
      const std::vector<float> x = RandomFloats(num_tokens * num_cols, 19);
      // Multiples of 64, so that the beginnings are aligned as well.
      const size_t tokens_bytes = QuantizedTokensBytes(num_cols, num_tokens);
      const size_t workspace_bytes = QuantMatMulWorkspaceBytes(num_cols);
      ASSERT_EQ(tokens_bytes % 64, 0u);
      ASSERT_EQ(workspace_bytes % 64, 0u);
      const GuardedCopy tokens{std::vector<std::byte>(tokens_bytes)};
      const GuardedCopy workspace{std::vector<std::byte>(workspace_bytes)};
      QuantizeTokens(x.data(), num_cols, num_cols, 0, num_tokens, num_tokens,
                     tokens.bytes());
      std::vector<float> out(num_tokens * num_rows);
      QuantMatMul(w.view(), num_rows, num_cols, tokens.bytes(), num_tokens,
                  workspace.bytes(), out.data(), num_rows);
    }
  }
}

TEST_P(QuantMatMulTest, AGroupOfZerosOrOfTinyValuesAddsNothing) {
  for (const WeightType type : kQuantTypes) {
    for (const size_t num_tokens : {1, 8}) {
      const MatrixShape s = {"", 19, 128, num_tokens};
      const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/20);
      for (const float value : {0.0f, -0.0f, 1e-45f, -0x1.FFFFFEp-81f}) {
        const std::vector<float> x(num_tokens * (s.num_cols + kStrideGap),
                                   value);
        const std::vector<float> out = RunQuantMatMul(w.view(), s, x);
        for (size_t i = 0; i < out.size(); ++i) {
          const size_t r = i % (s.num_rows + kStrideGap);
          ASSERT_EQ(out[i], r < s.num_rows ? 0 : 7) << value;
          ASSERT_FALSE(std::signbit(out[i]));
        }
      }
      const std::vector<float> x(num_tokens * (s.num_cols + kStrideGap),
                                 0x1p-80f);
      EXPECT_NE(RunQuantMatMul(w.view(), s, x)[0], 0);
    }
  }
}

TEST_P(QuantMatMulTest, ATokenThatIsNotFiniteGivesNanToItselfAlone) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const WeightType type : kQuantTypes) {
    for (const size_t num_tokens : {2, 11}) {
      const MatrixShape s = {"", 19, 128, num_tokens};
      const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/21);
      for (const float value : {nan, -nan, inf, -inf}) {
        std::vector<float> x = RandomQuantTokens(s, /*seed=*/22);
        const std::vector<float> expected = RunQuantMatMul(w.view(), s, x);
        x[s.num_cols + kStrideGap + 77] = value;
        const std::vector<float> out = RunQuantMatMul(w.view(), s, x);
        const size_t out_stride = s.num_rows + kStrideGap;
        for (size_t i = 0; i < out.size(); ++i) {
          if (i / out_stride == 1 && i % out_stride < s.num_rows) {
            EXPECT_TRUE(std::isnan(out[i]));
          } else {
            EXPECT_EQ(out[i], expected[i]);
          }
        }
      }
    }
  }
}

TEST_P(QuantMatMulTest, ScalesOfAllKindsAreConvertedExactly) {
  for (const WeightType type : kQuantTypes) {
    for (const size_t num_tokens : {1, 8}) {
      const MatrixShape s = {"", 18, 96, num_tokens};
      const std::vector<float> x = RandomQuantTokens(s, /*seed=*/23);
      // Zeros, subnormal, normal, the largest, infinity.
      for (const F16 scale :
           {0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x3555, 0xFBFF, 0x7C00}) {
        const ConstantWeights w(s, type, 0x35, scale);
        EXPECT_TRUE(
            HaveEqualBits(RunQuantMatMul(w.view(), s, x),
                          RunReference(w.view(), s, x, HasFma(GetParam()))))
            << "scale " << scale;
      }
    }
  }
}

TEST(QuantMatMulTargetsTest, TargetsWithFusedMultiplyAddAgreeBitForBit) {
  StoredAnswers bits("kernel_bits/quant_matmul");
  for (const WeightType type : kQuantTypes) {
    for (const MatrixShape& s : kQuantShapes) {
      SCOPED_TRACE(s.name);
      const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/24);
      const std::vector<float> x = RandomQuantTokens(s, /*seed=*/25);
      ExpectTargetsAgree([&] { return RunQuantMatMul(w.view(), s, x); }, bits);
    }
  }
  ExpectStoredBits(bits);
}

}  // namespace
}  // namespace flashelm
