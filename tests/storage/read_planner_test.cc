#include "storage/read_planner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <span>
#include <vector>

namespace flashelm {
namespace {

constexpr uint64_t kOffset = 12 * kIoAlignment;
constexpr uint64_t kPage = kIoAlignment;

Segment MakeSegment(uint64_t num_records, uint64_t stride_bytes) {
  Segment segment;
  segment.kind = SegmentKind::kFfn;
  segment.offset_bytes = kOffset;
  segment.num_records = num_records;
  segment.stride_bytes = stride_bytes;
  return segment;
}

// A gap of so many bytes costs as much as a request.
ReadCost CostOf(uint64_t gap_bytes) {
  return {static_cast<double>(gap_bytes) / 2, 2.0};
}

// Reads for all ids, one after the other.
std::vector<PlannedRead> Plan(const ReadPlanner& planner,
                              std::span<const uint32_t> ids) {
  std::vector<PlannedRead> reads;
  while (!ids.empty()) {
    reads.push_back(planner.PlanFirst(ids));
    ids = ids.subspan(reads.back().num_wanted);
  }
  return reads;
}

// Offset in the segment, and size, both in pages.
struct Pages {
  uint64_t offset;
  uint64_t size;
};

struct Case {
  const char* name;
  uint64_t num_records;
  uint64_t stride_bytes;
  uint64_t gap_bytes;
  uint64_t max_read_bytes;
  std::vector<uint32_t> ids;
  std::vector<Pages> reads;
};

TEST(ReadPlannerTest, MergesWhatIsCheaperMerged) {
  const Case cases[] = {
      {"nothing", 10, kPage, 0, 64 * kPage, {}, {}},
      {"one", 10, kPage, 0, 64 * kPage, {3}, {{3, 1}}},
      {"neighbours, gaps are dear", 10, kPage, 0, 64 * kPage, {3, 4}, {{3, 2}}},
      {"a gap of a page too many",
       10,
       kPage,
       kPage - 1,
       64 * kPage,
       {3, 5},
       {{3, 1}, {5, 1}}},
      {"a gap as dear as a request",
       10,
       kPage,
       kPage,
       64 * kPage,
       {3, 5, 8},
       {{3, 3}, {8, 1}}},
      {"all of it", 10, kPage, 9 * kPage, 64 * kPage, {0, 9}, {{0, 10}}},
      {"as large as a read may be",
       10,
       kPage,
       0,
       3 * kPage,
       {1, 2, 3, 4, 5, 6, 7},
       {{1, 3}, {4, 3}, {7, 1}}},
      {"a gap that a read has no room for",
       10,
       kPage,
       9 * kPage,
       3 * kPage,
       {1, 2, 5, 7},
       {{1, 2}, {5, 3}}},
      {"records larger than a read are not split",
       10,
       3 * kPage,
       0,
       2 * kPage,
       {1, 2, 4},
       {{3, 3}, {6, 3}, {12, 3}}},
      {"parts of pages: 1.5 a record",
       10,
       6144,
       0,
       64 * kPage,
       {1, 4},
       {{1, 2}, {6, 2}}},
      {"a page that two of them share",
       10,
       6144,
       0,
       64 * kPage,
       {0, 1},
       {{0, 3}}},
      {"a shared page is read twice where one read has no room",
       10,
       6144,
       0,
       2 * kPage,
       {0, 1},
       {{0, 2}, {1, 2}}},
      {"many records in a page", 40, 1024, 0, 64 * kPage, {1, 3}, {{0, 1}}},
      {"a last page that is not full", 5, 1024, 0, 64 * kPage, {4}, {{1, 1}}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const Segment segment = MakeSegment(c.num_records, c.stride_bytes);
    const ReadPlanner planner(segment, CostOf(c.gap_bytes), c.max_read_bytes);
    const std::vector<PlannedRead> reads = Plan(planner, c.ids);
    ASSERT_EQ(reads.size(), c.reads.size());
    for (size_t i = 0; i < reads.size(); ++i) {
      EXPECT_EQ(reads[i].offset_bytes, kOffset + c.reads[i].offset * kPage);
      EXPECT_EQ(reads[i].num_bytes, c.reads[i].size * kPage);
    }
  }
}

TEST(ReadPlannerTest, RandomSetsAreCoveredOnceInOrderAndWithinTheRules) {
  std::mt19937_64 random(21);
  for (int round = 0; round < 2000; ++round) {
    SCOPED_TRACE(round);
    const uint64_t stride = 2 + random() % 20000;
    const Segment segment = MakeSegment(1 + random() % 300, stride);
    const uint64_t end = RoundUp(segment.num_bytes(), kPage);
    const uint64_t max_gap = random() % (8 * kPage);
    const uint64_t max_read = (1 + random() % 40) * kPage;
    const ReadPlanner planner(segment, CostOf(max_gap), max_read);
    const uint64_t one_of = 1 + random() % 20;
    std::vector<uint32_t> ids;
    for (uint32_t id = 0; id < segment.num_records; ++id) {
      if (random() % one_of == 0) ids.push_back(id);
    }
    size_t at = 0;
    uint64_t last_begin = 0;
    for (const PlannedRead& read : Plan(planner, ids)) {
      ASSERT_GT(read.num_wanted, 0u);
      ASSERT_LE(read.num_wanted, ids.size() - at);
      const uint32_t first = ids[at];
      const uint32_t last = ids[at + read.num_wanted - 1];
      ASSERT_EQ(read.first_record, first);
      ASSERT_EQ(read.num_records, last - first + 1);
      // Exactly the pages of its records, inside the segment.
      const uint64_t offset = read.offset_bytes - kOffset;
      ASSERT_EQ(offset, RoundDown(first * stride, kPage));
      ASSERT_EQ(offset + read.num_bytes, RoundUp((last + 1) * stride, kPage));
      ASSERT_LE(offset + read.num_bytes, end);
      ASSERT_TRUE(read.num_bytes <= max_read || read.num_wanted == 1);
      if (read.num_wanted == 1) {
        ASSERT_LE(read.num_bytes, ReadPlanner::MaxRecordBytes(segment));
      }
      for (size_t i = at + 1; i < at + read.num_wanted; ++i) {
        const uint64_t before = RoundUp((ids[i - 1] + 1) * stride, kPage);
        const uint64_t next = RoundDown(ids[i] * stride, kPage);
        ASSERT_LE(next, before + max_gap);
      }
      // Another read begins only where there is a reason.
      if (at > 0) {
        const uint64_t begin = RoundDown(ids[at] * stride, kPage);
        const uint64_t with = RoundUp((ids[at] + uint64_t{1}) * stride, kPage);
        const uint64_t before = RoundUp((ids[at - 1] + 1) * stride, kPage);
        ASSERT_TRUE(begin > before + max_gap || with - last_begin > max_read);
      }
      last_begin = offset;
      at += read.num_wanted;
    }
    ASSERT_EQ(at, ids.size());
  }
}

TEST(ReadPlannerTest, KnowsWhatTheWorstPlacedRecordNeeds) {
  EXPECT_EQ(ReadPlanner::MaxRecordBytes(MakeSegment(9, kPage)), kPage);
  EXPECT_EQ(ReadPlanner::MaxRecordBytes(MakeSegment(9, 1024)), kPage);
  EXPECT_EQ(ReadPlanner::MaxRecordBytes(MakeSegment(9, 3072)), 2 * kPage);
  EXPECT_EQ(ReadPlanner::MaxRecordBytes(MakeSegment(9, 6144)), 2 * kPage);
  EXPECT_EQ(ReadPlanner::MaxRecordBytes(MakeSegment(9, 6146)), 3 * kPage);
  EXPECT_EQ(ReadPlanner::MaxRecordBytes(MakeSegment(1, 4098)), 2 * kPage);
}

TEST(ReadPlannerTest, PredictsWhatTheCostSaysOfItsReads) {
  // 10 ns for a request, 2 bytes for each ns: a gap of 20 bytes.
  const ReadPlanner planner(MakeSegment(100, kPage), {10, 2}, 4 * kPage);
  const double page_ns = kPage / 2.0;
  EXPECT_EQ(planner.PredictNs({}), 0);
  EXPECT_EQ(planner.PredictNs(std::vector<uint32_t>{7}), 10 + page_ns);
  // Two reads, of one page and of two.
  EXPECT_EQ(planner.PredictNs(std::vector<uint32_t>{7, 9, 10}),
            20 + 3 * page_ns);
  // Two reads, of four pages and of one.
  EXPECT_EQ(planner.PredictNs(std::vector<uint32_t>{1, 2, 3, 4, 5}),
            20 + 5 * page_ns);
}

TEST(ReadPlannerTest, WholeReadsEverythingInBetweenAtTheSequentialRate) {
  const ReadPlanner planner =
      ReadPlanner::Whole(MakeSegment(100, kPage), {10, 2, 4}, 8 * kPage);
  const std::vector<uint32_t> ids = {3, 9, 50, 60};
  const std::vector<PlannedRead> reads = Plan(planner, ids);
  // A read begins at a wanted record, so a gap that it has no room for is left
  // out.
  ASSERT_EQ(reads.size(), 3u);
  EXPECT_EQ(reads[0].offset_bytes, kOffset + 3 * kPage);
  EXPECT_EQ(reads[0].num_bytes, 7 * kPage);
  EXPECT_EQ(reads[1].offset_bytes, kOffset + 50 * kPage);
  // Which is no reason to count the gap as passed over in no time.
  EXPECT_EQ(planner.PredictNs(ids), 8 * 10 + 58 * kPage / 4.0);
  // Without a rate for that, at the other.
  EXPECT_EQ(ReadPlanner::Whole(MakeSegment(100, kPage), {10, 2}, 8 * kPage)
                .PredictNs(ids),
            8 * 10 + 58 * kPage / 2.0);
}

}  // namespace
}  // namespace flashelm
