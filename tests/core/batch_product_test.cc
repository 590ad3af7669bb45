#include "core/batch_product.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

#include "core/base/memory.h"
#include "core/base/thread_pool.h"
#include "tests/kernels/kernel_test.h"

namespace flashelm {
namespace {

class BatchProductTest : public testing::Test {
 protected:
  static constexpr uint32_t kCols = 160;
  static constexpr size_t kMaxTokens = 9;
  static constexpr size_t kRows = 77;
  static constexpr size_t kXStride = kCols + kStrideGap;
  static constexpr WeightType kAllTypes[] = {
      WeightType::kF32, WeightType::kBf16, WeightType::kQ8, WeightType::kQ4};

  BatchProductTest() : budget_(uint64_t{64} << 20) {
    ModelConfig config;
    config.vocab_size = 32;
    config.model_dim = kCols;
    config.head_dim = 32;
    config.num_gqa_groups = 1;
    config.layers = {{1, 1, kFfnTile}};
    ScratchShape shape;
    shape.batch = kMaxTokens;
    shape.num_threads = 2;
    shape.has_quantized = true;
    auto scratch = Scratch::Create(config, shape, budget_);
    EXPECT_TRUE(scratch);
    scratch_ = std::move(*scratch);
    auto pool = ThreadPool::Create(shape.num_threads);
    EXPECT_TRUE(pool);
    pool_ = std::move(*pool);
  }

  BatchProduct ProductOf(std::initializer_list<WeightType> types, size_t first,
                         size_t num_tokens) const {
    BatchProduct product(*pool_, scratch_);
    product.SetTokens(types, x_.data() + first * kXStride, kXStride, kCols,
                      num_tokens);
    return product;
  }

  // [num_tokens, kRows]
  static std::vector<float> Rows(const BatchProduct& product,
                                 const WeightView& w) {
    std::vector<float> out(product.num_tokens() * kRows);
    product.Rows(w, kRows, /*part=*/1, out.data(), kRows);
    return out;
  }

  // What each token makes of `w` alone.
  std::vector<float> OneByOne(const WeightView& w, size_t num_tokens) const {
    std::vector<float> result;
    for (size_t t = 0; t < num_tokens; ++t) {
      const std::vector<float> one = Rows(ProductOf({w.type}, t, 1), w);
      result.insert(result.end(), one.begin(), one.end());
    }
    return result;
  }

  MemoryBudget budget_;
  Scratch scratch_;
  std::unique_ptr<ThreadPool> pool_;
  const std::vector<float> x_ = RandomFloats(kMaxTokens * kXStride, /*seed=*/1);
};

// Gates and ups of one bundle may be of different types.
TEST_F(BatchProductTest, TokensForSeveralTypesHaveTheBitsOfEachAlone) {
  for (const WeightType first : kAllTypes) {
    const RandomWeights w(kRows, kCols, first, /*seed=*/2, /*gap_bytes=*/6);
    for (const size_t num_tokens :
         {size_t{1}, size_t{3}, size_t{4}, kMaxTokens}) {
      const std::vector<float> expected = OneByOne(w.view(), num_tokens);
      for (const WeightType second : kAllTypes) {
        const RandomWeights other(kRows, kCols, second, /*seed=*/3);
        const BatchProduct product = ProductOf({second, first}, 0, num_tokens);
        const std::vector<float> of_other = Rows(product, other.view());
        EXPECT_TRUE(HaveEqualBits(Rows(product, w.view()), expected))
            << static_cast<int>(first) << " beside " << static_cast<int>(second)
            << ", tokens " << num_tokens;
        EXPECT_TRUE(
            HaveEqualBits(of_other, OneByOne(other.view(), num_tokens)));
      }
    }
  }
}

TEST_F(BatchProductTest, RowsThatLieAnywhereHaveTheBitsOfRowsInOrder) {
  for (const WeightType type : kFloatTypes) {
    const RandomWeights w(kRows, kCols, type, /*seed=*/4);
    const BatchProduct product = ProductOf({type}, 0, kMaxTokens);
    ASSERT_TRUE(product.TakesRowsAt(type));
    for (const WeightType other : kAllTypes) {
      EXPECT_EQ(product.TakesRowsAt(other), other == type);
    }
    std::vector<const std::byte*> rows;
    for (size_t r = kRows; r > 0; --r) rows.push_back(w.view(r - 1).data);
    std::vector<float> out(kMaxTokens * kRows);
    product.RowsAt(rows.data(), kRows, out.data(), kRows);
    for (size_t t = 0; t < kMaxTokens; ++t) {
      std::reverse(out.begin() + static_cast<ptrdiff_t>(t * kRows),
                   out.begin() + static_cast<ptrdiff_t>((t + 1) * kRows));
    }
    EXPECT_TRUE(HaveEqualBits(out, Rows(product, w.view())));
    EXPECT_FALSE(ProductOf({type}, 0, 3).TakesRowsAt(type));  // No tile.
  }
}

TEST_F(BatchProductTest, FetchingAheadChangesNothing) {
  const std::vector<std::byte> after(size_t{64} << 10);
  for (const WeightType type : kAllTypes) {
    const RandomWeights w(kRows, kCols, type, /*seed=*/5);
    const BatchProduct product = ProductOf({type}, 0, 1);
    const std::vector<float> expected = Rows(product, w.view());
    for (const bool is_fetched : {false, true}) {
      std::vector<float> out(kRows);
      product.RowsOfOneToken(w.view(), kRows, /*part=*/0, out.data(),
                             is_fetched, after);
      EXPECT_TRUE(HaveEqualBits(out, expected)) << static_cast<int>(type);
    }
  }
}

}  // namespace
}  // namespace flashelm
