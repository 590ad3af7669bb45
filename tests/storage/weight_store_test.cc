#include "storage/weight_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/base/checked_math.h"
#include "storage/planar.h"
#include "storage/pread_reader.h"
#include "tests/core/allocation_counter.h"
#include "tests/storage/faulty_reader.h"
#include "tests/storage/memory_file.h"
#include "tests/storage/model_builder.h"
#include "tests/storage/test_plans.h"
#include "tests/temp_directory.h"

namespace flashelm {
namespace {

using test::TempDirectory;

uint64_t PageBytes(const Segment& segment, uint64_t records) {
  return RoundUp(records * segment.stride_bytes, kIoAlignment);
}

// A multiple of the segment's unit from 0 (or 1 unit) to all records.
uint64_t RandomRecords(const Segment& segment, bool may_be_zero,
                       std::mt19937_64& random) {
  const uint64_t units = CeilDiv(segment.num_records, segment.unit_records());
  const uint64_t least = may_be_zero ? 0 : 1;
  const uint64_t chosen = least + random() % (units + 1 - least);
  return std::min(chosen * segment.unit_records(), segment.num_records);
}

ResidencyPlan RandomPlan(const std::vector<Segment>& segments,
                         std::mt19937_64& random) {
  std::vector<uint64_t> resident;
  std::vector<uint64_t> chunks;
  // Now and then everything stays, or everything streams.
  const uint64_t mood = random() % 8;
  for (const Segment& segment : segments) {
    resident.push_back(mood == 0   ? segment.num_records
                       : mood == 1 ? 0
                                   : RandomRecords(segment, true, random));
    chunks.push_back(RandomRecords(segment, false, random));
  }
  ResidencyPlan plan =
      MakePlan(segments, std::move(resident), std::move(chunks),
               1 + static_cast<uint32_t>(random() % 6));
  plan.slot_bytes += random() % 3 * kIoAlignment;
  // Segments that stay need no place in the sweep, and its order is free.
  std::erase_if(plan.sweep, [&](uint32_t index) {
    return plan.resident_records[index] == segments[index].num_records &&
           random() % 2 == 0;
  });
  if (random() % 4 == 0) std::ranges::shuffle(plan.sweep, random);
  for (const uint32_t index : plan.sweep) {
    const Segment& segment = segments[index];
    if (plan.resident_records[index] == segment.num_records &&
        CanBePlanar(segment) && random() % 2 == 0) {
      plan.planar.push_back(index);
    }
  }
  return plan;
}

// Another one whose sweeps go through the same segments.
ResidencyPlan RandomPlanAfter(const ResidencyPlan& before,
                              std::mt19937_64& random) {
  const std::vector<Segment>& segments = SharedSegments();
  ResidencyPlan plan = RandomPlan(segments, random);
  plan.sweep = before.sweep;
  std::erase_if(plan.planar, [&](uint32_t index) {
    return std::ranges::count(plan.sweep, index) == 0;
  });
  for (uint32_t i = 0; i < segments.size(); ++i) {
    if (i == plan.head || std::ranges::count(plan.sweep, i) > 0) continue;
    plan.resident_records[i] = segments[i].num_records;
  }
  return plan;
}

// A whole sweep, each record compared with the test model's; where its chunks
// lay, by their addresses, goes to `chunks`.
Status Sweep(WeightStore& store, const ResidencyPlan& plan,
             std::set<const std::byte*>* chunks = nullptr) {
  FLASHELM_RETURN_IF_ERROR(store.BeginSweep(true));
  std::vector<uint32_t> steps = plan.sweep;
  steps.push_back(plan.head);
  for (const uint32_t index : steps) {
    const Segment& segment = SharedSegments()[index];
    for (uint64_t record = 0; record < segment.num_records;) {
      FLASHELM_ASSIGN_OR_RETURN(const RecordRun run, store.Next(index, record));
      const auto& all = SharedTestModel().segments[index];
      EXPECT_TRUE(std::equal(run.data,
                             run.data + run.num_records * segment.stride_bytes,
                             all.data() + record * segment.stride_bytes));
      if (chunks != nullptr) chunks->insert(run.data);
      record += run.num_records;
    }
  }
  return store.EndSweep();
}

// The reads that a sweep makes, in order.
std::vector<FaultyReader::Asked> SweepReads(
    const std::vector<Segment>& segments, const ResidencyPlan& plan,
    bool with_head) {
  std::vector<FaultyReader::Asked> reads;
  std::vector<uint32_t> steps = plan.sweep;
  if (with_head) steps.push_back(plan.head);
  for (const uint32_t index : steps) {
    const Segment& segment = segments[index];
    const SegmentResidency residency = plan.Residency(segments, index);
    for (uint64_t record = 0; record < segment.num_records;) {
      const SegmentResidency::Piece piece = residency.PieceAt(record);
      record += piece.num_records;
      if (piece.is_resident) continue;
      reads.push_back(
          {segment.offset_bytes + piece.first_record * segment.stride_bytes,
           PageBytes(segment, piece.num_records)});
    }
  }
  return reads;
}

// A store over a model in memory, with a reader that may misbehave.
struct Rig {
  Rig(const TestModel& test_model, ResidencyPlan residency,
      std::vector<FaultAt> faults = {},
      CompletionOrder order = CompletionOrder::kAsTheyCome,
      uint32_t num_threads = 2)
      : Rig(test_model, ShareBytes(test_model.file), std::move(residency),
            std::move(faults), order, num_threads) {}

  Rig(const TestModel& test_model, SharedBytes shared, ResidencyPlan residency,
      std::vector<FaultAt> faults = {},
      CompletionOrder order = CompletionOrder::kAsTheyCome,
      uint32_t num_threads = 2)
      : model(test_model),
        bytes(std::move(shared)),
        weights(TestModel::Open(bytes)),
        plan(std::move(residency)) {
    auto created =
        PreadReader::Create(weights.shared_file(),
                            WeightStore::MaxReadsInFlight(plan), num_threads);
    EXPECT_TRUE(created);
    inner = std::move(*created);
    reader = std::make_unique<FaultyReader>(*inner, std::move(faults), order);
    auto store_created = WeightStore::Create(weights, plan, *reader, budget);
    EXPECT_TRUE(store_created) << store_created.error().message();
    store = std::move(*store_created);
  }

  // So many slots are read to at a time.
  void LimitWindow(uint64_t num_slots) {
    WeightStoreOptions options;
    options.window_bytes = num_slots * plan.slot_bytes;
    auto created = WeightStore::Create(weights, plan, *reader, budget, options);
    ASSERT_TRUE(created) << created.error().message();
    store = std::move(*created);
  }

  Status Load() { return store->Load(CancelToken(), nullptr); }

  // Goes over to another plan, as when the budget becomes another.
  void Follow(ResidencyPlan next, std::vector<FaultAt> faults = {}) {
    auto created = PreadReader::Create(weights.shared_file(),
                                       WeightStore::MaxReadsInFlight(next), 2);
    ASSERT_TRUE(created);
    auto next_inner = std::move(*created);
    auto next_reader =
        std::make_unique<FaultyReader>(*next_inner, std::move(faults));
    WeightStoreOptions options;
    options.before = store.get();
    auto store_created =
        WeightStore::Create(weights, next, *next_reader, budget, options);
    ASSERT_TRUE(store_created) << store_created.error().message();
    // In this order: each uses those after it.
    store = std::move(*store_created);
    reader = std::move(next_reader);
    inner = std::move(next_inner);
    plan = std::move(next);
  }

  // Takes every record of a sweep and compares it; stops at the first error,
  // or after `max_runs` runs, as if the caller lost interest.
  Status Sweep(bool with_head, uint64_t max_runs = UINT64_MAX) {
    FLASHELM_RETURN_IF_ERROR(store->BeginSweep(with_head));
    std::vector<uint32_t> steps = plan.sweep;
    if (with_head) steps.push_back(plan.head);
    for (const uint32_t index : steps) {
      const Segment& segment = weights.segments()[index];
      for (uint64_t record = 0; record < segment.num_records;) {
        if (max_runs-- == 0) return OkStatus();
        FLASHELM_ASSIGN_OR_RETURN(const RecordRun run,
                                  store->Next(index, record));
        if (run.first_record != record || run.num_records == 0 ||
            run.num_records > segment.num_records - record) {
          return DataLoss("a run of ", run.num_records, " from ",
                          run.first_record, ", expected one from ", record);
        }
        FLASHELM_RETURN_IF_ERROR(CompareRun(index, run));
        record += run.num_records;
      }
    }
    return OkStatus();
  }

