#include "storage/bundle_store.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "storage/open_reader.h"
#include "storage/pread_reader.h"
#include "storage/weight_store.h"
#include "tests/core/allocation_counter.h"
#include "tests/storage/bundle_store_rig.h"
#include "tests/storage/faulty_reader.h"
#include "tests/temp_directory.h"

namespace flashelm {
namespace {

constexpr uint32_t kNumRecords[] = {200, 331, 75};

Ids RandomIds(uint32_t num_records, std::mt19937_64& random) {
  const uint64_t one_of = 1 + random() % 12;
  Ids ids;
  for (uint32_t id = 0; id < num_records; ++id) {
    if (random() % one_of == 0) ids.push_back(id);
  }
  return ids;
}

// ---------------------------------------------------------------------------

TEST(BundleStoreTest, RandomSetsGiveRightBytesAndCountsThatAddUp) {
  std::mt19937_64 random(51);
  for (int round = 0; round < 120; ++round) {
    SCOPED_TRACE(round);
    BundleStoreOptions options;
    for (const uint32_t num_records : kNumRecords) {
      options.cache_slots.push_back(random() % (num_records + 10));
    }
    if (random() % 2 == 0) {
      options.window_tokens = static_cast<uint32_t>(random() % 4);
    }
    options.max_read_bytes = (2 + random() % 20) * kPage;
    options.staging_bytes = options.max_read_bytes + random() % 40 * kPage;
    options.cost = {static_cast<double>(random() % 20000), 1.0};
    if (random() % 2 == 0) {
      options.cost.sequential_bytes_per_ns = 2.0;
      options.max_dense_read_bytes = options.staging_bytes;
    }
    Rig rig(options, {},
            random() % 2 == 0 ? CompletionOrder::kAsTheyCome
                              : CompletionOrder::kReversed,
            1 + static_cast<uint32_t>(random() % 20),
            1 + static_cast<uint32_t>(random() % 3));
    uint64_t num_wanted = 0;
    for (int token = 0; token < 12; ++token) {
      for (uint32_t layer = 0; layer < kLayers.size(); ++layer) {
        const Ids ids = RandomIds(kNumRecords[layer], random);
        num_wanted += ids.size();
        ASSERT_TRUE(Ok(rig.Token(layer, ids)));
      }
    }
    const BundleStats stats = rig.store->stats().bundles;
    uint64_t asked_bytes = 0;
    for (const auto& read : rig.reader->asked()) asked_bytes += read.num_bytes;
    EXPECT_EQ(stats.num_tokens, 36u);
    EXPECT_EQ(stats.num_wanted, num_wanted);
    EXPECT_EQ(stats.num_hits + stats.num_misses, num_wanted);
    EXPECT_EQ(stats.num_reads, rig.reader->asked().size());
    EXPECT_LE(stats.num_reads, stats.num_misses);
    EXPECT_EQ(stats.read_bytes, asked_bytes);
    EXPECT_LE(stats.fresh_bytes, stats.read_bytes);
    uint64_t fresh_bytes = 0;
    for (uint32_t layer = 0; layer < kLayers.size(); ++layer) {
      const BundleStats one = rig.store->layer_stats(layer);
      const uint64_t stride = rig.file.segments()[kLayers[layer]].stride_bytes;
      EXPECT_EQ(one.num_tokens, 12u);
      EXPECT_EQ(one.fresh_bytes, one.num_misses * stride);
      fresh_bytes += one.fresh_bytes;
    }
    EXPECT_EQ(stats.fresh_bytes, fresh_bytes);
  }
}

TEST(BundleStoreTest, ReadsAModelFromTheDiskWithEveryReader) {
  const test::TempDirectory directory;
  const std::string path = directory.File("model.felm");
  WriteAllBytes(path, BundleModel().file);
  std::mt19937_64 random(52);
  for (const CacheMode mode : {CacheMode::kBuffered, CacheMode::kDirect}) {
    for (const IoBackend backend : {IoBackend::kAuto, IoBackend::kPread}) {
      const auto file = WeightFile::Open(path, mode);
      ASSERT_TRUE(file) << file.error().message();
      ReaderOptions reader_options;
      reader_options.backend = backend;
      reader_options.depth = 16;
      reader_options.queue_depth = 16;
      reader_options.num_threads = 16;
      auto reader = OpenReader(file->shared_file(), reader_options);
      ASSERT_TRUE(reader) << reader.error().message();
      SCOPED_TRACE((*reader)->name());
      MemoryBudget budget(uint64_t{64} << 20);
      auto verifier = RecordVerifier::Create(*file, budget);
      ASSERT_TRUE(verifier);
      BundleStoreOptions options = DefaultOptions(60);
      options.staging_bytes = 24 * kPage;
      auto store = BundleStore::Create(*file, kLayers, options, **reader,
                                       *verifier, budget);
      ASSERT_TRUE(store) << store.error().message();
      for (int token = 0; token < 20; ++token) {
        for (uint32_t layer = 0; layer < kLayers.size(); ++layer) {
          const Ids ids = RandomIds(kNumRecords[layer], random);
          ASSERT_TRUE(Ok((*store)->Fetch(layer, ids)));
          ASSERT_TRUE(Ok(TakeAll(**store, layer, ids, *file)));
        }
      }
      EXPECT_GT((*store)->stats().io_busy_ns, 0u);
    }
  }
}

TEST(BundleStoreTest, ATokenLikeTheOneBeforeReadsNothing) {
  Rig rig(DefaultOptions(40));
  const Ids ids = Sequence(0, 200, 5);
  ASSERT_TRUE(Ok(rig.Token(0, ids)));
  const size_t num_reads = rig.reader->asked().size();
  EXPECT_GT(num_reads, 0u);
  for (int token = 0; token < 3; ++token) ASSERT_TRUE(Ok(rig.Token(0, ids)));
  EXPECT_EQ(rig.reader->asked().size(), num_reads);
  EXPECT_EQ(rig.store->layer_stats(0).num_hits, 3 * ids.size());
  // One slot less, and one bundle finds no room.
  Rig less(DefaultOptions(39));
  ASSERT_TRUE(Ok(less.Token(0, ids)));
  ASSERT_TRUE(Ok(less.Token(0, ids)));
  EXPECT_EQ(less.store->layer_stats(0).num_hits, 39u);
  // Another layer's bundles are others.
  ASSERT_TRUE(Ok(rig.Token(1, ids)));
  EXPECT_EQ(rig.store->layer_stats(1).num_hits, 0u);
}

TEST(BundleStoreTest, WhatWasUsedLongestAgoIsReadAgain) {
  Rig rig(DefaultOptions(6));
  const auto misses = [&](const Ids& ids) {
    const uint64_t before = rig.store->layer_stats(2).num_misses;
    EXPECT_TRUE(Ok(rig.Token(2, ids)));
    return rig.store->layer_stats(2).num_misses - before;
  };
  EXPECT_EQ(misses({1, 2, 3}), 3u);
  EXPECT_EQ(misses({11, 12, 13}), 3u);
  EXPECT_EQ(misses({1, 2, 3}), 0u);
  EXPECT_EQ(misses({21, 22}), 2u);  // Two of 11 to 13 leave.
  EXPECT_EQ(misses({1, 2, 3}), 0u);
  EXPECT_EQ(misses({11, 12, 13}), 2u);
  EXPECT_EQ(misses({1, 2, 3}), 0u);
}

TEST(BundleStoreTest, HandsOutCachedBundlesWhileReadsAreInFlight) {
  Rig rig(DefaultOptions(40), {{1, Fault::kNever}});
  ASSERT_TRUE(Ok(rig.Token(2, {5, 6})));
  ASSERT_EQ(rig.reader->asked().size(), 1u);
  ASSERT_TRUE(Ok(rig.store->Fetch(2, Ids{5, 6, 7})));
  const auto cached = rig.store->Next();
  ASSERT_TRUE(cached && *cached);
  ASSERT_EQ((*cached)->size(), 2u);
  EXPECT_EQ((**cached)[0].id, 5u);
  EXPECT_EQ((**cached)[1].id, 6u);
  EXPECT_EQ(rig.reader->num_in_flight(), 1u);
  // The device answers: whatever of it the wrapper has is seen by Wait().
  while (rig.inner->num_in_flight() > 0) {
    rig.reader->Wait(std::chrono::milliseconds(1));
  }
  rig.reader->Release();
  const auto fresh = rig.store->Next();
  ASSERT_TRUE(fresh && *fresh);
  ASSERT_EQ((*fresh)->size(), 1u);
  EXPECT_TRUE(Ok(Compare(2, (**fresh)[0], rig.file)));
  const auto end = rig.store->Next();
  ASSERT_TRUE(end);
  EXPECT_FALSE(*end);
}

TEST(BundleStoreTest, MergesReadsAsTheCostSays) {
  // Records of one and a half pages: 0 and 4 have 4 pages between them.
  const Ids ids = {0, 4, 8, 40};
  BundleStoreOptions options = DefaultOptions(0);
  options.max_read_bytes = 64 * kPage;
  options.cost = {3.0 * kPage, 1.0};
  Rig apart(options);
  ASSERT_TRUE(Ok(apart.Token(2, ids)));
  EXPECT_EQ(apart.reader->asked().size(), 4u);
  options.cost = {4.0 * kPage, 1.0};
  Rig merged(options);
  ASSERT_TRUE(Ok(merged.Token(2, ids)));
  EXPECT_EQ(merged.reader->asked().size(), 2u);
  const BundleStats stats = merged.store->layer_stats(2);
  EXPECT_EQ(stats.num_misses, 4u);
  EXPECT_EQ(stats.num_reads, 2u);
  EXPECT_EQ(stats.read_bytes, (14 + 2) * kPage);
  EXPECT_EQ(stats.fresh_bytes, 4 * 6144u);
}

TEST(BundleStoreTest, ReadsTheSpanOfAFetchWhereThatIsFaster) {
  // In order, the device is four times as fast.
  BundleStoreOptions options = DefaultOptions(0);
  options.cost = {1.0 * kPage, 1.0, 4.0};
  const Ids few = {0, 40};
  const Ids many = Sequence(0, 75, 2);
  Rig never(options);
  ASSERT_TRUE(Ok(never.Token(2, few)));
  ASSERT_TRUE(Ok(never.Token(2, many)));
  EXPECT_EQ(never.store->layer_stats(2).num_dense_fetches, 0u);
  options.max_dense_read_bytes = 32 * kPage;
  Rig rig(options);
  ASSERT_TRUE(Ok(rig.Token(2, few)));
  EXPECT_EQ(rig.store->layer_stats(2).num_dense_fetches, 0u);
  EXPECT_EQ(rig.store->layer_stats(2).num_reads, 2u);
  ASSERT_TRUE(Ok(rig.Token(2, many)));
  const BundleStats stats = rig.store->layer_stats(2);
  EXPECT_EQ(stats.num_dense_fetches, 1u);
  // 75 records are 113 pages.
  EXPECT_EQ(stats.num_reads, 2u + 4u);
  EXPECT_LT(stats.num_reads, never.store->layer_stats(2).num_reads);
  EXPECT_GT(stats.read_bytes, (4 + 105) * kPage);
  EXPECT_EQ(stats.fresh_bytes, (few.size() + many.size()) * 6144u);
  // What the cache has is no reason to read the rest.
  options.cache_slots.assign(kLayers.size(), 75);
  Rig cached(options);
  ASSERT_TRUE(Ok(cached.Token(2, many)));
  ASSERT_TRUE(Ok(cached.Token(2, Sequence(0, 75, 6))));
  EXPECT_EQ(cached.store->stats().bundles.num_dense_fetches, 1u);
  EXPECT_EQ(cached.store->stats().bundles.num_reads, 4u);
}

TEST(BundleStoreTest, MissesThatExceedTheStagingComeInRounds) {
  for (const uint64_t num_slots : {0, 5, 200}) {
    for (const uint32_t depth : {1u, 2u, 16u}) {
      BundleStoreOptions options = DefaultOptions(num_slots);
      options.max_read_bytes = 2 * kPage;
      options.staging_bytes = 5 * kPage;
      Rig rig(options, {}, CompletionOrder::kReversed, depth);
      const Ids all = Sequence(0, 200);
      ASSERT_TRUE(Ok(rig.store->Fetch(0, all)));
      EXPECT_EQ(rig.reader->asked().size(), std::min(depth, 2u));
      ASSERT_TRUE(Ok(TakeAll(*rig.store, 0, all, rig.file)));
      EXPECT_GE(rig.reader->asked().size(), 75u);
    }
  }
}

TEST(BundleStoreTest, AFetchMayBeLeftAtAnyPoint) {
  std::mt19937_64 random(53);
  for (int round = 0; round < 60; ++round) {
    BundleStoreOptions options = DefaultOptions(random() % 100);
    options.staging_bytes = (8 + random() % 20) * kPage;
    Rig rig(options);
    for (int token = 0; token < 8; ++token) {
      const auto left = static_cast<uint32_t>(random() % kLayers.size());
      ASSERT_TRUE(
          Ok(rig.store->Fetch(left, RandomIds(kNumRecords[left], random))));
      for (uint64_t i = random() % 4; i > 0; --i) {
        const auto batch = rig.store->Next();
        ASSERT_TRUE(batch);
        if (!*batch) break;
      }
      const auto layer = static_cast<uint32_t>(random() % kLayers.size());
      ASSERT_TRUE(Ok(rig.Token(layer, RandomIds(kNumRecords[layer], random))));
    }
  }
}

TEST(BundleStoreTest, NothingWantedIsNothingRead) {
  Rig rig(DefaultOptions(10));
  ASSERT_TRUE(Ok(rig.Token(1, {})));
  EXPECT_EQ(rig.reader->asked().size(), 0u);
  // The end stays the end.
  const auto again = rig.store->Next();
  ASSERT_TRUE(again);
  EXPECT_FALSE(*again);
}

TEST(BundleStoreTest, RefusesBadCallsAndGoesOn) {
  Rig rig(DefaultOptions(10));
  EXPECT_TRUE(
      Fails(rig.store->Next().error(), StatusCode::kInternal, {"memory.felm"}));
  for (const Ids& ids : {Ids{200}, Ids{3, 3}, Ids{4, 3}}) {
    EXPECT_TRUE(Fails(rig.store->Fetch(0, ids), StatusCode::kInvalidArgument,
                      {"memory.felm", "ascend"}));
  }
  EXPECT_TRUE(Fails(rig.store->Fetch(3, Ids{1}), StatusCode::kInvalidArgument,
                    {"layer 3"}));
  EXPECT_EQ(rig.reader->asked().size(), 0u);
  // Inside a fetch they change nothing.
  ASSERT_TRUE(Ok(rig.store->Fetch(0, Ids{7, 9})));
  EXPECT_FALSE(rig.store->Add(Ids{9}).ok());
  EXPECT_FALSE(rig.store->Add(Ids{11, 10}).ok());
  EXPECT_FALSE(rig.store->Begin(3).ok());
  EXPECT_TRUE(Ok(TakeAll(*rig.store, 0, {7, 9}, rig.file)));
}

TEST(BundleStoreTest, IdsMayBeAddedAsTheyBecomeKnown) {
  Rig rig(DefaultOptions(10));
  EXPECT_TRUE(Fails(rig.store->Add(Ids{1}), StatusCode::kInternal,
                    {"memory.felm", "none was begun"}));
  for (int token = 0; token < 2; ++token) {
    ASSERT_TRUE(Ok(rig.store->Begin(0)));
    ASSERT_TRUE(Ok(rig.store->Add(Ids{})));
    ASSERT_TRUE(Ok(rig.store->Add(Ids{7, 9})));
    ASSERT_TRUE(Ok(rig.store->Add(Ids{10})));
    ASSERT_TRUE(Ok(rig.store->Add(Ids{})));
    ASSERT_TRUE(Ok(rig.store->Add(Ids{40, 41})));
    EXPECT_TRUE(Ok(TakeAll(*rig.store, 0, {7, 9, 10, 40, 41}, rig.file)));
  }
  const BundleStats stats = rig.store->stats().bundles;
  EXPECT_EQ(stats.num_tokens, 2u);
  EXPECT_EQ(stats.num_wanted, 10u);
  EXPECT_EQ(stats.num_hits, 5u);
  EXPECT_EQ(stats.num_misses, 5u);
}

TEST(BundleStoreTest, SharesWhatWasVerifiedWithAWeightStore) {
  const WeightFile file = BundleModel().Open();
  ResidencyPlan plan;
  for (const Segment& segment : file.segments()) {
    plan.resident_records.push_back(segment.num_records);
    plan.chunk_records.push_back(segment.num_records);
  }
  plan.resident_records[2] = plan.resident_records[3] = 0;
  plan.sweep = {1, 2, 3};
  plan.num_slots = 1;
  plan.slot_bytes = uint64_t{1} << 20;
  auto weight_reader = PreadReader::Create(
      file.shared_file(), WeightStore::MaxReadsInFlight(plan), 1);
  ASSERT_TRUE(weight_reader);
  MemoryBudget budget(uint64_t{64} << 20);
  auto weights = WeightStore::Create(file, plan, **weight_reader, budget);
  ASSERT_TRUE(weights) << weights.error().message();
  ASSERT_TRUE(Ok((*weights)->Load(CancelToken(), nullptr)));

  auto inner = PreadReader::Create(file.shared_file(), 4, 1);
  ASSERT_TRUE(inner);
  FaultyReader reader(**inner, {{0, Fault::kFlipByte}, {1, Fault::kFlipByte}});
  auto store = BundleStore::Create(file, kLayers, DefaultOptions(0), reader,
                                   (*weights)->verifier(), budget);
  ASSERT_TRUE(store) << store.error().message();
  // A resident segment was compared by Load(), so that nobody looks again; the
  // next one was not.
  ASSERT_TRUE(Ok((*store)->Fetch(0, Ids{0})));
  EXPECT_TRUE((*store)->Next());
  ASSERT_TRUE(Ok((*store)->Fetch(1, Ids{0})));
  EXPECT_TRUE(Fails((*store)->Next().error(), StatusCode::kUnavailable,
                    {"layer 1 ffn", "neuron 0"}));
}

// ---------------------------------------------------------------------------

TEST(BundleStoreMemoryTest, TakesWhatItSaysAndNotAPageLess) {
  std::mt19937_64 random(54);
  const WeightFile file = BundleModel().Open();
  auto reader = PreadReader::Create(file.shared_file(), 8, 1);
  ASSERT_TRUE(reader);
  MemoryBudget tables(uint64_t{64} << 20);
  auto verifier = RecordVerifier::Create(file, tables);
  ASSERT_TRUE(verifier);
  for (int round = 0; round < 20; ++round) {
    BundleStoreOptions options = DefaultOptions(0);
    for (uint64_t& num_slots : options.cache_slots) num_slots = random() % 400;
    options.staging_bytes = (8 + random() % 3000) * kPage;
    const uint64_t planned = BundleStore::NumBytes(file, kLayers, options);
    {
      MemoryBudget budget(planned);
      const auto store = BundleStore::Create(file, kLayers, options, **reader,
                                             *verifier, budget);
      ASSERT_TRUE(store) << store.error().message();
      EXPECT_EQ(budget.used_bytes(), planned);
    }
    MemoryBudget less(planned - kPage);
    const auto refused =
        BundleStore::Create(file, kLayers, options, **reader, *verifier, less);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), StatusCode::kResourceExhausted);
    EXPECT_EQ(less.used_bytes(), 0u);
  }
}

