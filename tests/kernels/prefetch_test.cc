#include "kernels/prefetch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/bundle_steps.h"
#include "kernels/weight_view.h"

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

// Works on bundles in the order of BundleSteps, as the FFN does. Returns how
// many bytes of work before its turn each part was fetched, at least.
size_t LeastLead(BundleSteps steps, size_t part_bytes, size_t num_parts) {
  constexpr size_t kBundles = 416;  // Whole steps.
  const size_t stride = num_parts * part_bytes;
  const size_t num_bytes = kBundles * stride;
  const std::vector<std::byte> memory(num_bytes);
  FetchCursor cursor(memory, BundleBytesAhead(steps, part_bytes, num_parts));
  size_t fetched = 0;
  size_t least = SIZE_MAX;
  const auto work = [&](size_t bundle, size_t count, size_t part) {
    const size_t fetched_meanwhile = cursor.Advance(count * part_bytes).size();
    for (size_t i = 0; i < count; ++i) {
      const size_t end = (bundle + i) * stride + (part + 1) * part_bytes;
      const size_t now = fetched + fetched_meanwhile * i / count;
      // Until the lead is won, and at the end, there is less of it.
      if (end > num_bytes / 4 && end < num_bytes * 3 / 4) {
        least = std::min(least, now - std::min(now, end));
      }
    }
    fetched += fetched_meanwhile;
  };
  for (size_t i = 0; i < kBundles; i += steps.bundles) {
    for (size_t g = 0; g < steps.bundles; g += steps.gates) {
      for (size_t part = 0; part + 1 < num_parts; ++part) {
        work(i + g, steps.gates, part);
      }
    }
    work(i, steps.bundles, num_parts - 1);
  }
  return least;
}

TEST(BundleStepsTest, EachPartIsFetchedBeforeItsTurn) {
  for (const WeightType type : {WeightType::kF32, WeightType::kBf16,
                                WeightType::kQ8, WeightType::kQ4}) {
    const size_t part_bytes = RowBytes(type, 3072);
    for (const size_t num_parts : {1, 2, 3}) {
      SCOPED_TRACE(static_cast<int>(type));
      SCOPED_TRACE(num_parts);
      EXPECT_GT(LeastLead(BundleStepsOf(type), part_bytes, num_parts),
                size_t{30} << 10);
    }
  }
}

}  // namespace
}  // namespace flashelm
