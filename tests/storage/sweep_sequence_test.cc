#include "storage/sweep_sequence.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tests/storage/model_builder.h"
#include "tests/storage/test_plans.h"

namespace flashelm {
namespace {

constexpr uint32_t kSlots = 3;
constexpr uint32_t kLastSegment = 9;

// Everything is in the sweep and streams, but for segment 4, which is read
// apart.
ResidencyPlan PlanWithOneApart() {
  ResidencyPlan plan = StreamingPlan(SharedSegments(), kSlots);
  std::erase(plan.sweep, 4u);
  plan.apart = {4};
  return plan;
}

struct BadPlan {
  const char* name;
  void (*spoil)(ResidencyPlan& plan);
  std::string part;  // Of the message.
};

void PrintTo(const BadPlan& plan, std::ostream* out) { *out << plan.name; }

class BadPlanTest : public testing::TestWithParam<BadPlan> {};

TEST_P(BadPlanTest, IsRefused) {
  const WeightFile weights = SharedTestModel().Open();
  ResidencyPlan plan = PlanWithOneApart();
  GetParam().spoil(plan);
  const Status status = CheckResidencyPlan(weights, plan);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  for (const std::string& part :
       {std::string("memory.felm"), GetParam().part}) {
    EXPECT_NE(status.message().find(part), std::string::npos)
        << status.message();
  }
}

const std::string kApart = "is read apart and by a sweep, or there is none";
const std::string kPlanar = "is planar, but not of parts of one size";
const std::string kTwice = "twice in a sweep, or none";

const BadPlan kBadPlans[] = {
    {"ASegmentTooFew", [](ResidencyPlan& p) { p.resident_records.pop_back(); },
     "a residency plan for 9 of 10 segments"},
    {"ASegmentTooMany",
     [](ResidencyPlan& p) { p.resident_records.push_back(0); },
     "a residency plan for 11 of 10 segments"},
    {"ChunksTooFew", [](ResidencyPlan& p) { p.chunk_records.pop_back(); },
     "a residency plan"},
    {"NoSuchHead", [](ResidencyPlan& p) { p.head = 10; }, "a residency plan"},
    {"SlotsOfNoWholePages", [](ResidencyPlan& p) { p.slot_bytes += 512; },
     "expected whole pages of 4096"},
    {"ARingBeyondAllNumbers",
     [](ResidencyPlan& p) { p.slot_bytes = uint64_t{1} << 63; },
     "a ring of 3 slots of 9223372036854775808"},
    {"NoSuchSegment", [](ResidencyPlan& p) { p.sweep[0] = 10; },
     "segment 10 " + kTwice},
    {"ASegmentTwice", [](ResidencyPlan& p) { p.sweep[0] = p.sweep[1]; },
     "segment 2 " + kTwice},
    {"TheHeadInTheSweep", [](ResidencyPlan& p) { p.sweep[0] = p.head; },
     "segment 0 " + kTwice},
    {"NoSuchSegmentApart", [](ResidencyPlan& p) { p.apart[0] = 10; },
     "segment 10 " + kApart},
    {"ASegmentApartAndInTheSweep", [](ResidencyPlan& p) { p.apart[0] = 1; },
     "segment 1 " + kApart},
    {"TheHeadApart", [](ResidencyPlan& p) { p.apart[0] = p.head; },
     "segment 0 " + kApart},
    {"ASegmentApartThatIsResident",
     [](ResidencyPlan& p) { p.resident_records[4] = 21; },
     "segment 4 " + kApart},
    {"AStreamedSegmentLeftOut", [](ResidencyPlan& p) { p.sweep.pop_back(); },
     "final_norm with 0 resident records of 1"},
    {"ASegmentNeitherApartNorInTheSweep",
     [](ResidencyPlan& p) { p.apart.clear(); },
     "layer 0 ffn with 0 resident records of 21"},
    {"MoreRecordsThanThereAre",
     [](ResidencyPlan& p) { p.resident_records[8] = 31; },
     "with 31 resident records of 30"},
    {"HalfAUnit", [](ResidencyPlan& p) { p.resident_records[8] = 4; },
     "with 4 resident records of 30"},
    {"HalfAChecksum", [](ResidencyPlan& p) { p.resident_records[0] = 8; },
     "with 8 resident records of 100"},
    {"ChunksOfHalfAUnit", [](ResidencyPlan& p) { p.chunk_records[8] = 4; },
     "and chunks of 4"},
    {"ChunksOfNothing", [](ResidencyPlan& p) { p.chunk_records[8] = 0; },
     "and chunks of 0"},
    {"ChunksOfNothingApart", [](ResidencyPlan& p) { p.chunk_records[4] = 0; },
     "and chunks of 0"},
    {"NoSlots", [](ResidencyPlan& p) { p.num_slots = 0; },
     "embedding with 0 resident records of 100"},
    {"SlotsTooSmall", [](ResidencyPlan& p) { p.slot_bytes = kIoAlignment; },
     "for slots of 4096 bytes"},
    {"SlotsAPageTooSmall",
     [](ResidencyPlan& p) { p.slot_bytes -= kIoAlignment; }, "for slots of"},
    {"NoSuchSegmentPlanar", [](ResidencyPlan& p) { p.planar = {10}; },
     "segment 10 " + kPlanar},
    {"ASegmentThatStreamsPlanar", [](ResidencyPlan& p) { p.planar = {8}; },
     "segment 8 " + kPlanar},
    {"ASegmentApartPlanar", [](ResidencyPlan& p) { p.planar = {4}; },
     "segment 4 " + kPlanar},
    {"ASegmentOfNoSweepPlanar",
     [](ResidencyPlan& p) {
       std::erase(p.sweep, 1);
       p.resident_records[1] = 1;
       p.planar = {1};
     },
     "segment 1 " + kPlanar},
    {"ASegmentOfOnePartPlanar",
     [](ResidencyPlan& p) {
       p.resident_records[2] = 24;
       p.planar = {2};
     },
     "segment 2 " + kPlanar},
};

INSTANTIATE_TEST_SUITE_P(Rules, BadPlanTest, testing::ValuesIn(kBadPlans),
                         [](const auto& test) {
                           return std::string(test.param.name);
                         });

TEST(CheckResidencyPlanTest, TakesPlansThatKeepToTheRules) {
  const WeightFile weights = SharedTestModel().Open();
  const auto expect = [&](const char* name, const ResidencyPlan& plan) {
    const Status status = CheckResidencyPlan(weights, plan);
    EXPECT_TRUE(status.ok()) << name << ": " << status.message();
  };
  ResidencyPlan plan = PlanWithOneApart();
  expect("one apart", plan);
  plan.chunk_records[4] = 1;
  expect("chunks of half a unit, apart", plan);
  plan.slot_bytes += kIoAlignment;
  expect("slots larger than chunks", plan);
  plan.chunk_records[8] = 30;
  plan.resident_records[8] = 8;
  expect("whole units, and all records", plan);

  std::vector<uint64_t> all;
  for (const Segment& segment : SharedSegments()) {
    all.push_back(segment.num_records);
  }
  plan.apart.clear();
  plan.resident_records = all;
  plan.chunk_records.assign(all.size(), 0);
  plan.num_slots = 0;
  plan.slot_bytes = 0;
  expect("all resident, no slots", plan);
  plan.sweep = {kLastSegment, 1};
  expect("what is resident may be left out", plan);
}

// Chunks up to the cursor's first sweep of unknown length.
struct Chunk {
  uint64_t sweep;
  uint32_t segment;
  uint64_t first;
  uint64_t count;
  friend bool operator==(const Chunk&, const Chunk&) = default;
};
std::vector<Chunk> ChunksFrom(const SweepSequence& sequence,
                              SweepCursor& cursor) {
  std::vector<Chunk> chunks;
  while (sequence.Settle(cursor)) {
    const uint64_t count = sequence.ChunkRecords(cursor);
    chunks.push_back(
        {cursor.sweep, sequence.SegmentAt(cursor.step), cursor.record, count});
    cursor.record += count;
  }
  return chunks;
}

TEST(SweepSequenceTest, GoesOnToTheHeadOfTheSweepThatHasNotBegun) {
  const WeightFile weights = SharedTestModel().Open();
  ResidencyPlan plan = StreamingPlan(SharedSegments(), kSlots);
  // Few chunks: what streams is segment 2, and the head.
  plan.sweep = {2, 8};
  for (uint32_t i = 1; i < SharedSegments().size(); ++i) {
    if (i != 2) plan.resident_records[i] = SharedSegments()[i].num_records;
  }
  plan.chunk_records[2] = 16;
  plan.chunk_records[plan.head] = 80;
  plan.slot_bytes = RunPageBytes(SharedSegments()[plan.head], 80);
  const Status status = CheckResidencyPlan(weights, plan);
  ASSERT_TRUE(status.ok()) << status.message();
  SweepSequence sequence(weights, plan);
  EXPECT_EQ(sequence.StepOf(8), 1u);
  EXPECT_EQ(sequence.StepOf(plan.head), 2u);
  EXPECT_TRUE(sequence.Contains(2) && sequence.Contains(plan.head));
  EXPECT_FALSE(sequence.Contains(1) || sequence.Contains(4));

  const auto of_sweep = [](uint64_t sweep) {
    return std::vector<Chunk>{{sweep, 2, 0, 16}, {sweep, 2, 16, 8}};
  };
  SweepCursor cursor = sequence.NextSweep();
  EXPECT_EQ(ChunksFrom(sequence, cursor), of_sweep(1));
  sequence.Begin(/*with_head=*/true);
  EXPECT_EQ(sequence.sweep(), 1u);
  std::vector<Chunk> expected = {{1, 0, 0, 80}, {1, 0, 80, 20}};
  for (const Chunk& chunk : of_sweep(2)) expected.push_back(chunk);
  EXPECT_EQ(ChunksFrom(sequence, cursor), expected);
  sequence.Begin(/*with_head=*/false);
  EXPECT_EQ(ChunksFrom(sequence, cursor), of_sweep(3));
  EXPECT_EQ(sequence.NextSweep().sweep, 3u);
}

}  // namespace
}  // namespace flashelm