  Status CompareRun(uint32_t index, const RecordRun& run) const {
    if (run.is_planar != (std::ranges::count(plan.planar, index) > 0)) {
      return DataLoss("a run that is planar, or is not: ", index);
    }
    if (!run.is_planar) {
      return Compare(index, run.first_record, run.num_records, run.data);
    }
    const Segment& segment = weights.segments()[index];
    const auto records = std::span(model.segments[index])
                             .subspan(run.first_record * segment.stride_bytes,
                                      run.num_records * segment.stride_bytes);
    if (run.first_record % kPlanarRecords != 0 ||
        (run.num_records % kPlanarRecords != 0 &&
         run.first_record + run.num_records != segment.num_records) ||
        !IsPlanarOf(segment, records, run.data)) {
      return DataLoss("wrong bytes of planar ", segment.Describe());
    }
    return OkStatus();
  }

  Status Compare(uint32_t index, uint64_t record, uint64_t count,
                 const std::byte* data) const {
    const uint64_t stride = weights.segments()[index].stride_bytes;
    if (!std::equal(data, data + count * stride,
                    model.segments[index].data() + record * stride)) {
      return DataLoss("wrong bytes in ", weights.segments()[index].Describe(),
                      " records ", record, " to ", record + count);
    }
    return OkStatus();
  }

  Status CompareHead(uint64_t record) const {
    FLASHELM_ASSIGN_OR_RETURN(const std::byte* data,
                              store->FindHeadRecord(record));
    return Compare(plan.head, record, 1, data);
  }

  const TestModel& model;
  SharedBytes bytes;
  WeightFile weights;
  ResidencyPlan plan;
  MemoryBudget budget{uint64_t{64} << 20};
  std::unique_ptr<PreadReader> inner;
  std::unique_ptr<FaultyReader> reader;
  std::unique_ptr<WeightStore> store;
};

// So that a failure prints its reason.
testing::AssertionResult Ok(const Status& status) {
  if (status.ok()) return testing::AssertionSuccess();
  return testing::AssertionFailure()
         << StatusCodeName(status.code()) << ": " << status.message();
}

testing::AssertionResult Fails(const Status& status, StatusCode code,
                               std::initializer_list<std::string> parts) {
  if (status.code() != code) {
    return testing::AssertionFailure()
           << StatusCodeName(status.code()) << ": " << status.message();
  }
  for (const std::string& part : parts) {
    if (status.message().find(part) == std::string::npos) {
      return testing::AssertionFailure()
             << "\"" << status.message() << "\" does not say " << part;
    }
  }
  return testing::AssertionSuccess();
}

// ---------------------------------------------------------------------------

TEST(WeightStoreTest, RandomPlansGiveRightBytesAndReadEachOncePerSweep) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 200; ++round) {
    SCOPED_TRACE(round);
    const ResidencyPlan plan = RandomPlan(SharedSegments(), random);
    Rig rig(SharedTestModel(), plan, {},
            random() % 2 == 0 ? CompletionOrder::kAsTheyCome
                              : CompletionOrder::kReversed,
            1 + static_cast<uint32_t>(random() % 3));
    ASSERT_TRUE(Ok(rig.Load()));
    EXPECT_EQ(rig.store->stats().resident_bytes,
              plan.ResidentBytes(SharedSegments()));
    EXPECT_EQ(rig.store->stats().stream_bytes, 0u);

    const size_t load_reads = rig.reader->asked().size();
    std::vector<FaultyReader::Asked> expected;
    uint64_t streamed = 0;
    for (int sweep = 0; sweep < 6; ++sweep) {
      const bool with_head = random() % 2 == 0;
      ASSERT_TRUE(Ok(rig.Sweep(with_head)));
      for (const auto& read : SweepReads(SharedSegments(), plan, with_head)) {
        expected.push_back(read);
      }
      streamed += plan.StreamedBytes(SharedSegments(), with_head);
    }
    // Behind the last sweep stands a beginning of the next: at most the ring,
    // and never the head, of which nobody knows yet whether it is wanted.
    const size_t num_wanted = expected.size();
    for (const auto& read : SweepReads(SharedSegments(), plan, false)) {
      expected.push_back(read);
    }
    const std::vector<FaultyReader::Asked> asked(
        rig.reader->asked().begin() + static_cast<ptrdiff_t>(load_reads),
        rig.reader->asked().end());
    ASSERT_GE(asked.size(), num_wanted);
    ASSERT_LE(asked.size(),
              std::min<size_t>(expected.size(), num_wanted + plan.num_slots));
    expected.resize(asked.size());
    ASSERT_EQ(asked, expected);
    uint64_t wanted_bytes = 0;
    for (size_t i = 0; i < num_wanted; ++i) wanted_bytes += asked[i].num_bytes;
    EXPECT_GE(wanted_bytes, streamed);  // And a rest of a page per segment.
    EXPECT_LT(wanted_bytes, streamed + 6 * 10 * kIoAlignment);
  }
}

TEST(WeightStoreTest, LookAheadFillsTheRingAcrossTheEndOfASweep) {
  const ResidencyPlan plan = StreamingPlan(SharedSegments(), 3);
  Rig rig(SharedTestModel(), plan);
  ASSERT_TRUE(Ok(rig.Load()));
  const size_t once = SweepReads(SharedSegments(), plan, true).size();
  ASSERT_TRUE(Ok(rig.Sweep(true)));
  // The slot taken last is given back with the next call.
  EXPECT_EQ(rig.reader->asked().size(), once + 2);
  ASSERT_TRUE(Ok(rig.store->BeginSweep(false)));
  EXPECT_EQ(rig.reader->asked().size(), once + 3);
}

// A window of two reads, and the first is the last that is seen.
TEST(WeightStoreTest, WhatEndsWhileAChunkIsAwaitedMakesRoomForMore) {
  Rig rig(SharedTestModel(), StreamingPlan(SharedSegments(), 6),
          {{0, Fault::kLate}});
  rig.LimitWindow(2);
  ASSERT_TRUE(Ok(rig.Load()));
  ASSERT_TRUE(Ok(rig.store->BeginSweep(true)));
  EXPECT_EQ(rig.reader->asked().size(), 2u);
  ASSERT_TRUE(rig.store->Next(rig.plan.sweep[0], 0));
  EXPECT_EQ(rig.reader->asked().size(), 6u) << "all slots";
}

// So does whoever looks at one run for long.
TEST(WeightStoreTest, ReadingGoesOnWhereTheCallerAsksForIt) {
  Rig rig(SharedTestModel(), StreamingPlan(SharedSegments(), 6));
  rig.LimitWindow(2);
  ASSERT_TRUE(Ok(rig.Load()));
  ASSERT_TRUE(Ok(rig.store->BeginSweep(true)));
  const auto run = rig.store->Next(rig.plan.sweep[0], 0);
  ASSERT_TRUE(run);
  while (rig.reader->asked().size() < 6) {
    ASSERT_TRUE(Ok(rig.store->KeepReading()));
  }
  EXPECT_TRUE(
      Ok(rig.Compare(rig.plan.sweep[0], 0, run->num_records, run->data)));
}

TEST(WeightStoreStandInTest, ReadsWhatStreamsWithAReader) {
  std::mt19937_64 random(4);
  std::vector<std::byte> bytes;
  for (const Segment& segment : SharedSegments()) {
    bytes.resize(std::max(bytes.size(), 3 * segment.stride_bytes));
  }
  for (int round = 0; round < 20; ++round) {
    Rig rig(SharedTestModel(), RandomPlan(SharedSegments(), random));
    uint64_t num_bytes = 0;
    auto created = WeightStore::CreateStandIn(
        rig.weights, rig.plan, bytes,
        {{}, &num_bytes, rig.reader.get(), &rig.budget});
    ASSERT_TRUE(created) << created.error().message();
    rig.store = std::move(*created);
    std::vector<uint32_t> steps = rig.plan.sweep;
    steps.push_back(rig.plan.head);
    uint64_t expected_bytes = 0;
    for (int sweep = 0; sweep < 2; ++sweep) {
      ASSERT_TRUE(Ok(rig.store->BeginSweep(true)));
      for (const uint32_t index : steps) {
        const Segment& segment = SharedSegments()[index];
        const auto residency = rig.plan.Residency(SharedSegments(), index);
        for (uint64_t record = 0; record < segment.num_records;) {
          const auto run = rig.store->Next(index, record);
          ASSERT_TRUE(run) << run.error().message();
          const bool is_stand_in = run->data >= bytes.data() &&
                                   run->data < bytes.data() + bytes.size();
          ASSERT_EQ(is_stand_in, residency.PieceAt(record).is_resident);
          if (!is_stand_in) {
            ASSERT_TRUE(
                Ok(rig.Compare(index, record, run->num_records, run->data)));
          }
          record += run->num_records;
          expected_bytes += run->num_records * segment.stride_bytes;
        }
      }
      ASSERT_TRUE(Ok(rig.store->EndSweep()));
      EXPECT_TRUE(rig.store->FindHeadRecord(sweep));
    }
    EXPECT_EQ(num_bytes, expected_bytes);
  }
}

