#include "core/neuron_use.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace flashelm::test {
namespace {

Segment SegmentOf(uint64_t stride_bytes, uint64_t num_records) {
  Segment segment;
  segment.stride_bytes = stride_bytes;
  segment.num_records = num_records;
  return segment;
}

// The planner merges reads for ids; what that comes to on average is said
// without any.
TEST(ReadNsTest, IsWhatThePlannerComesTo) {
  std::mt19937 random(7);
  for (const uint64_t stride : {1024, 3456, 12288}) {
    for (const double request_ns : {1e3, 1e4, 1e5}) {
      for (const double part : {0.01, 0.05, 0.2, 0.5, 0.8}) {
        SCOPED_TRACE(testing::Message()
                     << stride << " bytes, " << request_ns << " ns, " << part);
        constexpr uint64_t kRecords = 8192;
        const Segment segment = SegmentOf(stride, kRecords);
        ReadCost cost;
        cost.request_ns = request_ns;
        cost.bytes_per_ns = 2;
        std::vector<uint32_t> ids;
        for (uint32_t i = 0; i < kRecords; ++i) {
          if (random() < part * 0x1p32) ids.push_back(i);
        }
        const double planned =
            std::min(ReadPlanner(segment, cost, 1 << 20).PredictNs(ids),
                     static_cast<double>(kRecords * stride) / 2);
        const double predicted =
            ReadNs(segment, static_cast<double>(ids.size()), cost);
        EXPECT_NEAR(predicted, planned, 0.15 * planned);
      }
    }
  }
}

TEST(ReadNsTest, TakesNoLongerThanTheWholeSegment) {
  const Segment segment = SegmentOf(4096, 1000);
  ReadCost cost;
  cost.request_ns = 1e6;
  cost.bytes_per_ns = 1;
  EXPECT_EQ(ReadNs(segment, 0, cost), 0);
  EXPECT_DOUBLE_EQ(ReadNs(segment, 900, cost), 4096e3);
  cost.sequential_bytes_per_ns = 4;
  EXPECT_DOUBLE_EQ(ReadNs(segment, 900, cost), 1024e3);
  EXPECT_LE(ReadNs(segment, 1, cost), 1e6 + 4096);
}

TEST(ExpectedMissesTest, TheSameNeuronsStayCached) {
  const Segment segment = SegmentOf(4096, 1000);
  const NeuronUse half = {.kept = 500, .frequency = {}};
  EXPECT_DOUBLE_EQ(ExpectedMisses(half, segment, 0, false), 500);
  EXPECT_DOUBLE_EQ(ExpectedMisses(half, segment, 400, false), 300);
  EXPECT_DOUBLE_EQ(ExpectedMisses(half, segment, 400, true), 100);
  EXPECT_DOUBLE_EQ(ExpectedMisses(half, segment, 1000, false), 0);
}

}  // namespace
}  // namespace flashelm::test
