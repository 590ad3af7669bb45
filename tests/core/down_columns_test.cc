#include "core/down_columns.h"

#include <gtest/gtest.h>

#include <cstring>
#include <utility>
#include <vector>

#include "core/base/memory.h"
#include "kernels/float_types.h"

namespace flashelm {
namespace {

constexpr uint32_t kCols = 160;
constexpr size_t kTokens = 3;

// The down columns of a range of neurons, and what a tile of a batch makes of
// them.
class DownColumnsTest : public testing::TestWithParam<WeightType> {
 protected:
  DownColumnsTest() : budget_(uint64_t{64} << 20) {
    ModelConfig config;
    config.vocab_size = 32;
    config.model_dim = kCols;
    config.head_dim = 32;
    config.num_gqa_groups = 1;
    config.layers = {{1, 1, kFfnTile}};
    ScratchShape shape;
    shape.batch = kTokens;
    shape.num_threads = 2;
    shape.has_quantized = true;
    auto scratch = Scratch::Create(config, shape, budget_);
    EXPECT_TRUE(scratch);
    scratch_ = std::move(*scratch);
    rows_.resize(kFfnTile * RowBytes(GetParam(), kCols));
    uint32_t random = 1;
    const auto next = [&] { return random = random * 1664525 + 1013904223; };
    for (std::byte& byte : rows_) byte = static_cast<std::byte>(next() >> 24);
    if (IsQuantized(GetParam())) PutScales();
    for (size_t i = 0; i < kTokens * kFfnTile; ++i) {
      factors_.push_back(static_cast<float>(next() >> 8) * 0x1p-24f - 0.5f);
    }
    if (GetParam() == WeightType::kBf16) PutSmallNumbers();
  }

  WeightView Row(uint32_t neuron) const {
    return Submatrix(ViewOfRows(rows_.data(), RowBytes(GetParam(), kCols),
                                GetParam(), kCols),
                     neuron, 0);
  }

  // The neurons [0, last) of a range that ends there, at once.
  std::vector<float> AtOnce(uint32_t last) {
    std::vector<float> sum(kTokens * kCols, 0.25f);
    AddDownColumns(Row(0), last, kCols, factors_.data(), kFfnTile, kTokens,
                   scratch_.workspace(0), sum.data(), kCols);
    return sum;
  }

  // The same in pieces that end at `ends`, the columns shared by two threads.
  std::vector<float> InPieces(const std::vector<uint32_t>& ends) {
    std::vector<float> sum(kTokens * kCols, 0.25f);
    const DownColumns columns(scratch_, kCols);
    uint32_t first = 0;
    for (const uint32_t end : ends) {
      // Shared out differently for every piece.
      const size_t split = end % 2 == 0 ? 32 : 96;
      const DownColumns::Piece piece = {Row(first), first, end,
                                        /*ends_range=*/end == ends.back()};
      columns.Add(piece, 0, split, 0, factors_.data(), kTokens, sum.data());
      columns.Add(piece, split, kCols, 1, factors_.data(), kTokens,
                  sum.data() + split);
      first = end;
    }
    return sum;
  }

  static bool HaveEqualBits(const std::vector<float>& a,
                            const std::vector<float>& b) {
    return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  }

 private:
  void PutScales() {
    for (uint32_t i = 0; i < kFfnTile; ++i) {
      std::byte* scales = rows_.data() + i * RowBytes(GetParam(), kCols) +
                          ElementsBytes(GetParam(), kCols);
      for (size_t g = 0; g < kCols / kQuantGroup; ++g) {
        const F16 scale =
            F16FromF32(0.01f * static_cast<float>(1 + (i + g) % 7));
        std::memcpy(scales + g * sizeof(scale), &scale, sizeof(scale));
      }
    }
  }
  void PutSmallNumbers() {
    for (size_t i = 0; i < kFfnTile * kCols; ++i) {
      const Bf16 value = Bf16FromF32(static_cast<float>(i % 101) - 50);
      std::memcpy(rows_.data() + i * sizeof(value), &value, sizeof(value));
    }
  }

  MemoryBudget budget_;
  Scratch scratch_;
  std::vector<std::byte> rows_;
  std::vector<float> factors_;
};

INSTANTIATE_TEST_SUITE_P(Encodings, DownColumnsTest,
                         testing::Values(WeightType::kBf16, WeightType::kQ8,
                                         WeightType::kQ4));

TEST_P(DownColumnsTest, ACutAnywhereGivesTheSameBits) {
  for (const uint32_t last : {96u, 70u}) {
    const std::vector<float> expected = AtOnce(last);
    for (uint32_t cut = 1; cut < last; ++cut) {
      EXPECT_TRUE(HaveEqualBits(InPieces({cut, last}), expected))
          << "cut at " << cut << " of " << last;
    }
  }
}

TEST_P(DownColumnsTest, ManyCutsGiveTheSameBits) {
  const std::vector<float> expected = AtOnce(230);
  EXPECT_TRUE(
      HaveEqualBits(InPieces({3, 4, 31, 33, 65, 96, 97, 160, 230}), expected));
  std::vector<uint32_t> each;
  for (uint32_t end = 1; end <= 230; ++end) each.push_back(end);
  EXPECT_TRUE(HaveEqualBits(InPieces(each), expected));
}

TEST(FfnRangesTest, CoverEveryNeuronOnceInWholeBlocks) {
  for (uint32_t ffn_dim = 1; ffn_dim <= 3000; ++ffn_dim) {
    EXPECT_EQ(FfnRangeBegin(ffn_dim, 0), 0u);
    EXPECT_EQ(FfnRangeBegin(ffn_dim, kFfnRanges), ffn_dim);
    for (uint32_t range = 0; range < kFfnRanges; ++range) {
      const uint32_t begin = FfnRangeBegin(ffn_dim, range);
      const uint32_t end = FfnRangeBegin(ffn_dim, range + 1);
      ASSERT_LE(begin, end);
      if (begin == end) continue;
      ASSERT_EQ(begin % kQuantSumRows, 0u);
      ASSERT_EQ(FfnRangeEnd(ffn_dim, begin), end) << begin << " " << ffn_dim;
      ASSERT_EQ(FfnRangeEnd(ffn_dim, end - 1), end) << end << " " << ffn_dim;
    }
  }
}

}  // namespace
}  // namespace flashelm