TEST(WeightStoreStandInTest, HandsOutTheRunsOfAPlanUntilItIsOver) {
  const std::vector<Segment>& segments = SharedSegments();
  const WeightFile weights =
      TestModel::Open(ShareBytes(SharedTestModel().file));
  uint64_t most_bytes = 0;
  for (const Segment& segment : segments) {
    most_bytes = std::max(most_bytes, segment.stride_bytes);
  }
  const std::vector<std::byte> bytes(3 * most_bytes);
  std::mt19937_64 random(3);
  for (int round = 0; round < 50; ++round) {
    const ResidencyPlan plan = RandomPlan(segments, random);
    uint64_t num_bytes = 0;
    bool is_over = false;
    auto created = WeightStore::CreateStandIn(
        weights, plan, bytes, {[&] { return is_over; }, &num_bytes});
    ASSERT_TRUE(created) << created.error().message();
    WeightStore& store = **created;
    std::vector<uint32_t> steps = plan.sweep;
    steps.push_back(plan.head);
    uint64_t expected_bytes = 0;
    for (int sweep = 0; sweep < 2; ++sweep) {
      ASSERT_TRUE(Ok(store.BeginSweep(true)));
      for (const uint32_t index : steps) {
        const Segment& segment = segments[index];
        const SegmentResidency residency = plan.Residency(segments, index);
        for (uint64_t record = 0; record < segment.num_records;) {
          const auto run = store.Next(index, record);
          ASSERT_TRUE(run) << run.error().message();
          EXPECT_EQ(run->first_record, record);
          ASSERT_GE(run->num_records, 1u);
          EXPECT_LE(run->num_records, residency.PieceAt(record).num_records);
          EXPECT_GE(run->data, bytes.data());
          EXPECT_LE(run->data + run->num_records * segment.stride_bytes,
                    bytes.data() + bytes.size());
          record += run->num_records;
          expected_bytes += run->num_records * segment.stride_bytes;
        }
      }
      ASSERT_TRUE(Ok(store.EndSweep()));
    }
    EXPECT_EQ(num_bytes, expected_bytes);
    EXPECT_TRUE(store.FindHeadRecord(0));
    is_over = true;
    ASSERT_TRUE(Ok(store.BeginSweep(false)));
    EXPECT_EQ(store.Next(steps[0], 0).error().code(), StatusCode::kCancelled);
    is_over = false;
    EXPECT_TRUE(Ok(store.BeginSweep(false))) << "the one before is given up";
  }
  EXPECT_EQ(
      WeightStore::CreateStandIn(weights, StreamingPlan(segments, 3),
                                 std::span(bytes).first(2 * most_bytes - 1), {})
          .error()
          .code(),
      StatusCode::kInvalidArgument);
}

TEST(WeightStoreTest, EverySweepReadsTheHeadAsItWasToldNotAsTheNextOneIs) {
  for (uint32_t num_slots = 1; num_slots <= 6; ++num_slots) {
    Rig rig(SharedTestModel(), StreamingPlan(SharedSegments(), num_slots));
    ASSERT_TRUE(Ok(rig.Load()));
    for (const bool with_head : {false, true, true, false, false, true}) {
      EXPECT_TRUE(Ok(rig.Sweep(with_head))) << num_slots << " slots";
    }
  }
}

TEST(WeightStoreTest, ReadsAModelFromTheDisk) {
  const TempDirectory directory;
  const std::string path = directory.File("model.felm");
  WriteAllBytes(path, SharedTestModel().file);
  std::mt19937_64 random(12);
  for (const CacheMode mode : {CacheMode::kBuffered, CacheMode::kDirect}) {
    for (int round = 0; round < 10; ++round) {
      const auto weights = WeightFile::Open(path, mode);
      ASSERT_TRUE(weights) << weights.error().message();
      ResidencyPlan plan = RandomPlan(weights->segments(), random);
      plan.planar.clear();
      auto reader = PreadReader::Create(weights->shared_file(),
                                        WeightStore::MaxReadsInFlight(plan), 2);
      ASSERT_TRUE(reader);
      MemoryBudget budget(uint64_t{64} << 20);
      auto store = WeightStore::Create(*weights, plan, **reader, budget);
      ASSERT_TRUE(store);
      ASSERT_TRUE(Ok((*store)->Load(CancelToken(), nullptr)));
      for (int sweep = 0; sweep < 2; ++sweep) {
        ASSERT_TRUE(Ok((*store)->BeginSweep(true)));
        std::vector<uint32_t> steps = plan.sweep;
        steps.push_back(plan.head);
        for (const uint32_t index : steps) {
          const Segment& segment = weights->segments()[index];
          for (uint64_t record = 0; record < segment.num_records;) {
            const auto run = (*store)->Next(index, record);
            ASSERT_TRUE(run) << run.error().message();
            const auto& all = SharedTestModel().segments[index];
            ASSERT_TRUE(std::equal(
                run->data, run->data + run->num_records * segment.stride_bytes,
                all.data() + record * segment.stride_bytes));
            record += run->num_records;
          }
        }
      }
    }
  }
}

TEST(WeightStoreTest, AStoreFollowsAnotherWithAnotherPlan) {
  std::mt19937_64 random(17);
  for (int round = 0; round < 60; ++round) {
    SCOPED_TRACE(round);
    Rig rig(SharedTestModel(), RandomPlan(SharedSegments(), random));
    ASSERT_TRUE(Ok(rig.Load()));
    for (int next = 0; next < 3; ++next) {
      ASSERT_TRUE(Ok(rig.Sweep(next == 1)));
      const ResidencyPlan plan = RandomPlanAfter(rig.plan, random);
      rig.Follow(plan);
      EXPECT_EQ(rig.store->stats().stream_bytes, 0u) << "nothing read yet";
      ASSERT_TRUE(Ok(rig.CompareHead(random() % 100)));
      // The first sweep reads all; then what the plan says.
      ASSERT_TRUE(Ok(rig.Sweep(true)));
      const uint64_t first = rig.store->stats().stream_bytes;
      uint64_t whole = 0;
      for (const uint32_t index : plan.sweep) {
        whole += SharedSegments()[index].num_bytes();
      }
      whole += SharedSegments()[plan.head].num_bytes();
      EXPECT_GE(first, whole);
      ASSERT_TRUE(Ok(rig.Sweep(true)));
      ASSERT_TRUE(Ok(rig.CompareHead(random() % 100)));
      const uint64_t second = rig.store->stats().stream_bytes - first;
      const uint64_t streamed = plan.StreamedBytes(SharedSegments(), true);
      EXPECT_LE(second, streamed + plan.RingBytes() + 12 * kIoAlignment);
    }
    // What a store takes is what its plan says, whatever came before.
    EXPECT_EQ(rig.budget.used_bytes(),
              rig.plan.ResidentBytes(SharedSegments()) + rig.plan.RingBytes() +
                  RoundUp(WeightStoreOverheadBytes(rig.weights, rig.plan),
                          kIoAlignment));
  }
}

TEST(WeightStoreTest, WhatWasDroppedComesBackWithTheNextSweep) {
  std::mt19937_64 random(18);
  for (int round = 0; round < 60; ++round) {
    SCOPED_TRACE(round);
    Rig rig(SharedTestModel(), RandomPlan(SharedSegments(), random));
    ASSERT_TRUE(Ok(rig.Load()));
    ASSERT_TRUE(Ok(rig.Sweep(true)));
    ASSERT_TRUE(Ok(rig.store->DropResident()));
    // Some of it, for a caller that lost interest; then all.
    ASSERT_TRUE(Ok(rig.Sweep(true, random() % 5)));
    rig.store->Abort();
    ASSERT_TRUE(Ok(rig.CompareHead(random() % 100)));
    ASSERT_TRUE(Ok(rig.Sweep(true)));
    const uint64_t before = rig.store->stats().stream_bytes;
    ASSERT_TRUE(Ok(rig.Sweep(true)));
    EXPECT_LE(rig.store->stats().stream_bytes - before,
              rig.plan.StreamedBytes(SharedSegments(), true) +
                  rig.plan.RingBytes() + 12 * kIoAlignment);
  }
}

