#include "storage/bundle_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <optional>
#include <random>
#include <vector>

#include "core/base/types.h"
#include "tests/core/allocation_counter.h"

namespace flashelm {
namespace {

using Ids = std::vector<uint32_t>;

// A cache of small records, each with its own bytes.
struct CacheRig {
  explicit CacheRig(const BundleCacheOptions& cache_options)
      : options(cache_options) {
    auto created = BundleCache::Create(options, budget);
    EXPECT_TRUE(created) << created.error().message();
    cache.emplace(std::move(*created));
  }

  std::vector<std::byte> Bytes(uint32_t record) const {
    return std::vector<std::byte>(options.record_bytes,
                                  static_cast<std::byte>(record * 37 + 11));
  }

  // Runs a token that inserts all it misses, and returns what it missed.
  Ids Token(const Ids& active) {
    Ids missing(active.size());
    missing.resize(cache->BeginToken(active, missing));
    for (const uint32_t record : missing) {
      cache->Insert(record, Bytes(record).data());
    }
    return missing;
  }

  // What is there, after a look at its bytes.
  Ids Held() const {
    Ids held;
    for (uint32_t record = 0; record < options.num_records; ++record) {
      const std::byte* data = cache->Find(record);
      if (data == nullptr) continue;
      held.push_back(record);
      EXPECT_TRUE(std::ranges::equal(std::span(data, options.record_bytes),
                                     Bytes(record)));
    }
    return held;
  }

