#include "kernels/prefetch.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

namespace flashelm {
namespace {

TEST(FetchCursorTest, FetchesAllInOrderAndNothingElse) {
  const std::vector<std::byte> memory(1'000'000);
  FetchCursor cursor(memory);
  const std::byte* at = memory.data();
  const std::byte* const end = memory.data() + memory.size();
  for (size_t worked = 0; worked < memory.size(); worked += 5'800) {
    const auto next = cursor.Advance(5'800);
    EXPECT_EQ(next.size() % kLinePair, 0u);
    ASSERT_EQ(next.data(), at);
    at += next.size();
    ASSERT_LE(at, end);
  }
  EXPECT_LT(static_cast<size_t>(end - at), kLinePair);
  EXPECT_TRUE(cursor.Advance(5'800).empty());
}

TEST(FetchCursorTest, WinsItsLeadWithTwiceTheBytesAndKeepsIt) {
  constexpr size_t kStep = 3'000;
  constexpr size_t kAhead = 50'000;
  const std::vector<std::byte> memory(500'000);
  FetchCursor cursor(memory, kAhead);
  size_t fetched = 0;
  for (size_t worked = kStep; worked + kAhead < memory.size();
       worked += kStep) {
    const size_t count = cursor.Advance(kStep).size();
    EXPECT_LE(count, 2 * kStep);
    fetched += count;
    EXPECT_LE(fetched, worked + kAhead);
    // After as many bytes as the lead, but for what rounding took of each step.
    if (worked > kAhead + kAhead / 10) {
      EXPECT_GT(fetched + kLinePair, worked + kAhead);
    }
  }
}

TEST(FetchCursorTest, HasNothingToFetchOfNothing) {
  FetchCursor cursor({});
  EXPECT_TRUE(cursor.Advance(1'000).empty());
  EXPECT_TRUE(cursor.Advance(0).empty());
}

}  // namespace
}  // namespace flashelm
