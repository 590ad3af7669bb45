#include "kernels/packed_matmul.h"

#include "kernels/matmul.h"
#include "tests/kernels/kernel_test.h"

namespace flashelm {
namespace {

constexpr MatrixShape kShapes[] = {
    {"no rows", 0, 64, 4},
    {"one row", 1, 32, 4},
    {"the partial sums", 4, 32, 5},
    {"whole vectors", 9, 128, 7},
    {"rows and tokens beyond the tiles", 11, 96, 11},
    {"two tiles of 4", 8, 64, 8},
    {"a tile of 6 and two of 4", 33, 160, 14},
    {"rows beyond those that are reduced together", 37, 96, 15},
    {"a 3B layer", 17, 3072, 4},
    {"columns beyond chunks", 19, 1056, 10},
    {"columns beyond chunks, few tokens", 19, 2080, 5},
    {"rows of a 3B layer beyond a panel", 67, 3072, 7},
    {"rows beyond two panels, many tokens", 71, 6144, 34},
};

// Floats that begin at a cache line, as packed tokens do.
class AlignedFloats {
 public:
  explicit AlignedFloats(size_t count) : floats_(count + 16, NAN) {}
  float* data() {
    const size_t past = reinterpret_cast<uintptr_t>(floats_.data()) % 64;
    return floats_.data() + (past == 0 ? 0 : (64 - past) / sizeof(float));
  }

 private:
  std::vector<float> floats_;
};

std::vector<float> RunPacked(const WeightView& w, const MatrixShape& s,
                             const std::vector<float>& x, size_t split = 0) {
  AlignedFloats tokens(s.num_tokens * s.num_cols);
  const size_t x_stride = s.num_cols + kStrideGap;
  PackTokens(w.type, x.data(), x_stride, s.num_cols, split, s.num_tokens,
             s.num_tokens, tokens.data());
  PackTokens(w.type, x.data(), x_stride, s.num_cols, 0, split, s.num_tokens,
             tokens.data());
  const size_t out_stride = s.num_rows + kStrideGap;
  std::vector<float> out(s.num_tokens * out_stride, 7.0f);
  PackedMatMul(w, s.num_rows, s.num_cols, tokens.data(), s.num_tokens,
               out.data(), out_stride);
  return out;
}

class PackedMatMulTest : public TargetTest {};
FLASHELM_TEST_ALL_TARGETS(PackedMatMulTest);

TEST_P(PackedMatMulTest, HasTheBitsOfMatMul) {
  for (const WeightType type : kFloatTypes) {
    for (const MatrixShape& s : kShapes) {
      SCOPED_TRACE(s.name);
      ASSERT_TRUE(CanPackTokens(s.num_cols, s.num_tokens));
      const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/1);
      const std::vector<float> x = RandomTokens(s, /*seed=*/2);
      const size_t out_stride = s.num_rows + kStrideGap;
      std::vector<float> expected(s.num_tokens * out_stride, 7.0f);
      MatMul(w.view(), s.num_rows, s.num_cols, x.data(),
             s.num_cols + kStrideGap, s.num_tokens, expected.data(),
             out_stride);
      EXPECT_TRUE(HaveEqualBits(RunPacked(w.view(), s, x), expected));
    }
  }
}

TEST_P(PackedMatMulTest, TokensCanBePackedInAnySplit) {
  for (const WeightType type : kFloatTypes) {
    const MatrixShape s = {"", 5, 96, 14};
    const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/3);
    const std::vector<float> x = RandomTokens(s, /*seed=*/4);
    const std::vector<float> whole = RunPacked(w.view(), s, x);
    for (size_t split = 1; split <= s.num_tokens; ++split) {
      EXPECT_TRUE(HaveEqualBits(RunPacked(w.view(), s, x, split), whole))
          << "split at " << split;
    }
  }
}

TEST_P(PackedMatMulTest, UnalignedAndDistantRowsHaveTheSameBits) {
  const MatrixShape s = {"", 7, 96, 5};
  for (const WeightType type : kFloatTypes) {
    const std::vector<float> x = RandomTokens(s, /*seed=*/5);
    const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/6);
    const std::vector<float> expected = RunPacked(w.view(), s, x);
    for (const size_t gap_bytes : {1, 2, 54, 4096}) {
      for (const size_t offset_bytes : {0, 1, 2}) {
        const RandomWeights moved(s.num_rows, s.num_cols, type, /*seed=*/6,
                                  gap_bytes, offset_bytes);
        EXPECT_TRUE(HaveEqualBits(RunPacked(moved.view(), s, x), expected))
            << "gap " << gap_bytes << ", offset " << offset_bytes;
      }
    }
  }
}

TEST_P(PackedMatMulTest, RowsMayLieAnywhere) {
  const MatrixShape s = {"", 39, 96, 9};
  for (const WeightType type : kFloatTypes) {
    const std::vector<float> x = RandomTokens(s, /*seed=*/7);
    const RandomWeights w(s.num_rows, s.num_cols, type, /*seed=*/8,
                          /*gap_bytes=*/2);
    AlignedFloats tokens(s.num_tokens * s.num_cols);
    PackTokens(type, x.data(), s.num_cols + kStrideGap, s.num_cols, 0,
               s.num_tokens, s.num_tokens, tokens.data());
    std::vector<const std::byte*> rows;
    for (size_t r = 0; r < s.num_rows; ++r) rows.push_back(w.view(r).data);
    std::swap(rows[3], rows[20]);
    std::vector<float> expected(s.num_tokens * s.num_rows);
    PackedMatMul(w.view(), s.num_rows, s.num_cols, tokens.data(), s.num_tokens,
                 expected.data(), s.num_rows);
    for (size_t t = 0; t < s.num_tokens; ++t) {
      std::swap(expected[t * s.num_rows + 3], expected[t * s.num_rows + 20]);
    }
    std::vector<float> out(expected.size());
    PackedMatMulAt(rows.data(), type, s.num_rows, s.num_cols, tokens.data(),
                   s.num_tokens, out.data(), s.num_rows);
    EXPECT_TRUE(HaveEqualBits(out, expected));
  }
}

TEST_P(PackedMatMulTest, ReadsNothingPastTheEnds) {
  for (const WeightType type : kFloatTypes) {
    for (const size_t num_cols : {32, 64, 96}) {
      for (const size_t num_tokens : {4, 6, 9}) {
        const size_t num_rows = 5;
        const RandomWeights weights(num_rows, num_cols, type, 1);
        const GuardedCopy w(weights.view().data,
                            num_rows * RowBytes(type, num_cols));
        const GuardedCopy x(RandomFloats(num_tokens * num_cols, 2));
        // As many as are whole cache lines.
        const GuardedCopy tokens(std::vector<float>(num_tokens * num_cols));
        const GuardedCopy out(std::vector<float>(num_tokens * num_rows));
        PackTokens(type, x.floats(), num_cols, num_cols, 0, num_tokens,
                   num_tokens, tokens.floats());
        PackedMatMul(
            ViewOfRows(w.bytes(), RowBytes(type, num_cols), type, num_cols),
            num_rows, num_cols, tokens.floats(), num_tokens, out.floats(),
            num_rows);
      }
    }
  }
}

TEST(CanPackTokensTest, TakesBatchesOfWholeVectors) {
  EXPECT_TRUE(CanPackTokens(32, 4));
  EXPECT_FALSE(CanPackTokens(32, 3));
  EXPECT_FALSE(CanPackTokens(48, 4));
  EXPECT_FALSE(CanPackTokens(0, 4));
}

}  // namespace
}  // namespace flashelm