  BundleCacheOptions options;
  MemoryBudget budget{uint64_t{1} << 30};
  std::optional<BundleCache> cache;
};

BundleCacheOptions Options(uint64_t num_records, uint64_t num_slots) {
  BundleCacheOptions options;
  options.num_records = num_records;
  options.record_bytes = 100;
  options.num_slots = num_slots;
  return options;
}

TEST(BundleCacheTest, ATokenFindsWhatTheOneBeforeUsed) {
  CacheRig rig(Options(20, 8));
  EXPECT_EQ(rig.Held(), Ids());
  EXPECT_EQ(rig.Token({1, 4, 7}), (Ids{1, 4, 7}));
  EXPECT_EQ(rig.Held(), (Ids{1, 4, 7}));
  EXPECT_EQ(rig.Token({1, 4, 7}), Ids());
  EXPECT_EQ(rig.Token({4, 5}), (Ids{5}));
  EXPECT_EQ(rig.Token({}), Ids());
  const BundleCacheStats& stats = rig.cache->stats();
  EXPECT_EQ(stats.num_tokens, 4u);
  EXPECT_EQ(stats.num_hits, 4u);
  EXPECT_EQ(stats.num_misses, 4u);
  EXPECT_EQ(stats.num_inserted, 4u);
  EXPECT_EQ(stats.num_evicted, 0u);
}

TEST(BundleCacheTest, EvictsTheLeastRecentlyUsedFirst) {
  CacheRig rig(Options(20, 4));
  rig.Token({1, 2});
  rig.Token({3, 4});
  rig.Token({1});
  EXPECT_EQ(rig.Token({5}), (Ids{5}));
  EXPECT_EQ(rig.Held(), (Ids{1, 3, 4, 5}));  // 2 was last used at token 1.
  rig.Token({6, 7});
  EXPECT_EQ(rig.Held(), (Ids{1, 5, 6, 7}));
  EXPECT_EQ(rig.cache->stats().num_evicted, 3u);
}

TEST(BundleCacheTest, NothingOfTheCurrentTokenIsEvicted) {
  CacheRig rig(Options(20, 3));
  rig.Token({9});
  Ids missing(5);
  ASSERT_EQ(rig.cache->BeginToken(Ids{1, 2, 3, 4, 9}, missing), 4u);
  EXPECT_NE(rig.cache->Insert(1, rig.Bytes(1).data()), nullptr);
  EXPECT_NE(rig.cache->Insert(2, rig.Bytes(2).data()), nullptr);
  EXPECT_EQ(rig.cache->Insert(3, rig.Bytes(3).data()), nullptr);
  EXPECT_EQ(rig.cache->Insert(4, rig.Bytes(4).data()), nullptr);
  EXPECT_EQ(rig.Held(), (Ids{1, 2, 9}));
  // Missed again, and now there is room.
  EXPECT_EQ(rig.Token({3, 4}), (Ids{3, 4}));
  EXPECT_EQ(rig.Held().size(), 3u);
  EXPECT_NE(rig.cache->Find(3), nullptr);
}

TEST(BundleCacheTest, RecordsLeaveWithTheWindow) {
  for (const uint32_t window : {0u, 1u, 2u, 5u}) {
    SCOPED_TRACE(window);
    BundleCacheOptions options = Options(20, 20);
    options.window_tokens = window;
    CacheRig rig(options);
    rig.Token({3, 4});
    // Used again, so it stays one token longer.
    EXPECT_EQ(rig.Token({4}), window == 0 ? Ids{4} : Ids());
    for (uint32_t token = 2; token <= window; ++token) {
      rig.Token({});
      EXPECT_NE(rig.cache->Find(3), nullptr) << token;
    }
    rig.Token({});
    EXPECT_EQ(rig.cache->Find(3), nullptr);
    EXPECT_EQ(rig.cache->Find(4) != nullptr, window > 0);
    rig.Token({});
    EXPECT_EQ(rig.Held(), Ids());
    EXPECT_EQ(rig.cache->stats().num_evicted, 0u);
    EXPECT_EQ(rig.Token({3}), (Ids{3}));
  }
}

TEST(BundleCacheTest, WhatWasFoundOftenOutlastsWhatCameOnce) {
  for (const bool has_window : {false, true}) {
    BundleCacheOptions options = Options(50, 4);
    if (has_window) options.window_tokens = 1000;
    CacheRig rig(options);
    // Found twice, so two others go before it does.
    for (int token = 0; token < 3; ++token) rig.Token({7});
    uint32_t other = 10;
    const auto pass = [&] {
      for (int token = 0; token < 4; ++token) rig.Token({other++});
    };
    pass();
    EXPECT_EQ(rig.cache->Find(7) == nullptr, has_window);
    pass();
    EXPECT_EQ(rig.cache->Find(7) == nullptr, has_window);
    pass();
    EXPECT_EQ(rig.cache->Find(7), nullptr);
  }
}

TEST(BundleCacheTest, ChancesHaveAnEnd) {
  CacheRig rig(Options(5, 2));
  for (int token = 0; token < 1000; ++token) rig.Token({0, 1});
  EXPECT_EQ(rig.Token({2}), (Ids{2}));
  EXPECT_NE(rig.cache->Find(2), nullptr);
  EXPECT_EQ(rig.Held().size(), 2u);
}

TEST(BundleCacheTest, WithoutSlotsEverythingIsMissed) {
  CacheRig rig(Options(20, 0));
  for (int token = 0; token < 3; ++token) {
    EXPECT_EQ(rig.Token({1, 2}), (Ids{1, 2}));
    EXPECT_EQ(rig.Held(), Ids());
  }
}

// The same rules, written the plain way.
class PlainCache {
 public:
  PlainCache(uint64_t num_slots, uint64_t window)
      : num_slots_(num_slots), window_(window) {}