TEST(BundleStoreMemoryTest, TokensAllocateNothing) {
  const WeightFile file = BundleModel().Open();
  // Bare: the wrapper of the other tests keeps lists.
  auto reader = PreadReader::Create(file.shared_file(), 8, 2);
  ASSERT_TRUE(reader);
  MemoryBudget budget(uint64_t{64} << 20);
  auto verifier = RecordVerifier::Create(file, budget);
  ASSERT_TRUE(verifier);
  BundleStoreOptions options = DefaultOptions(30);
  options.staging_bytes = 20 * kPage;
  auto created =
      BundleStore::Create(file, kLayers, options, **reader, *verifier, budget);
  ASSERT_TRUE(created);
  BundleStore& store = **created;
  std::vector<Ids> sets;
  for (uint32_t i = 0; i < 10; ++i) sets.push_back(Sequence(i, 75, 2 + i % 4));
  size_t num_bundles = 0;
  const auto tokens = [&] {
    for (uint32_t i = 0; i < 30; ++i) {
      if (!store.Fetch(i % 3, sets[i % 10]).ok()) return false;
      while (true) {
        const auto batch = store.Next();
        if (!batch) return false;
        if (!*batch) break;
        num_bundles += (*batch)->size();
      }
    }
    return true;
  };
  ASSERT_TRUE(tokens());
  const AllocationCounter counter;
  const bool is_ok = tokens();
  const uint64_t num_allocations = counter.num_allocations();
  EXPECT_TRUE(is_ok);
  EXPECT_GT(num_bundles, 0u);
  EXPECT_EQ(num_allocations, 0u);
}