// Enough for several reads; for several runs where others stream, or once they
// were dropped.
TEST(WeightStoreTest, PlanarRecordsAreSoHoweverTheyAreLoaded) {
  WeightFileContents contents;
  contents.tokenizer = "t";
  AddSegment(contents, SegmentKind::kEmbedding, {}, 100, 768, {"row"});
  AddSegment(contents, SegmentKind::kFfn, 0, 11400, 256,
             {"gate", "up", "down"});
  // A unit is 64 records, less than a block.
  AddSegment(contents, SegmentKind::kFfn, 1, 3333, 400, {"up", "down"});
  const TestModel model = MakeTestModel(contents, 7);
  const std::vector<Segment> segments = model.Open().segments();
  for (const bool head_streams : {false, true}) {
    SCOPED_TRACE(head_streams);
    ResidencyPlan plan =
        MakePlan(segments, {head_streams ? uint64_t{0} : 100, 11400, 3333},
                 {40, 1, 1}, head_streams ? 2 : 0);
    plan.planar = {1, 2};
    Rig rig(model, plan);
    ASSERT_TRUE(Ok(rig.Load()));
    EXPECT_TRUE(Ok(rig.Sweep(true)));
    EXPECT_TRUE(Ok(rig.store->EndSweep()));
    ASSERT_TRUE(Ok(rig.store->DropResident()));
    EXPECT_TRUE(Ok(rig.Sweep(true)));
    EXPECT_TRUE(Ok(rig.store->EndSweep()));
    EXPECT_TRUE(Ok(rig.Sweep(true)));
    EXPECT_TRUE(Ok(rig.store->EndSweep()));
    // As they lie in the file, and back.
    for (const bool is_planar : {false, true}) {
      ASSERT_TRUE(Ok(rig.store->DropResident()));
      plan.planar.clear();
      if (is_planar) plan.planar = {2, 1};
      rig.Follow(plan);
      EXPECT_TRUE(Ok(rig.Sweep(true)));
      EXPECT_TRUE(Ok(rig.store->EndSweep()));
    }
  }
}

TEST(WeightStoreTest, FindsSegmentsThatAreReadAndLieInDramAlone) {
  const std::vector<Segment>& segments = SharedSegments();
  std::vector<uint64_t> all;
  for (const Segment& segment : segments) all.push_back(segment.num_records);
  Rig rig(SharedTestModel(), MakePlan(segments, all, all, 0));
  ASSERT_TRUE(Ok(rig.Load()));
  const auto found = [&](uint32_t segment) {
    const auto run = rig.store->FindResident(segment);
    if (run) {
      EXPECT_EQ(run->first_record, 0u);
      EXPECT_EQ(run->num_records, segments[segment].num_records);
    }
    return run.has_value();
  };
  const uint32_t first = rig.plan.sweep.front();
  EXPECT_TRUE(found(first));
  EXPECT_TRUE(found(rig.plan.head));
  ASSERT_TRUE(Ok(rig.store->BeginSweep(true)));
  const auto next = rig.store->Next(first, 0);
  ASSERT_TRUE(next);
  EXPECT_EQ(next->data, rig.store->FindResident(first)->data);
  EXPECT_EQ(next->num_records, segments[first].num_records);
  rig.store->Abort();
  ASSERT_TRUE(Ok(rig.store->DropResident()));
  EXPECT_FALSE(found(first));
  ASSERT_TRUE(Ok(rig.Sweep(true)));
  EXPECT_TRUE(found(first));
  // Runs are shorter where others stream.
  ResidencyPlan streaming = StreamingPlan(segments, 2);
  streaming.resident_records[first] = segments[first].num_records;
  rig.Follow(streaming);
  ASSERT_TRUE(Ok(rig.Sweep(true)));
  EXPECT_FALSE(found(first));
  EXPECT_FALSE(found(rig.plan.head));
}

TEST(WeightStoreTest, AFailedReadOfWhatWasDroppedMayBeRepeated) {
  for (const Fault fault : {Fault::kIoError, Fault::kShort, Fault::kEmpty}) {
    for (uint64_t n = 0; n < 8; ++n) {
      SCOPED_TRACE(n);
      std::mt19937_64 random(n);
      Rig rig(SharedTestModel(), RandomPlan(SharedSegments(), random));
      ASSERT_TRUE(Ok(rig.Load()));
      rig.Follow(RandomPlanAfter(rig.plan, random), {{n, fault}});
      const Status failed = rig.Sweep(true);
      if (failed.ok()) continue;  // It was a read ahead.
      EXPECT_EQ(failed.code(), StatusCode::kUnavailable) << failed.message();
      for (int sweep = 0; sweep < 2; ++sweep) {
        ASSERT_TRUE(Ok(rig.Sweep(true)));
      }
    }
  }
}

TEST(WeightStoreTest, FindsEveryHeadRecordWhereverItIs) {
  const Segment& head = SharedSegments()[kTestHead];
  ASSERT_EQ(head.unit_records(), 40u);
  for (const uint64_t resident : {0, 40, 80, 100}) {
    SCOPED_TRACE(resident);
    ResidencyPlan plan = StreamingPlan(SharedSegments(), 2);
    plan.resident_records[kTestHead] = resident;
    Rig rig(SharedTestModel(), plan);
    ASSERT_TRUE(Ok(rig.Load()));
    std::vector<uint64_t> rows(head.num_records);
    std::iota(rows.begin(), rows.end(), 0);
    const size_t before = rig.reader->asked().size();
    for (const uint64_t row : rows) ASSERT_TRUE(Ok(rig.CompareHead(row)));
    // In order, every block is read once.
    EXPECT_EQ(rig.reader->asked().size() - before,
              CeilDiv(head.num_records - resident, 40));
    std::mt19937_64 random(13);
    std::ranges::shuffle(rows, random);
    for (const uint64_t row : rows) ASSERT_TRUE(Ok(rig.CompareHead(row)));
  }
}

TEST(WeightStoreTest, LooksUpHeadRecordsInTheMiddleOfASweep) {
  const ResidencyPlan plan = StreamingPlan(SharedSegments(), 3);
  Rig rig(SharedTestModel(), plan, {}, CompletionOrder::kReversed);
  ASSERT_TRUE(Ok(rig.Load()));
  std::mt19937_64 random(14);
  for (int sweep = 0; sweep < 4; ++sweep) {
    ASSERT_TRUE(Ok(rig.store->BeginSweep(sweep % 2 == 0)));
    std::vector<uint32_t> steps = plan.sweep;
    if (sweep % 2 == 0) steps.push_back(plan.head);
    for (const uint32_t index : steps) {
      const Segment& segment = SharedSegments()[index];
      for (uint64_t record = 0; record < segment.num_records;) {
        ASSERT_TRUE(Ok(rig.CompareHead(random() % 100)));
        const auto run = rig.store->Next(index, record);
        ASSERT_TRUE(run) << run.error().message();
        ASSERT_TRUE(
            Ok(rig.Compare(index, record, run->num_records, run->data)));
        record += run->num_records;
      }
    }
  }
}

TEST(WeightStoreTest, ResidentRecordsAreWhereTheySayTheyAre) {
  std::vector<uint64_t> all;
  for (const Segment& segment : SharedSegments()) {
    all.push_back(segment.num_records);
  }
  ResidencyPlan plan = MakePlan(SharedSegments(), all, all, 0);
  plan.sweep.clear();
  Rig rig(SharedTestModel(), plan);
  uint64_t seen = 0;
  uint64_t last_total = 0;
  ASSERT_TRUE(
      Ok(rig.store->Load(CancelToken(), [&](uint64_t done, uint64_t total) {
        EXPECT_GT(done, seen);
        seen = done;
        last_total = total;
      })));
  EXPECT_EQ(seen, last_total);
  EXPECT_EQ(seen, plan.ResidentBytes(SharedSegments()));
  for (uint32_t i = 0; i < SharedSegments().size(); ++i) {
    for (uint64_t r = 0; r < SharedSegments()[i].num_records; ++r) {
      ASSERT_TRUE(Ok(rig.Compare(i, r, 1, rig.store->ResidentRecord(i, r))));
    }
  }
  // Sweeps of nothing.
  for (int sweep = 0; sweep < 3; ++sweep) {
    EXPECT_TRUE(Ok(rig.Sweep(sweep == 1)));
  }
  EXPECT_EQ(rig.store->stats().num_reads, 0u);
}

