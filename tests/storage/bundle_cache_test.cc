#include "storage/bundle_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <vector>

#include "core/base/types.h"
#include "tests/core/allocation_counter.h"

namespace flashelm {
namespace {

using Ids = std::vector<uint32_t>;

// A cache of small records, each with its own bytes.
struct Rig {
  explicit Rig(const BundleCacheOptions& cache_options)
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
    EXPECT_EQ(held.size(), cache->num_held());
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
  Rig rig(Options(20, 8));
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
  Rig rig(Options(20, 4));
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
  Rig rig(Options(20, 3));
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
    Rig rig(options);
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

TEST(BundleCacheTest, HotRecordsStayOnceTheyAreThere) {
  const Ids hot = {7, 2};
  BundleCacheOptions options = Options(20, 4);
  options.window_tokens = 3;
  options.hot = hot;
  Rig rig(options);
  EXPECT_EQ(rig.Held(), Ids());
  EXPECT_EQ(rig.Token({2, 7}), (Ids{2, 7}));
  for (int round = 0; round < 10; ++round) {
    rig.Token({8, 9, 10});
    rig.Token({11, 12, 13});
  }
  EXPECT_EQ(rig.Token({2, 7}), Ids());
  for (int token = 0; token < 5; ++token) rig.Token({});
  EXPECT_EQ(rig.Held(), (Ids{2, 7}));
}

TEST(BundleCacheTest, OnlyHotRecordsLeaveNoRoomForOthers) {
  const Ids hot = {0, 1};
  BundleCacheOptions options = Options(5, 2);
  options.hot = hot;
  Rig rig(options);
  rig.Token({3, 4});
  EXPECT_EQ(rig.Held(), (Ids{3, 4}));
  rig.Token({0, 1});
  rig.Token({3, 4});
  EXPECT_EQ(rig.Held(), (Ids{0, 1}));
}

TEST(BundleCacheTest, WithoutSlotsEverythingIsMissed) {
  Rig rig(Options(20, 0));
  for (int token = 0; token < 3; ++token) {
    EXPECT_EQ(rig.Token({1, 2}), (Ids{1, 2}));
    EXPECT_EQ(rig.Held(), Ids());
  }
}

// The same rules, written the plain way.
class PlainCache {
 public:
  PlainCache(uint64_t num_slots, uint64_t window, const Ids& hot)
      : num_slots_(num_slots), window_(window), hot_(hot.begin(), hot.end()) {}

  Ids Token(const Ids& active) {
    ++token_;
    std::erase_if(last_used_, [&](const auto& entry) {
      return !hot_.contains(entry.first) && token_ - entry.second > window_;
    });
    Ids missing;
    for (const uint32_t record : active) {
      if (last_used_.contains(record)) {
        last_used_[record] = token_;
      } else {
        missing.push_back(record);
      }
    }
    return missing;
  }
  // Of several used last at the same token, any may go.
  void Insert(uint32_t record, bool is_taken, const BundleCache& cache) {
    if (last_used_.size() == num_slots_) {
      uint64_t oldest = token_;
      for (const auto& [other, used] : last_used_) {
        if (!hot_.contains(other)) oldest = std::min(oldest, used);
      }
      ASSERT_EQ(is_taken, oldest < token_);
      if (!is_taken) return;
      const auto gone = std::ranges::find_if(last_used_, [&](const auto& e) {
        return cache.Find(e.first) == nullptr;
      });
      ASSERT_NE(gone, last_used_.end());
      ASSERT_FALSE(hot_.contains(gone->first));
      ASSERT_EQ(gone->second, oldest);
      last_used_.erase(gone);
    }
    ASSERT_TRUE(is_taken);
    last_used_[record] = token_;
  }
  Ids Held() const {
    Ids held;
    for (const auto& [record, used] : last_used_) held.push_back(record);
    return held;
  }

 private:
  const uint64_t num_slots_;
  const uint64_t window_;
  const std::set<uint32_t> hot_;
  std::map<uint32_t, uint64_t> last_used_;
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
    Ids hot;
    for (uint32_t id = 0; id < options.num_records; ++id) {
      if (hot.size() < options.num_slots && random() % 8 == 0) {
        hot.push_back(id);
      }
    }
    options.hot = hot;
    Rig rig(options);
    PlainCache plain(options.num_slots, options.window_tokens, hot);
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
        ASSERT_NO_FATAL_FAILURE(
            plain.Insert(record, slot != nullptr, *rig.cache));
      }
      ASSERT_EQ(rig.Held(), plain.Held());
    }
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
  const Ids twice = {3, 3};
  const Ids beyond = {20};
  const Ids three = {1, 2, 3};
  BundleCacheOptions many = Options(uint64_t{UINT32_MAX}, 2);
  for (const Ids* hot : {&twice, &beyond, &three}) {
    BundleCacheOptions options = Options(20, 2);
    options.hot = *hot;
    MemoryBudget budget(uint64_t{1} << 30);
    const auto cache = BundleCache::Create(options, budget);
    ASSERT_FALSE(cache);
    EXPECT_EQ(cache.error().code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(budget.used_bytes(), 0u);
  }
  MemoryBudget budget(uint64_t{1} << 40);
  const auto cache = BundleCache::Create(many, budget);
  ASSERT_FALSE(cache);
  EXPECT_EQ(cache.error().code(), StatusCode::kInvalidArgument);
}

TEST(BundleCacheTest, TokensAllocateNothing) {
  Rig rig(Options(100, 20));
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
