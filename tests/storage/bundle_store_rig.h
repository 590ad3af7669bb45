// What the tests of BundleStore share: a model in memory, and a store over it.
#ifndef FLASHELM_TESTS_STORAGE_BUNDLE_STORE_RIG_H_
#define FLASHELM_TESTS_STORAGE_BUNDLE_STORE_RIG_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/types.h"
#include "storage/bundle_store.h"
#include "storage/pread_reader.h"
#include "tests/storage/faulty_reader.h"
#include "tests/storage/model_builder.h"

namespace flashelm {

using Ids = std::vector<uint32_t>;

inline constexpr uint64_t kPage = kIoAlignment;

// Bundles of 3072, 1536 and 6144 bytes.
inline const TestModel& BundleModel() {
  static const TestModel model = [] {
    WeightFileContents contents;
    contents.tokenizer = "t";
    const std::vector<std::string> bundle = {"gate", "up", "down"};
    AddSegment(contents, SegmentKind::kEmbedding, {}, 2, 64, {"row"});
    AddSegment(contents, SegmentKind::kFfn, 0, 200, 512, bundle);
    AddSegment(contents, SegmentKind::kFfn, 1, 331, 256, bundle);
    AddSegment(contents, SegmentKind::kFfn, 2, 75, 1024, bundle);
    return MakeTestModel(contents, 5);
  }();
  return model;
}
inline const Ids kLayers = {1, 2, 3};

// Room for 16 reads of 8 pages, merged only where they touch.
inline BundleStoreOptions DefaultOptions(uint64_t num_slots) {
  BundleStoreOptions options;
  options.cache_slots.assign(kLayers.size(), num_slots);
  options.staging_bytes = 128 * kPage;
  options.max_read_bytes = 8 * kPage;
  options.cost = {0, 1};
  return options;
}

inline Ids Sequence(uint32_t begin, uint32_t end, uint32_t step = 1) {
  Ids ids;
  for (uint32_t id = begin; id < end; id += step) ids.push_back(id);
  return ids;
}

// So that a failure prints its reason.
inline testing::AssertionResult Ok(const Status& status) {
  if (status.ok()) return testing::AssertionSuccess();
  return testing::AssertionFailure()
         << StatusCodeName(status.code()) << ": " << status.message();
}

inline testing::AssertionResult Fails(
    const Status& status, StatusCode code,
    std::initializer_list<std::string> parts) {
  if (status.code() != code) return Ok(status) << " is not as expected";
  for (const std::string& part : parts) {
    if (status.message().find(part) == std::string::npos) {
      return testing::AssertionFailure()
             << "\"" << status.message() << "\" does not say " << part;
    }
  }
  return testing::AssertionSuccess();
}

inline Status Compare(uint32_t layer, const Bundle& bundle,
                      const WeightFile& file) {
  const Segment& segment = file.segments()[kLayers[layer]];
  const std::byte* expected = BundleModel().segments[kLayers[layer]].data() +
                              bundle.id * segment.stride_bytes;
  if (!std::equal(expected, expected + segment.stride_bytes, bundle.data)) {
    return DataLoss("wrong bytes in layer ", layer, " bundle ", bundle.id);
  }
  return OkStatus();
}

// Takes the batches of a fetch until there are no more, and compares what they
// have with `ids`.
inline Status TakeAll(BundleStore& store, uint32_t layer, const Ids& ids,
                      const WeightFile& file) {
  Ids seen;
  while (true) {
    FLASHELM_ASSIGN_OR_RETURN(const auto batch, store.Next());
    if (!batch) break;
    if (batch->empty()) return DataLoss("an empty batch");
    for (const Bundle& bundle : *batch) {
      FLASHELM_RETURN_IF_ERROR(Compare(layer, bundle, file));
      seen.push_back(bundle.id);
    }
  }
  std::ranges::sort(seen);
  if (seen != ids) {
    return DataLoss(seen.size(), " bundles, expected other ", ids.size());
  }
  return OkStatus();
}

// A store over a model in memory, with a reader that may misbehave.
struct Rig {
  explicit Rig(const BundleStoreOptions& options,
               std::vector<FaultAt> faults = {},
               CompletionOrder order = CompletionOrder::kAsTheyCome,
               uint32_t depth = 16, uint32_t num_threads = 2) {
    auto created = PreadReader::Create(file.shared_file(), depth, num_threads);
    EXPECT_TRUE(created);
    inner = std::move(*created);
    reader = std::make_unique<FaultyReader>(*inner, std::move(faults), order);
    auto verifier_created = RecordVerifier::Create(file, tables_budget);
    EXPECT_TRUE(verifier_created);
    verifier.emplace(std::move(*verifier_created));
    auto store_created =
        BundleStore::Create(file, kLayers, options, *reader, *verifier, budget);
    EXPECT_TRUE(store_created) << store_created.error().message();
    store = std::move(*store_created);
  }

  Status Token(uint32_t layer, const Ids& ids) {
    FLASHELM_RETURN_IF_ERROR(store->Fetch(layer, ids));
    return TakeAll(*store, layer, ids, file);
  }

  WeightFile file = BundleModel().Open();
  MemoryBudget budget{uint64_t{64} << 20};
  MemoryBudget tables_budget{uint64_t{64} << 20};
  std::unique_ptr<PreadReader> inner;
  std::unique_ptr<FaultyReader> reader;
  std::optional<RecordVerifier> verifier;
  std::unique_ptr<BundleStore> store;
};

}  // namespace flashelm

#endif  // FLASHELM_TESTS_STORAGE_BUNDLE_STORE_RIG_H_