TEST(WeightStoreTest, ASweepInsideASweepIsRefusedAndTheNextWorks) {
  for (const bool with_head : {false, true}) {
    Rig rig(SharedTestModel(), StreamingPlan(SharedSegments(), 3));
    ASSERT_TRUE(Ok(rig.Load()));
    EXPECT_TRUE(Ok(rig.Sweep(with_head, /*max_runs=*/5)));
    EXPECT_TRUE(Fails(rig.store->BeginSweep(with_head), StatusCode::kInternal,
                      {"sweep"}));
    EXPECT_TRUE(Ok(rig.Sweep(with_head)));
    EXPECT_TRUE(Ok(rig.Sweep(!with_head)));
  }
}

TEST(WeightStoreTest, ASweepWithoutItsHeadIsNotComplete) {
  Rig rig(SharedTestModel(), StreamingPlan(SharedSegments(), 3));
  ASSERT_TRUE(Ok(rig.Load()));
  const uint64_t runs =
      SweepReads(SharedSegments(), rig.plan, /*with_head=*/false).size();
  EXPECT_TRUE(Ok(rig.Sweep(true, runs)));
  EXPECT_TRUE(
      Fails(rig.store->BeginSweep(false), StatusCode::kInternal, {"sweep"}));
  EXPECT_TRUE(Ok(rig.Sweep(true)));
}

TEST(WeightStoreTest, RecordsOutOfTurnAreRefusedAndTheNextSweepWorks) {
  Rig rig(SharedTestModel(), StreamingPlan(SharedSegments(), 3));
  WeightStore& store = *rig.store;
  ASSERT_TRUE(Ok(rig.Load()));
  const std::pair<uint32_t, uint64_t> cases[] = {
      {3, 0},  // A later segment.
      {1, 1},  // Past the end of the right one.
      {1, UINT64_MAX},
      {kTestHead, 0},  // The head, too early.
  };
  for (const auto& [segment, record] : cases) {
    SCOPED_TRACE(StatusMessage::Join(segment, " ", record));
    ASSERT_TRUE(Ok(store.BeginSweep(true)));
    const auto run = store.Next(segment, record);
    ASSERT_FALSE(run);
    EXPECT_TRUE(Fails(run.error(), StatusCode::kInternal,
                      {"memory.felm", SharedSegments()[segment].Describe()}));
    // The sweep is over, not only that call.
    EXPECT_FALSE(store.Next(1, 0));
    ASSERT_TRUE(Ok(rig.Sweep(true)));
  }
  // The same record twice, and one behind the sweep's end.
  ASSERT_TRUE(Ok(store.BeginSweep(false)));
  ASSERT_TRUE(store.Next(1, 0));
  EXPECT_FALSE(store.Next(1, 0));
  ASSERT_TRUE(Ok(rig.Sweep(false)));
  EXPECT_FALSE(store.Next(1, 0));
  ASSERT_TRUE(Ok(rig.Sweep(false)));
  EXPECT_FALSE(store.Next(kTestHead, 0));
  ASSERT_TRUE(Ok(rig.Sweep(true)));
  // Before any sweep.
  Rig fresh(SharedTestModel(), StreamingPlan(SharedSegments(), 3));
  ASSERT_TRUE(Ok(fresh.Load()));
  EXPECT_FALSE(fresh.store->Next(1, 0));
  ASSERT_TRUE(Ok(fresh.Sweep(true)));
}

TEST(WeightStoreTest, AbortAnywhereLeavesACorrectNextSweep) {
  std::mt19937_64 random(15);
  for (int round = 0; round < 40; ++round) {
    SCOPED_TRACE(round);
    Rig rig(SharedTestModel(), RandomPlan(SharedSegments(), random), {},
            round % 2 == 0 ? CompletionOrder::kAsTheyCome
                           : CompletionOrder::kReversed);
    ASSERT_TRUE(Ok(rig.Load()));
    for (int sweep = 0; sweep < 6; ++sweep) {
      const bool with_head = random() % 2 == 0;
      ASSERT_TRUE(Ok(rig.Sweep(with_head, random() % 30)));
      rig.store->Abort();
      EXPECT_EQ(rig.reader->num_in_flight(), 0u);
      if (random() % 2 == 0) rig.store->Abort();  // Twice does no harm.
      ASSERT_TRUE(Ok(rig.Sweep(!with_head)));
    }
  }
}

// ---------------------------------------------------------------------------

TEST(WeightStoreFaultTest,
     EveryFailedReadReachesTheCallerAndTheNextSweepWorks) {
  const ResidencyPlan plan = StreamingPlan(SharedSegments(), 3);
  const auto once = SweepReads(SharedSegments(), plan, true);
  std::vector<FaultyReader::Asked> twice = once;
  twice.insert(twice.end(), once.begin(), once.end());
  for (const Fault fault :
       {Fault::kIoError, Fault::kShort, Fault::kEmpty, Fault::kFlipByte}) {
    // A flipped bit is looked for only in what is read for the first time.
    const size_t num_reads =
        fault == Fault::kFlipByte ? once.size() : twice.size();
    for (size_t n = 0; n < num_reads; ++n) {
      SCOPED_TRACE(StatusMessage::Join("fault ", static_cast<int>(fault),
                                       " at read ", n));
      Rig rig(SharedTestModel(), plan, {{n, fault}},
              n % 2 == 0 ? CompletionOrder::kAsTheyCome
                         : CompletionOrder::kReversed);
      ASSERT_TRUE(Ok(rig.Load()));
      const bool in_second = n >= once.size();
      if (in_second) {
        ASSERT_TRUE(Ok(rig.Sweep(true)));
      }
      const auto segment =
          std::ranges::find_if(SharedSegments(), [&](const Segment& s) {
            return twice[n].offset_bytes >= s.offset_bytes &&
                   twice[n].offset_bytes < s.offset_bytes + s.num_bytes();
          });
      ASSERT_NE(segment, SharedSegments().end());
      ASSERT_TRUE(Fails(rig.Sweep(true), StatusCode::kUnavailable,
                        {"memory.felm", segment->Describe(),
                         StatusMessage::Join("byte ", twice[n].offset_bytes)}));
      EXPECT_EQ(rig.reader->num_in_flight(), 0u);
      ASSERT_TRUE(Ok(rig.Sweep(true)));
      ASSERT_TRUE(Ok(rig.Sweep(false)));
    }
  }
}

TEST(WeightStoreFaultTest, LateReadsChangeNothing) {
  const ResidencyPlan plan = StreamingPlan(SharedSegments(), 4);
  const size_t num_reads = SweepReads(SharedSegments(), plan, true).size();
  for (size_t n = 0; n < num_reads; ++n) {
    Rig rig(SharedTestModel(), plan,
            {{n, Fault::kLate}, {n + 2, Fault::kLate}});
    ASSERT_TRUE(Ok(rig.Load()));
    ASSERT_TRUE(Ok(rig.Sweep(true)));
    ASSERT_TRUE(Ok(rig.Sweep(true)));
  }
}

TEST(WeightStoreFaultTest, AFailedLoadMayBeRepeated) {
  std::vector<uint64_t> all;
  for (const Segment& segment : SharedSegments()) {
    all.push_back(segment.num_records);
  }
  const ResidencyPlan plan = MakePlan(SharedSegments(), all, all, 0);
  size_t num_reads = 0;
  {
    Rig rig(SharedTestModel(), plan);
    ASSERT_TRUE(Ok(rig.Load()));
    num_reads = rig.reader->asked().size();
  }
  ASSERT_GT(num_reads, 8u);
  for (const Fault fault :
       {Fault::kIoError, Fault::kShort, Fault::kEmpty, Fault::kFlipByte}) {
    for (size_t n = 0; n < num_reads; ++n) {
      SCOPED_TRACE(StatusMessage::Join("fault ", static_cast<int>(fault),
                                       " at read ", n));
      Rig rig(SharedTestModel(), plan, {{n, fault}},
              CompletionOrder::kReversed);
      ASSERT_TRUE(
          Fails(rig.Load(), StatusCode::kUnavailable, {"memory.felm", "byte"}));
      EXPECT_EQ(rig.reader->num_in_flight(), 0u);
      ASSERT_TRUE(Ok(rig.Load()));
      ASSERT_TRUE(Ok(rig.Sweep(false)));
    }
  }
}