  Ids Token(const Ids& active) {
    ++token_;
    earlier_.insert(earlier_.end(), current_.begin(), current_.end());
    current_.clear();
    if (HasWindow()) {
      std::erase_if(earlier_, [&](const Entry& entry) {
        return token_ - entry.last_used > window_;
      });
    }
    Ids missing;
    for (const uint32_t record : active) {
      const auto found = std::ranges::find(earlier_, record, &Entry::record);
      if (found == earlier_.end()) {
        missing.push_back(record);
        continue;
      }
      current_.push_back({record, token_, std::min(found->chances + 1, 7)});
      earlier_.erase(found);
    }
    return missing;
  }
  bool Insert(uint32_t record) {
    if (earlier_.size() + current_.size() == num_slots_) {
      if (earlier_.empty()) return false;
      while (!HasWindow() && earlier_.front().chances > 0) {
        --earlier_.front().chances;
        std::ranges::rotate(earlier_, earlier_.begin() + 1);
      }
      earlier_.erase(earlier_.begin());
    }
    current_.push_back({record, token_, 0});
    return true;
  }
  Ids Held() const {
    Ids held;
    for (const auto* entries : {&earlier_, &current_}) {
      for (const Entry& entry : *entries) held.push_back(entry.record);
    }
    std::ranges::sort(held);
    return held;
  }

 private:
  struct Entry {
    uint32_t record;
    uint64_t last_used;
    int chances;
  };
  bool HasWindow() const { return window_ != BundleCacheOptions::kNoWindow; }

