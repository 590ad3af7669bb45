#include "core/base/memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "core/base/checked_math.h"
#include "core/base/types.h"

namespace flashelm {
namespace {

TEST(MemoryBudgetTest, RefusesTheFirstByteOverTheLimit) {
  MemoryBudget budget(100);
  EXPECT_TRUE(budget.Charge(60, "a").ok());
  EXPECT_EQ(budget.Charge(41, "b").code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(budget.Charge(UINT64_MAX, "c").code(),
            StatusCode::kResourceExhausted);
  EXPECT_TRUE(budget.Charge(40, "d").ok());
  EXPECT_EQ(budget.used_bytes(), 100u);
  budget.Release(60);
  EXPECT_EQ(budget.used_bytes(), 40u);
}

TEST(AlignedBufferTest, IsZeroedAlignedAndChargedWhileItLives) {
  MemoryBudget budget(3 * kIoAlignment);
  {
    auto buffer = AlignedBuffer::Create(kIoAlignment + 1, budget, "test");
    ASSERT_TRUE(buffer);
    EXPECT_EQ(buffer->size(), 2 * kIoAlignment);
    EXPECT_EQ(budget.used_bytes(), 2 * kIoAlignment);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % kIoAlignment, 0u);
    EXPECT_TRUE(std::all_of(buffer->bytes().begin(), buffer->bytes().end(),
                            [](std::byte b) { return b == std::byte{0}; }));
    AlignedBuffer moved = std::move(*buffer);
    EXPECT_EQ(budget.used_bytes(), 2 * kIoAlignment);
  }
  EXPECT_EQ(budget.used_bytes(), 0u);
}

TEST(AlignedBufferTest, TakesNothingWhenTheBudgetRefuses) {
  MemoryBudget budget(kIoAlignment);
  auto buffer = AlignedBuffer::Create(kIoAlignment + 1, budget, "weights");
  ASSERT_FALSE(buffer);
  EXPECT_EQ(buffer.error().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(buffer.error().message().find("weights"), std::string::npos);
  EXPECT_EQ(budget.used_bytes(), 0u);
  EXPECT_FALSE(AlignedBuffer::Create(UINT64_MAX, budget, "huge"));
}

TEST(AlignedBufferTest, GivesBackWholePagesOfAnySize) {
  for (const size_t page : {4096, 16384, 65536}) {
    for (const size_t size :
         {kHugePageBytes, kHugePageBytes + 4096, 5 * kHugePageBytes - 4096}) {
      for (const uintptr_t offset :
           {uintptr_t{0}, uintptr_t{page}, kHugePageBytes - uintptr_t{page}}) {
        const uintptr_t address = 7 * kHugePageBytes + offset;
        const HugePageSlack slack =
            FindHugePageSlack(address, size, kHugePageBytes, page);
        EXPECT_EQ((address + slack.before) % kHugePageBytes, 0u);
        EXPECT_EQ(slack.before % page, 0u);
        EXPECT_EQ(slack.kept % page, 0u);
        EXPECT_EQ(slack.after % page, 0u);
        EXPECT_GE(slack.kept, size);
        EXPECT_LT(slack.kept, size + page);
        // All that the system mapped, and no more.
        EXPECT_EQ(slack.after, kHugePageBytes - slack.before);
      }
    }
  }
}

TEST(CheckedMathTest, SaysNoInsteadOfWrapping) {
  EXPECT_EQ(CheckedMul(uint64_t{1} << 32, uint64_t{1} << 31),
            uint64_t{1} << 63);
  EXPECT_EQ(CheckedMul(uint64_t{1} << 32, uint64_t{1} << 32), std::nullopt);
  EXPECT_EQ(CeilDiv(0, 4), 0u);
  EXPECT_EQ(CeilDiv(5, 4), 2u);
  EXPECT_EQ(RoundUp(5, 4), 8u);
}

}  // namespace
}  // namespace flashelm
