#include "core/pins.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "core/base/checked_math.h"
#include "core/base/types.h"

namespace flashelm {
namespace {

uint64_t PageBytes(const Segment& segment, uint64_t records) {
  return RoundUp(records * segment.stride_bytes, kIoAlignment);
}

struct Weights {
  std::vector<Segment> segments;
  std::vector<uint32_t> order;
  ResidencyPlan plan;
  uint64_t all_bytes = 0;

  // With chunks of about so many bytes, in whole units.
  void Add(uint64_t num_records, uint64_t stride_bytes, uint64_t chunk_bytes) {
    Segment segment;
    segment.num_records = num_records;
    segment.stride_bytes = stride_bytes;
    segment.records_per_checksum = 4;
    const uint64_t unit = segment.unit_records();
    const uint64_t units =
        std::max<uint64_t>(1, chunk_bytes / stride_bytes / unit);
    order.push_back(static_cast<uint32_t>(segments.size()));
    segments.push_back(segment);
    plan.chunk_records.push_back(std::min(num_records, unit * units));
    plan.resident_records.push_back(0);
    all_bytes += PageBytes(segment, num_records);
  }
  uint64_t resident(uint32_t index) const {
    return plan.resident_records[index];
  }
  uint64_t PinnedBytes() const {
    uint64_t total = 0;
    for (const uint32_t i : order) total += PageBytes(segments[i], resident(i));
    return total;
  }
};

TEST(PinsTest, StreamsFullChunks) {
  Weights weights;
  for (int i = 0; i < 100; ++i) weights.Add(1024, 1024, 256 << 10);
  PinEvenly(weights.segments, weights.order, weights.all_bytes * 7 / 10,
            weights.plan);
  // 300 KiB of each MiB: of segments of 4 chunks, 1 or 2 and no third. What is
  // left over is less than a chunk.
  uint64_t num_chunks = 0;
  uint64_t num_units_more = 0;
  for (const uint32_t i : weights.order) {
    const uint64_t streamed = 1024 - weights.resident(i);
    const uint64_t chunks = CeilDiv(streamed, uint64_t{256});
    EXPECT_GE(chunks, 1u);
    EXPECT_LE(chunks, 2u);
    num_chunks += chunks;
    num_units_more += (chunks * 256 - streamed) / 4;
  }
  EXPECT_EQ(num_chunks, 120u);
  EXPECT_LT(num_units_more, 64u);
}

TEST(PinsTest, HoldsItsPromisesForAnySegments) {
  std::mt19937 random(1);
  const auto between = [&](uint64_t low, uint64_t high) {
    return low + random() % (high - low + 1);
  };
  for (int round = 0; round < 300; ++round) {
    Weights weights;
    const uint64_t chunk_bytes = between(1, 512) << 10;
    const uint64_t num_segments = between(1, 40);
    uint64_t most_chunk_bytes = 0;
    for (uint64_t i = 0; i < num_segments; ++i) {
      weights.Add(between(1, 3000), between(1, 9000), chunk_bytes);
      most_chunk_bytes =
          std::max(most_chunk_bytes, weights.plan.chunk_records.back() *
                                         weights.segments.back().stride_bytes);
    }
    const uint64_t bytes = between(0, weights.all_bytes);
    PinEvenly(weights.segments, weights.order, bytes, weights.plan);
    const uint64_t pinned = weights.PinnedBytes();
    ASSERT_LE(pinned, bytes);
    double streamed = 0;
    double passed = 0;
    const double share =
        1 - static_cast<double>(bytes) / static_cast<double>(weights.all_bytes);
    for (const uint32_t i : weights.order) {
      const Segment& segment = weights.segments[i];
      const uint64_t resident = weights.resident(i);
      const uint64_t unit = segment.unit_records();
      ASSERT_LE(resident, segment.num_records);
      ASSERT_TRUE(resident == segment.num_records || resident % unit == 0);
      if (resident < segment.num_records) {
        const uint64_t more = std::min(segment.num_records, resident + unit);
        EXPECT_GT(PageBytes(segment, more) - PageBytes(segment, resident),
                  bytes - pinned)
            << "a unit of segment " << i << " would have fit";
      }
      passed += static_cast<double>(PageBytes(segment, segment.num_records));
      streamed += static_cast<double>(PageBytes(segment, segment.num_records) -
                                      PageBytes(segment, resident));
      // A chunk too early, and what is left over, which is as much.
      const double slack =
          2 * static_cast<double>(most_chunk_bytes + kIoAlignment);
      EXPECT_NEAR(streamed, share * passed, slack) << i;
    }
  }
}

TEST(PinsTest, PinsAllOrNothing) {
  Weights weights;
  for (const uint64_t records : {5, 1000, 77}) weights.Add(records, 700, 65536);
  PinEvenly(weights.segments, weights.order, 0, weights.plan);
  EXPECT_EQ(weights.PinnedBytes(), 0u);
  PinEvenly(weights.segments, weights.order, weights.all_bytes, weights.plan);
  EXPECT_EQ(weights.PinnedBytes(), weights.all_bytes);
}

}  // namespace
}  // namespace flashelm