TEST(WeightStoreFaultTest, AFailedLookupEndsTheSweepAndMayBeRepeated) {
  for (const Fault fault :
       {Fault::kIoError, Fault::kShort, Fault::kEmpty, Fault::kFlipByte}) {
    // BeginSweep() reads 0 to 2, the lookup is the next.
    Rig rig(SharedTestModel(), StreamingPlan(SharedSegments(), 3),
            {{3, fault}});
    ASSERT_TRUE(Ok(rig.Load()));
    ASSERT_TRUE(Ok(rig.store->BeginSweep(true)));
    EXPECT_TRUE(Fails(rig.CompareHead(7), StatusCode::kUnavailable,
                      {"memory.felm", "embedding", "byte"}));
    EXPECT_FALSE(rig.store->Next(1, 0));
    EXPECT_TRUE(Ok(rig.CompareHead(7)));
    EXPECT_TRUE(Ok(rig.Sweep(true)));
  }
}

TEST(WeightStoreFaultTest, CancelledLoadLeavesNoReadBehind) {
  std::vector<uint64_t> all;
  for (const Segment& segment : SharedSegments()) {
    all.push_back(segment.num_records);
  }
  Rig rig(SharedTestModel(), MakePlan(SharedSegments(), all, all, 0));
  CancelToken cancel;
  EXPECT_TRUE(Fails(
      rig.store->Load(cancel, [&](uint64_t, uint64_t) { cancel.Cancel(); }),
      StatusCode::kCancelled, {"memory.felm"}));
  EXPECT_EQ(rig.reader->num_in_flight(), 0u);
  cancel.Reset();
  EXPECT_TRUE(Ok(rig.store->Load(cancel, nullptr)));
  EXPECT_TRUE(Ok(rig.Sweep(true)));
}

TEST(WeightStoreFaultTest, DestructorWaitsForReadsThatAreLate) {
  const WeightFile weights = SharedTestModel().Open();
  const auto slow =
      std::make_shared<SlowFile>(weights.file(), std::chrono::milliseconds(3));
  const ResidencyPlan plan = StreamingPlan(SharedSegments(), 5);
  for (int round = 0; round < 5; ++round) {
    auto reader =
        PreadReader::Create(slow, WeightStore::MaxReadsInFlight(plan), 3);
    ASSERT_TRUE(reader);
    MemoryBudget budget(uint64_t{64} << 20);
    {
      auto store = WeightStore::Create(weights, plan, **reader, budget);
      ASSERT_TRUE(store);
      ASSERT_TRUE(Ok((*store)->Load(CancelToken(), nullptr)));
      ASSERT_TRUE(Ok((*store)->BeginSweep(true)));
      if (round % 2 == 1) {
        ASSERT_TRUE((*store)->Next(1, 0));
      }
      EXPECT_GT((*reader)->num_in_flight(), 0u);
    }
    EXPECT_EQ((*reader)->num_in_flight(), 0u);
    EXPECT_EQ(budget.used_bytes(), 0u);
  }
}

// A device that never answers a read: the call ends, and the next one works
// with the other slots, whichever read it was.
TEST(WeightStoreFaultTest, AReadThatIsNeverAnsweredEndsOneCallOnly) {
  const WeightFile weights = SharedTestModel().Open();
  const ResidencyPlan plan = StreamingPlan(SharedSegments(), 3);
  WeightStoreOptions options;
  options.read_timeout = std::chrono::milliseconds(300);
  const auto sweep = [&](WeightStore& store) -> Status {
    FLASHELM_ASSIGN_OR_RETURN(const std::byte* row, store.FindHeadRecord(57));
    EXPECT_EQ(*row,
              SharedTestModel()
                  .segments[kTestHead]
                           [57 * SharedSegments()[kTestHead].stride_bytes]);
    FLASHELM_RETURN_IF_ERROR(store.BeginSweep(false));
    for (const uint32_t index : plan.sweep) {
      const Segment& segment = SharedSegments()[index];
      for (uint64_t record = 0; record < segment.num_records;) {
        FLASHELM_ASSIGN_OR_RETURN(const RecordRun run,
                                  store.Next(index, record));
        const auto& all = SharedTestModel().segments[index];
        EXPECT_TRUE(std::equal(
            run.data, run.data + run.num_records * segment.stride_bytes,
            all.data() + record * segment.stride_bytes));
        record += run.num_records;
      }
    }
    return store.EndSweep();
  };
  const size_t num_reads = SweepReads(SharedSegments(), plan, false).size();
  for (size_t n = 0; n < 2 * num_reads; n += 9) {
    SCOPED_TRACE(n);
    auto inner = PreadReader::Create(weights.shared_file(),
                                     WeightStore::MaxReadsInFlight(plan), 1);
    ASSERT_TRUE(inner);
    FaultyReader reader(**inner, {{n, Fault::kNever}});
    MemoryBudget budget(uint64_t{64} << 20);
    {
      auto created =
          WeightStore::Create(weights, plan, reader, budget, options);
      ASSERT_TRUE(created);
      WeightStore& store = **created;
      ASSERT_TRUE(Ok(store.Load(CancelToken(), nullptr)));
      int num_failed = 0;
      for (int call = 0; call < 4; ++call) {
        const Status status = sweep(store);
        if (status.ok()) continue;
        ++num_failed;
        EXPECT_TRUE(Fails(status, StatusCode::kUnavailable,
                          {"memory.felm", "not answered within 0.3 s"}));
      }
      EXPECT_EQ(num_failed, 1);
      // The answer comes after all, and its slot is used again.
      reader.Release();
      for (int call = 0; call < 2; ++call) ASSERT_TRUE(Ok(sweep(store)));
    }
    EXPECT_EQ(reader.num_in_flight(), 0u);
    EXPECT_EQ(budget.used_bytes(), 0u);
  }
}

// Nor where the token was reset before the store saw it again.
TEST(WeightStoreFaultTest, ACancelledSweepDoesNotWaitForTheDevice) {
  const WeightFile weights = SharedTestModel().Open();
  const ResidencyPlan plan = StreamingPlan(SharedSegments(), 3);
  auto inner = PreadReader::Create(weights.shared_file(),
                                   WeightStore::MaxReadsInFlight(plan), 1);
  ASSERT_TRUE(inner);
  FaultyReader reader(**inner, {{1, Fault::kNever}});
  MemoryBudget budget(uint64_t{64} << 20);
  WeightStoreOptions options;
  options.read_timeout = std::chrono::hours(1);
  auto store = WeightStore::Create(weights, plan, reader, budget, options);
  ASSERT_TRUE(store);
  ASSERT_TRUE(Ok((*store)->Load(CancelToken(), nullptr)));
  ASSERT_TRUE(Ok((*store)->BeginSweep(true)));
  (*store)->Abort(StatusCode::kCancelled);
  EXPECT_EQ(reader.num_in_flight(), 1u);
  reader.Release();
  EXPECT_TRUE(Ok(Sweep(**store, plan)));
}

// Until then the others go on alone, and bring the right bytes.
TEST(WeightStoreFaultTest, ASlotGivenUpIsUsedAgainWhenItsAnswerHasCome) {
  const WeightFile weights = SharedTestModel().Open();
  constexpr uint32_t kNumSlots = 4;
  const ResidencyPlan plan = StreamingPlan(SharedSegments(), kNumSlots);
  const size_t num_reads = SweepReads(SharedSegments(), plan, true).size();
  WeightStoreOptions options;
  options.read_timeout = std::chrono::milliseconds(300);
  // In each slot once, as the first sweep begins, and somewhere inside.
  for (const size_t n : {size_t{0}, size_t{1}, size_t{3}, num_reads / 2}) {
    SCOPED_TRACE(n);
    auto inner = PreadReader::Create(weights.shared_file(),
                                     WeightStore::MaxReadsInFlight(plan), 1);
    ASSERT_TRUE(inner);
    FaultyReader reader(**inner, {{n, Fault::kNever}});
    MemoryBudget budget(uint64_t{64} << 20);
    auto created = WeightStore::Create(weights, plan, reader, budget, options);
    ASSERT_TRUE(created);
    WeightStore& store = **created;
    ASSERT_TRUE(Ok(store.Load(CancelToken(), nullptr)));
    const auto sweep = [&](std::set<const std::byte*>& chunks) {
      return Sweep(store, plan, &chunks);
    };
    std::set<const std::byte*> before;
    ASSERT_TRUE(Fails(sweep(before), StatusCode::kUnavailable,
                      {"not answered within 0.3 s"}));
    std::set<const std::byte*> without;
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(Ok(sweep(without)));
    EXPECT_EQ(without.size(), kNumSlots - 1);
    reader.Release();
    std::set<const std::byte*> with;
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(Ok(sweep(with)));
    EXPECT_EQ(with.size(), kNumSlots);
    EXPECT_TRUE(std::ranges::includes(with, without));
  }
}

