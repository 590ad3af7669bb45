#include "storage/staging_area.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "core/base/types.h"

namespace flashelm {
namespace {

constexpr uint64_t kPage = kIoAlignment;

TEST(StagingAreaTest, GivesAllOfItInAnyPiecesAndAgainAfterwards) {
  MemoryBudget budget(StagingArea::NumBytes(10 * kPage));
  auto area = StagingArea::Create(10 * kPage, budget);
  ASSERT_TRUE(area);
  EXPECT_EQ(budget.used_bytes(), budget.limit_bytes());
  for (int round = 0; round < 3; ++round) {
    std::byte* const a = area->Take(4 * kPage);
    std::byte* const b = area->Take(5 * kPage);
    ASSERT_TRUE(a != nullptr && b != nullptr);
    EXPECT_EQ(area->Take(2 * kPage), nullptr);
    std::byte* const c = area->Take(kPage);
    ASSERT_NE(c, nullptr);
    EXPECT_EQ(area->Take(kPage), nullptr);
    area->Give(b);
    area->Give(a);
    area->Give(c);
    std::byte* const all = area->Take(10 * kPage);
    EXPECT_EQ(all, area->bytes().data());
    area->Give(all);
    EXPECT_EQ(area->Take(11 * kPage), nullptr);
  }
}

TEST(StagingAreaTest, RandomBlocksNeverOverlapAndRoomIsAlwaysFound) {
  constexpr uint64_t kPages = 64;
  MemoryBudget budget(uint64_t{1} << 20);
  auto area = StagingArea::Create(kPages * kPage, budget);
  ASSERT_TRUE(area);
  std::mt19937_64 random(41);
  std::vector<bool> used(kPages, false);
  std::vector<std::pair<std::byte*, uint64_t>> blocks;
  for (int step = 0; step < 20000; ++step) {
    if (random() % 2 == 0 && !blocks.empty()) {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      const auto [block, count] = blocks.back();
      blocks.pop_back();
      const auto first = (block - area->bytes().data()) / ptrdiff_t{kPage};
      std::fill_n(used.begin() + first, count, false);
      area->Give(block);
      continue;
    }
    const uint64_t count = 1 + random() % 12;
    const bool has_room =
        std::search_n(used.begin(), used.end(), static_cast<int>(count),
                      false) != used.end();
    std::byte* const block = area->Take(count * kPage);
    ASSERT_EQ(block != nullptr, has_room);
    if (block == nullptr) continue;
    const auto at = static_cast<uint64_t>(block - area->bytes().data());
    ASSERT_EQ(at % kPage, 0u);
    for (uint64_t page = at / kPage; page < at / kPage + count; ++page) {
      ASSERT_LT(page, kPages);
      ASSERT_FALSE(used[page]);
      used[page] = true;
    }
    blocks.emplace_back(block, count);
  }
}

TEST(StagingAreaTest, TakesNothingWhereTheBudgetHasLess) {
  MemoryBudget less(StagingArea::NumBytes(10 * kPage) - kPage);
  EXPECT_EQ(StagingArea::Create(10 * kPage, less).error().code(),
            StatusCode::kResourceExhausted);
  EXPECT_EQ(less.used_bytes(), 0u);
}

}  // namespace
}  // namespace flashelm