// ---------------------------------------------------------------------------

struct BadOptions {
  const char* name;
  void (*spoil)(BundleStoreOptions& options);
};
const BadOptions kBadOptions[] = {
    {"a cache too few",
     [](BundleStoreOptions& o) { o.cache_slots.pop_back(); }},
    {"half a page", [](BundleStoreOptions& o) { o.staging_bytes += 512; }},
    {"reads of half a page",
     [](BundleStoreOptions& o) { o.max_read_bytes += 512; }},
    {"reads larger than the staging",
     [](BundleStoreOptions& o) { o.staging_bytes = 4 * kPage; }},
    {"records larger than reads",
     [](BundleStoreOptions& o) { o.max_read_bytes = kPage; }},
    {"dense reads larger than the staging",
     [](BundleStoreOptions& o) {
       o.max_dense_read_bytes = o.staging_bytes + kPage;
     }},
    {"dense reads smaller than others",
     [](BundleStoreOptions& o) {
       o.max_dense_read_bytes = o.max_read_bytes - kPage;
     }},
    {"half a page of dense reads",
     [](BundleStoreOptions& o) {
       o.max_dense_read_bytes = o.max_read_bytes + kPage / 2;
     }},
    {"a negative sequential rate",
     [](BundleStoreOptions& o) { o.cost.sequential_bytes_per_ns = -1; }},
    {"a cost below nothing",
     [](BundleStoreOptions& o) { o.cost.request_ns = -1; }},
};

