#include "storage/residency.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "core/base/checked_math.h"
#include "core/base/types.h"

namespace flashelm {
namespace {

Segment MakeSegment(uint64_t num_records, uint64_t stride_bytes) {
  Segment segment;
  segment.num_records = num_records;
  segment.stride_bytes = stride_bytes;
  segment.records_per_checksum = 1;
  return segment;
}

std::vector<SegmentResidency::Piece> Pieces(const Segment& segment,
                                            const SegmentResidency& residency) {
  std::vector<SegmentResidency::Piece> pieces;
  for (uint64_t record = 0; record < segment.num_records;) {
    pieces.push_back(residency.PieceAt(record));
    record += pieces.back().num_records;
  }
  return pieces;
}

TEST(SegmentResidencyTest, EveryRecordIsInOnePieceOfWholeUnits) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 2000; ++round) {
    const Segment segment =
        MakeSegment(1 + random() % 300, 512 * (1 + random() % 20));
    const uint64_t unit = segment.unit_records();
    const uint64_t units = CeilDiv(segment.num_records, unit);
    const uint64_t resident =
        std::min(segment.num_records, random() % (units + 1) * unit);
    const uint64_t chunk = (1 + random() % units) * unit;
    SCOPED_TRACE(testing::Message()
                 << segment.num_records << " records, units of " << unit << ", "
                 << resident << " resident, chunks of " << chunk);
    const SegmentResidency residency(segment, resident, chunk);

    uint64_t num_resident = 0;
    uint64_t num_streamed = 0;
    uint64_t num_chunks = 0;
    uint64_t record = 0;
    for (const SegmentResidency::Piece& piece : Pieces(segment, residency)) {
      ASSERT_GT(piece.num_records, 0u);
      EXPECT_EQ(piece.first_record, record);
      EXPECT_EQ(piece.first_record % unit, 0u);
      EXPECT_EQ(piece.first_resident, num_resident);
      // From anywhere inside, the rest of the piece.
      const uint64_t skip = random() % piece.num_records;
      const SegmentResidency::Piece rest = residency.PieceAt(record + skip);
      EXPECT_EQ(rest.is_resident, piece.is_resident);
      EXPECT_EQ(rest.first_record, record + skip);
      EXPECT_EQ(rest.num_records, piece.num_records - skip);
      EXPECT_EQ(rest.first_resident,
                num_resident + (piece.is_resident ? skip : 0));
      EXPECT_EQ(residency.NextStreamed(record + skip),
                piece.is_resident
                    ? residency.NextStreamed(record + piece.num_records)
                    : record + skip);
      record += piece.num_records;
      if (piece.is_resident) {
        num_resident += piece.num_records;
      } else {
        EXPECT_LE(piece.num_records, chunk);
        num_streamed += piece.num_records;
        ++num_chunks;
      }
    }
    EXPECT_EQ(record, segment.num_records);
    EXPECT_EQ(num_resident, resident);
    EXPECT_EQ(residency.NextStreamed(segment.num_records), segment.num_records);
    ResidencyPlan plan;
    plan.resident_records = {resident};
    plan.chunk_records = {chunk};
    EXPECT_EQ(plan.StreamedReads({segment}), num_chunks);
    // No more reads than there have to be.
    EXPECT_EQ(num_chunks, CeilDiv(num_streamed, chunk));
  }
}

TEST(SegmentResidencyTest, PiecesAreSpreadEvenly) {
  const uint64_t chunk = 8;
  const Segment segment = MakeSegment(1000, kIoAlignment);
  for (const uint64_t resident : {100, 250, 500, 750, 900}) {
    SCOPED_TRACE(resident);
    const SegmentResidency residency(segment, resident, chunk);
    uint64_t num_resident = 0;
    uint64_t num_streamed = 0;
    for (const SegmentResidency::Piece& piece : Pieces(segment, residency)) {
      (piece.is_resident ? num_resident : num_streamed) += piece.num_records;
      // What is resident of all so far, against an even mixture.
      const double even = static_cast<double>(num_resident + num_streamed) *
                          static_cast<double>(resident) / 1000.0;
      EXPECT_NEAR(static_cast<double>(num_resident), even, 2 * chunk);
    }
  }
}

TEST(SegmentResidencyTest, AllOrNothingIsOnePieceOrPlainChunks) {
  const Segment segment = MakeSegment(100, kIoAlignment);
  EXPECT_EQ(Pieces(segment, SegmentResidency(segment, 100, 0)).size(), 1u);
  const auto streamed = Pieces(segment, SegmentResidency(segment, 0, 30));
  ASSERT_EQ(streamed.size(), 4u);
  EXPECT_EQ(streamed[3].first_record, 90u);
  EXPECT_EQ(streamed[3].num_records, 10u);
}

}  // namespace
}  // namespace flashelm
