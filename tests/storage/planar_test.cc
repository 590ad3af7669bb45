#include "storage/planar.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

#include "tests/storage/test_plans.h"

namespace flashelm {
namespace {

Segment SegmentOf(const std::vector<uint64_t>& part_elements,
                  uint64_t padding_bytes = 0) {
  Segment segment;
  for (const uint64_t elements : part_elements) {
    segment.parts.push_back(
        {"", Encoding::kBf16, segment.stride_bytes, elements});
    segment.stride_bytes += 2 * elements;
  }
  segment.stride_bytes += padding_bytes;
  return segment;
}

TEST(PlanarTest, PartsOfOneSizeCanLieSideBySide) {
  EXPECT_TRUE(CanBePlanar(SegmentOf({32, 32, 32})));
  EXPECT_TRUE(CanBePlanar(SegmentOf({7, 7})));
  EXPECT_FALSE(CanBePlanar(SegmentOf({32})));
  EXPECT_FALSE(CanBePlanar(SegmentOf({32, 32, 16})));
  EXPECT_TRUE(CanBePlanar(SegmentOf({32, 32}, 64)));
  Segment segment = SegmentOf({32, 32});
  segment.parts[1].offset_bytes += 2;
  segment.stride_bytes += 2;
  EXPECT_FALSE(CanBePlanar(segment));
}

TEST(PlanarTest, BlocksHaveFirstPartsThenSecondOnes) {
  for (const uint64_t num_parts : {2, 3, 5}) {
    const Segment segment =
        SegmentOf(std::vector<uint64_t>(num_parts, 2), num_parts == 3 ? 6 : 0);
    for (const uint64_t num_records :
         {uint64_t{0}, uint64_t{1}, uint64_t{2}, uint64_t{31}, kPlanarRecords,
          kPlanarRecords + 1, 3 * kPlanarRecords - 5}) {
      SCOPED_TRACE(num_parts);
      SCOPED_TRACE(num_records);
      std::vector<std::byte> records;
      for (uint64_t i = 0; i < num_records * segment.stride_bytes; ++i) {
        records.push_back(static_cast<std::byte>(i * 97 ^ i >> 8));
      }
      std::vector<std::byte> planar = records;
      MakePlanar(segment, num_records, planar.data());
      EXPECT_TRUE(IsPlanarOf(segment, records, planar.data()));
    }
  }
}

}  // namespace
}  // namespace flashelm