TEST(WeightStoreFaultTest, MemoryOfReadsThatNeverEndIsNotGivenBack) {
  const WeightFile weights = SharedTestModel().Open();
  const ResidencyPlan plan = StreamingPlan(SharedSegments(), 3);
  auto inner = PreadReader::Create(weights.shared_file(),
                                   WeightStore::MaxReadsInFlight(plan), 1);
  ASSERT_TRUE(inner);
  FaultyReader reader(**inner, {{1, Fault::kNever}});
  MemoryBudget budget(uint64_t{64} << 20);
  WeightStoreOptions options;
  options.read_timeout = std::chrono::milliseconds(10);
  {
    auto store = WeightStore::Create(weights, plan, reader, budget, options);
    ASSERT_TRUE(store);
    ASSERT_TRUE(Ok((*store)->Load(CancelToken(), nullptr)));
    ASSERT_TRUE(Ok((*store)->BeginSweep(true)));
  }
  // What no read goes to is, and the rest is charged to nobody.
  EXPECT_EQ(reader.adopted_bytes(), plan.RingBytes());
  EXPECT_EQ(budget.used_bytes(), 0u);
  reader.Release();
}

// Answers what it has held back as soon as it is asked at the end.
class LateAtTheEnd : public FaultyReader {
 public:
  using FaultyReader::FaultyReader;
  std::optional<ReadCompletion> Wait(
      std::chrono::nanoseconds timeout) override {
    if (is_end) {
      longest_wait = std::max(longest_wait, timeout);
      Release();
    }
    return FaultyReader::Wait(timeout);
  }

  bool is_end = false;
  std::chrono::nanoseconds longest_wait{0};
};

TEST(WeightStoreFaultTest, TheEndWaitsForAnAnswerButNotAsLongAsARead) {
  const WeightFile weights = SharedTestModel().Open();
  const ResidencyPlan plan = StreamingPlan(SharedSegments(), 3);
  for (const std::chrono::seconds timeout :
       {std::chrono::seconds(3600), std::chrono::seconds(1)}) {
    auto inner = PreadReader::Create(weights.shared_file(),
                                     WeightStore::MaxReadsInFlight(plan), 1);
    ASSERT_TRUE(inner);
    LateAtTheEnd reader(**inner, {{1, Fault::kNever}});
    MemoryBudget budget(uint64_t{64} << 20);
    WeightStoreOptions options;
    options.read_timeout = timeout;
    {
      auto store = WeightStore::Create(weights, plan, reader, budget, options);
      ASSERT_TRUE(store);
      ASSERT_TRUE(Ok((*store)->Load(CancelToken(), nullptr)));
      ASSERT_TRUE(Ok((*store)->BeginSweep(true)));
      reader.is_end = true;
    }
    EXPECT_GT(reader.longest_wait.count(), 0);
    EXPECT_LE(reader.longest_wait, std::min(timeout, std::chrono::seconds(2)));
    EXPECT_EQ(reader.num_in_flight(), 0u);
    EXPECT_EQ(budget.used_bytes(), 0u);
  }
}

TEST(WeightStoreMappedTest, GivesTheSameRecordsAndFindsDamage) {
  const TempDirectory directory;
  const std::string path = directory.File("model.felm");
  std::vector<std::byte> file = SharedTestModel().file;
  const ResidencyPlan plan = StreamingPlan(SharedSegments(), 3);
  const auto sweep = [&](WeightStore& store) -> Status {
    FLASHELM_RETURN_IF_ERROR(store.Load(CancelToken(), nullptr));
    FLASHELM_RETURN_IF_ERROR(Sweep(store, plan));
    FLASHELM_ASSIGN_OR_RETURN(const std::byte* row, store.FindHeadRecord(99));
    EXPECT_EQ(*row,
              SharedTestModel()
                  .segments[kTestHead]
                           [99 * SharedSegments()[kTestHead].stride_bytes]);
    return OkStatus();
  };
  for (const bool is_damaged : {false, true}) {
    if (is_damaged) {
      file[SharedSegments()[8].offset_bytes] ^= std::byte{1};
    }
    WriteAllBytes(path, file);
    const auto weights = WeightFile::Open(path, CacheMode::kBuffered);
    ASSERT_TRUE(weights);
    MemoryBudget budget(uint64_t{1} << 20);
    const auto store = WeightStore::CreateMapped(*weights, plan, budget);
    ASSERT_TRUE(store) << store.error().message();
    if (is_damaged) {
      EXPECT_TRUE(Fails(sweep(**store), StatusCode::kUnavailable,
                        {path, SharedSegments()[8].Describe()}));
    } else {
      EXPECT_TRUE(Ok(sweep(**store)));
      EXPECT_TRUE(Ok(sweep(**store)));
    }
  }
  // Nothing to map.
  const WeightFile weights = SharedTestModel().Open();
  MemoryBudget budget(uint64_t{1} << 20);
  const auto store = WeightStore::CreateMapped(weights, plan, budget);
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code(), StatusCode::kUnimplemented);
}

TEST(WeightStoreTest, ATraceAccountsForEveryByteAndEveryStep) {
  const WeightFile weights = SharedTestModel().Open();
  ResidencyPlan plan = StreamingPlan(SharedSegments(), 3);
  auto reader = PreadReader::Create(weights.shared_file(),
                                    WeightStore::MaxReadsInFlight(plan), 1);
  ASSERT_TRUE(reader);
  MemoryBudget budget(uint64_t{64} << 20);
  SweepTrace trace(plan.NumSteps(), /*max_sweeps=*/2);
  WeightStoreOptions options;
  options.trace = &trace;
  auto store = WeightStore::Create(weights, plan, **reader, budget, options);
  ASSERT_TRUE(store);
  ASSERT_TRUE(Ok((*store)->Load(CancelToken(), nullptr)));
  // One more than there is room for.
  for (int sweep = 0; sweep < 3; ++sweep) {
    ASSERT_TRUE(Ok((*store)->BeginSweep(true)));
    std::vector<uint32_t> steps = plan.sweep;
    steps.push_back(plan.head);
    for (const uint32_t index : steps) {
      for (uint64_t record = 0; record < SharedSegments()[index].num_records;) {
        const auto run = (*store)->Next(index, record);
        ASSERT_TRUE(run);
        record += run->num_records;
      }
    }
    ASSERT_TRUE(Ok((*store)->EndSweep()));
  }
  EXPECT_EQ(trace.num_sweeps(), 3u);
  for (size_t sweep = 0; sweep < 2; ++sweep) {
    auto last_end = SweepTrace::Time::min();
    for (size_t i = 0; i < plan.NumSteps(); ++i) {
      const SweepTrace::Step& step = trace.steps()[sweep * plan.NumSteps() + i];
      const uint32_t index = i < plan.sweep.size() ? plan.sweep[i] : plan.head;
      const Segment& segment = SharedSegments()[index];
      EXPECT_EQ(step.read_bytes, PageBytes(segment, segment.num_records));
      EXPECT_LE(step.read_begin, step.read_end);
      EXPECT_LE(step.read_begin, step.compute_end);
      EXPECT_GE(step.compute_begin, last_end) << "steps do not overlap";
      EXPECT_GT(step.compute_end, step.compute_begin);
      EXPECT_LE(step.wait, step.compute_end - step.compute_begin);
      last_end = step.compute_end;
    }
  }
}

TEST(WeightStoreFaultTest, AFileCutOffWhileOpenIsNamed) {
  Rig rig(SharedTestModel(), StreamingPlan(SharedSegments(), 2));
  ASSERT_TRUE(Ok(rig.Load()));
  ASSERT_TRUE(Ok(rig.Sweep(true)));
  rig.store->Abort();  // No read is in flight while the file changes.
  rig.bytes->resize(SharedSegments()[5].offset_bytes);
  EXPECT_TRUE(Fails(rig.Sweep(true), StatusCode::kUnavailable,
                    {"memory.felm", "layer 1 norms", "shorter"}));
}