  const uint64_t num_slots_;
  const uint64_t window_;
  std::vector<Entry> earlier_;  // The one that goes next is the first.
  std::vector<Entry> current_;
  uint64_t token_ = 0;
};

TEST(BundleCacheTest, RandomTokensAgreeWithThePlainRules) {
  std::mt19937_64 random(31);
  for (int round = 0; round < 150; ++round) {
    SCOPED_TRACE(round);
    BundleCacheOptions options = Options(1 + random() % 60, 0);
    options.record_bytes = 1 + random() % 200;
    options.num_slots = 1 + random() % options.num_records;
    options.window_tokens = random() % 3 == 0
                                ? BundleCacheOptions::kNoWindow
                                : static_cast<uint32_t>(random() % 6);
    CacheRig rig(options);
    PlainCache plain(options.num_slots, options.window_tokens);
    for (int token = 0; token < 40; ++token) {
      const uint64_t one_of = 1 + random() % 6;
      Ids active;
      for (uint32_t id = 0; id < options.num_records; ++id) {
        if (random() % one_of == 0) active.push_back(id);
      }
      Ids missing(active.size());
      missing.resize(rig.cache->BeginToken(active, missing));
      ASSERT_EQ(missing, plain.Token(active));
      for (const uint32_t record : missing) {
        // Some of the reads fail.
        if (random() % 10 == 0) continue;
        const std::byte* slot =
            rig.cache->Insert(record, rig.Bytes(record).data());
        ASSERT_EQ(slot, rig.cache->Find(record));
        ASSERT_EQ(slot != nullptr, plain.Insert(record));
      }
      ASSERT_EQ(rig.Held(), plain.Held());
    }
  }
}

// The part of what tokens use that is found, when each neuron is used with its
// own probability.
double HitRate(const std::vector<double>& probability, uint64_t num_slots,
               uint32_t window_tokens) {
  BundleCacheOptions options = Options(probability.size(), num_slots);
  options.record_bytes = 8;
  options.window_tokens = window_tokens;
  CacheRig rig(options);
  std::mt19937_64 random(77);
  const auto run = [&](int num_tokens) {
    for (int token = 0; token < num_tokens; ++token) {
      Ids active;
      for (uint32_t id = 0; id < probability.size(); ++id) {
        const double dice = static_cast<double>(random() >> 11) * 0x1p-53;
        if (dice < probability[id]) active.push_back(id);
      }
      rig.Token(active);
    }
  };
  run(100);
  const BundleCacheStats before = rig.cache->stats();
  run(400);
  const BundleCacheStats& after = rig.cache->stats();
  const auto hits = static_cast<double>(after.num_hits - before.num_hits);
  return hits /
         (hits + static_cast<double>(after.num_misses - before.num_misses));
}

TEST(BundleCacheTest, MoreIsUsedThanThereAreSlotsAndAllSlotsHit) {
  // The same neurons over and over, in the order of their ids, which a cache
  // that takes in whatever comes would miss without end.
  const std::vector<double> always(200, 1.0);
  for (const uint64_t num_slots : {1, 20, 100, 199}) {
    EXPECT_DOUBLE_EQ(HitRate(always, num_slots, BundleCacheOptions::kNoWindow),
                     static_cast<double>(num_slots) / 200);
  }
  // Nine of ten, at random: nobody knows which ones will be there.
  const std::vector<double> mostly(200, 0.9);
  for (const uint64_t num_slots : {20, 100, 180}) {
    EXPECT_GT(HitRate(mostly, num_slots, BundleCacheOptions::kNoWindow),
              0.97 * static_cast<double>(num_slots) / 200);
  }
}

TEST(BundleCacheTest, ComesNearerToTheBestFixedChoiceThanRecency) {
  // Few neurons that are used often, many that are not, as in a ReLU FFN.
  std::vector<double> probability;
  for (int id = 0; id < 400; ++id) {
    probability.push_back(0.9 / (1 + 0.05 * (id * 7 % 400)));
  }
  std::vector<double> sorted = probability;
  std::ranges::sort(sorted, std::greater<>());
  const double total = std::accumulate(sorted.begin(), sorted.end(), 0.0);
  for (const uint32_t num_slots : {100u, 200u}) {
    SCOPED_TRACE(num_slots);
    const double best =
        std::accumulate(sorted.begin(), sorted.begin() + num_slots, 0.0) /
        total;
    const double with_chances =
        HitRate(probability, num_slots, BundleCacheOptions::kNoWindow);
    // A window that never ends is plain recency.
    const double recency = HitRate(probability, num_slots, 1u << 30);
    EXPECT_GT(best, recency);
    EXPECT_GT(with_chances, recency + 0.25 * (best - recency));
  }
}

TEST(BundleCacheTest, TakesWhatItSaysAndNotAPageLess) {
  for (const uint64_t num_slots : {0, 1, 7, 1000, 5000}) {
    BundleCacheOptions options = Options(1000, num_slots);
    options.record_bytes = 3000;
    const uint64_t planned = BundleCache::NumBytes(options);
    MemoryBudget budget(planned);
    const auto cache = BundleCache::Create(options, budget);
    ASSERT_TRUE(cache) << cache.error().message();
    EXPECT_EQ(budget.used_bytes(), planned);
    EXPECT_EQ(cache->num_slots(), std::min<uint64_t>(num_slots, 1000));
    MemoryBudget less(planned - kIoAlignment);
    const auto refused = BundleCache::Create(options, less);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), StatusCode::kResourceExhausted);
    EXPECT_EQ(less.used_bytes(), 0u);
  }
}

TEST(BundleCacheTest, RefusesOptionsAgainstTheRules) {
  BundleCacheOptions many = Options(uint64_t{UINT32_MAX}, 2);
  MemoryBudget budget(uint64_t{1} << 40);
  const auto cache = BundleCache::Create(many, budget);
  ASSERT_FALSE(cache);
  EXPECT_EQ(cache.error().code(), StatusCode::kInvalidArgument);
}

TEST(BundleCacheTest, TokensAllocateNothing) {
  CacheRig rig(Options(100, 20));
  Ids active(30);
  Ids missing(30);
  const std::vector<std::byte> bytes = rig.Bytes(0);
  const AllocationCounter counter;
  for (uint32_t token = 0; token < 50; ++token) {
    for (uint32_t i = 0; i < 30; ++i) active[i] = (token + i * 3) % 100;
    const size_t num_missing = rig.cache->BeginToken(active, missing);
    for (size_t i = 0; i < num_missing; ++i) {
      rig.cache->Insert(missing[i], bytes.data());
    }
  }
  EXPECT_EQ(counter.num_allocations(), 0u);
}

}  // namespace
}  // namespace flashelm