TEST(BundleStoreTest, RefusesOptionsAgainstTheRules) {
  const WeightFile file = BundleModel().Open();
  auto reader = PreadReader::Create(file.shared_file(), 8, 1);
  ASSERT_TRUE(reader);
  MemoryBudget tables(uint64_t{64} << 20);
  auto verifier = RecordVerifier::Create(file, tables);
  ASSERT_TRUE(verifier);
  MemoryBudget budget(uint64_t{64} << 20);
  const auto refused = [&](const Ids& layers,
                           const BundleStoreOptions& options) -> Status {
    const auto store =
        BundleStore::Create(file, layers, options, **reader, *verifier, budget);
    return store ? OkStatus() : store.error();
  };
  EXPECT_TRUE(Ok(refused(kLayers, DefaultOptions(10))));
  for (const BadOptions& bad : kBadOptions) {
    SCOPED_TRACE(bad.name);
    BundleStoreOptions options = DefaultOptions(10);
    bad.spoil(options);
    EXPECT_TRUE(Fails(refused(kLayers, options), StatusCode::kInvalidArgument,
                      {"memory.felm"}));
    EXPECT_EQ(budget.used_bytes(), 0u);
  }
  EXPECT_TRUE(Fails(refused({1, 2, 4}, DefaultOptions(10)),
                    StatusCode::kInvalidArgument, {"segment 4"}));
  // The embedding has one checksum for two records.
  EXPECT_TRUE(Fails(refused({0, 1, 2}, DefaultOptions(10)),
                    StatusCode::kUnimplemented, {"embedding", "checksum"}));
}

}  // namespace
}  // namespace flashelm