// ---------------------------------------------------------------------------

struct Damage {
  uint32_t segment;
  uint64_t record;  // That is damaged.
  uint64_t block;   // The first record of its checksum.
  const char* where;
};
// The first, a middle and the last byte of a segment's kinds.
constexpr Damage kDamages[] = {
    {0, 0, 0, "row 0"},       {0, 57, 40, "row 40"},
    {0, 99, 80, "row 80"},    {1, 0, 0, "row 0"},
    {2, 17, 16, "row 16"},    {4, 0, 0, "neuron 0"},
    {4, 13, 13, "neuron 13"}, {4, 20, 20, "neuron 20"},
    {8, 29, 29, "neuron 29"}, {9, 0, 0, "row 0"},
};

TEST(WeightStoreChecksumTest, DamageIsFoundWhenFirstReadWhereverItGoes) {
  for (const Damage& damage : kDamages) {
    SCOPED_TRACE(StatusMessage::Join("segment ", damage.segment, " record ",
                                     damage.record));
    const Segment& segment = SharedSegments()[damage.segment];
    std::vector<std::byte> file = SharedTestModel().file;
    const uint64_t at =
        segment.offset_bytes + (damage.record + 1) * segment.stride_bytes - 1;
    file[at] ^= std::byte{0x10};
    const std::string byte = StatusMessage::Join(
        "byte ", segment.offset_bytes + damage.block * segment.stride_bytes,
        " ");
    const std::initializer_list<std::string> named = {
        "memory.felm", segment.Describe(), damage.where, byte};

    // Streamed.
    Rig streamed(SharedTestModel(), ShareBytes(file),
                 StreamingPlan(SharedSegments(), 3));
    ASSERT_TRUE(Ok(streamed.Load()));
    EXPECT_TRUE(Fails(streamed.Sweep(true), StatusCode::kUnavailable, named));
    // And again, as long as it was not right once.
    EXPECT_TRUE(Fails(streamed.Sweep(true), StatusCode::kUnavailable, named));
    // A device that gets over it is believed.
    streamed.store->Abort();
    (*streamed.bytes)[at] ^= std::byte{0x10};
    EXPECT_TRUE(Ok(streamed.Sweep(true)));

    // Resident.
    ResidencyPlan plan = StreamingPlan(SharedSegments(), 3);
    plan.resident_records[damage.segment] = segment.num_records;
    Rig resident(SharedTestModel(), ShareBytes(file), plan);
    EXPECT_TRUE(Fails(resident.Load(), StatusCode::kUnavailable, named));

    // Looked up.
    if (damage.segment == kTestHead) {
      Rig looked_up(SharedTestModel(), ShareBytes(file),
                    StreamingPlan(SharedSegments(), 3));
      ASSERT_TRUE(Ok(looked_up.Load()));
      EXPECT_TRUE(Fails(looked_up.CompareHead(damage.record),
                        StatusCode::kUnavailable, named));
      const uint64_t elsewhere = damage.block == 40 ? 0 : 40;
      EXPECT_TRUE(Ok(looked_up.CompareHead(elsewhere)));
      EXPECT_TRUE(Fails(looked_up.CompareHead(damage.record),
                        StatusCode::kUnavailable, named));
    }
  }
}

TEST(WeightStoreChecksumTest, ADamagedTableIsRefusedBeforeAnythingIsRead) {
  std::vector<std::byte> file = SharedTestModel().file;
  const WeightFile weights = SharedTestModel().Open();
  file[weights.header().sections[kChecksums].offset_bytes + 5] ^= std::byte{1};
  const WeightFile damaged = TestModel::Open(ShareBytes(file));
  const ResidencyPlan plan = StreamingPlan(SharedSegments(), 2);
  auto reader = PreadReader::Create(damaged.shared_file(),
                                    WeightStore::MaxReadsInFlight(plan), 1);
  ASSERT_TRUE(reader);
  MemoryBudget budget(uint64_t{64} << 20);
  const auto store = WeightStore::Create(damaged, plan, **reader, budget);
  ASSERT_FALSE(store);
  EXPECT_TRUE(Fails(store.error(), StatusCode::kDataLoss,
                    {"memory.felm", "checksums"}));
  EXPECT_EQ(budget.used_bytes(), 0u);
}

// ---------------------------------------------------------------------------

TEST(WeightStoreMemoryTest, TakesWhatThePlanSaysAndNotAPageLess) {
  std::mt19937_64 random(16);
  const WeightFile weights = SharedTestModel().Open();
  for (int round = 0; round < 50; ++round) {
    const ResidencyPlan plan = RandomPlan(SharedSegments(), random);
    auto reader = PreadReader::Create(weights.shared_file(),
                                      WeightStore::MaxReadsInFlight(plan), 1);
    ASSERT_TRUE(reader);
    const uint64_t planned = plan.ResidentBytes(SharedSegments()) +
                             plan.RingBytes() +
                             WeightStoreOverheadBytes(weights, plan);
    {
      MemoryBudget budget(planned);
      const auto store = WeightStore::Create(weights, plan, **reader, budget);
      ASSERT_TRUE(store) << store.error().message();
      EXPECT_EQ(budget.used_bytes(), planned);
    }
    MemoryBudget less(planned - kIoAlignment);
    const auto store = WeightStore::Create(weights, plan, **reader, less);
    ASSERT_FALSE(store);
    EXPECT_EQ(store.error().code(), StatusCode::kResourceExhausted);
    EXPECT_EQ(less.used_bytes(), 0u);
  }
}

TEST(WeightStoreMemoryTest, SweepsAndLookupsAllocateNothing) {
  const WeightFile weights = SharedTestModel().Open();
  ResidencyPlan plan = StreamingPlan(SharedSegments(), 3);
  plan.resident_records[4] = 8;
  // Bare: the wrapper of the other tests keeps lists.
  auto reader = PreadReader::Create(weights.shared_file(),
                                    WeightStore::MaxReadsInFlight(plan), 2);
  ASSERT_TRUE(reader);
  MemoryBudget budget(uint64_t{64} << 20);
  auto created = WeightStore::Create(weights, plan, **reader, budget);
  ASSERT_TRUE(created);
  WeightStore& store = **created;
  ASSERT_TRUE(Ok(store.Load(CancelToken(), nullptr)));
  const auto sweep = [&](bool with_head) {
    if (!store.BeginSweep(with_head).ok()) return false;
    if (!store.FindHeadRecord(with_head ? 90 : 3)) return false;
    for (size_t step = 0; step < plan.sweep.size() + (with_head ? 1 : 0);
         ++step) {
      const uint32_t index =
          step < plan.sweep.size() ? plan.sweep[step] : plan.head;
      for (uint64_t record = 0; record < SharedSegments()[index].num_records;) {
        const auto run = store.Next(index, record);
        if (!run) return false;
        record += run->num_records;
      }
    }
    return true;
  };
  ASSERT_TRUE(sweep(true));
  const AllocationCounter counter;
  bool all = true;
  for (int i = 0; i < 20; ++i) all = all && sweep(i % 2 == 0);
  const uint64_t num_allocations = counter.num_allocations();
  EXPECT_TRUE(all);
  EXPECT_EQ(num_allocations, 0u);
}

// ---------------------------------------------------------------------------

TEST(WeightStoreTest, RefusesPlansAgainstTheRules) {
  const WeightFile weights = SharedTestModel().Open();
  const ResidencyPlan good = StreamingPlan(SharedSegments(), 6);
  auto reader = PreadReader::Create(weights.shared_file(),
                                    WeightStore::MaxReadsInFlight(good), 1);
  ASSERT_TRUE(reader);
  MemoryBudget budget(uint64_t{64} << 20);
  EXPECT_TRUE(WeightStore::Create(weights, good, **reader, budget));
  ResidencyPlan no_chunks = good;
  no_chunks.chunk_records[4] = 0;
  ResidencyPlan too_deep = good;
  too_deep.num_slots = 9;  // And eight for what may have been dropped.
  for (const auto& [plan, part] : {std::pair(no_chunks, "chunks of 0"),
                                   std::pair(too_deep, "for 18 reads")}) {
    const auto store = WeightStore::Create(weights, plan, **reader, budget);
    ASSERT_FALSE(store);
    EXPECT_TRUE(Fails(store.error(), StatusCode::kInvalidArgument,
                      {"memory.felm", part}));
    EXPECT_EQ(budget.used_bytes(), 0u);
  }
}

}  // namespace
}  // namespace flashelm
