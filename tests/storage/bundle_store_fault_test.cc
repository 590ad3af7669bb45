// A BundleStore whose reads fail, come late or never.

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "storage/bundle_store.h"
#include "storage/pread_reader.h"
#include "tests/storage/bundle_store_rig.h"
#include "tests/storage/faulty_reader.h"
#include "tests/storage/memory_file.h"

namespace flashelm {
namespace {

TEST(BundleStoreFaultTest, EveryFailedReadReachesTheCallerAndTheNextWorks) {
  BundleStoreOptions options = DefaultOptions(20);
  options.max_read_bytes = 4 * kPage;
  options.staging_bytes = 20 * kPage;
  const Ids ids = Sequence(1, 75, 3);
  std::vector<FaultyReader::Asked> reads;
  {
    Rig rig(options);
    ASSERT_TRUE(Ok(rig.Token(2, ids)));
    reads = rig.reader->asked();
  }
  ASSERT_GT(reads.size(), 10u);
  for (const Fault fault :
       {Fault::kIoError, Fault::kShort, Fault::kEmpty, Fault::kFlipByte}) {
    for (size_t n = 0; n < reads.size(); ++n) {
      SCOPED_TRACE(StatusMessage::Join("fault ", static_cast<int>(fault),
                                       " at read ", n));
      Rig rig(options, {{n, fault}},
              n % 2 == 0 ? CompletionOrder::kAsTheyCome
                         : CompletionOrder::kReversed);
      // The first byte of a read may belong to a record that nobody wants.
      const uint64_t at =
          reads[n].offset_bytes - rig.file.segments()[3].offset_bytes;
      if (fault == Fault::kFlipByte && at % 6144 != 0) {
        EXPECT_TRUE(Ok(rig.Token(2, ids)));
        continue;
      }
      EXPECT_TRUE(Fails(rig.Token(2, ids), StatusCode::kUnavailable,
                        {"memory.felm", "layer 2 ffn",
                         StatusMessage::Join("byte ", reads[n].offset_bytes)}));
      EXPECT_TRUE(Fails(rig.store->Next().error(), StatusCode::kInternal, {}));
      ASSERT_TRUE(Ok(rig.Token(2, ids)));
      ASSERT_TRUE(Ok(rig.Token(0, Sequence(0, 200))));
    }
  }
}

TEST(BundleStoreFaultTest, LateReadsChangeNothing) {
  BundleStoreOptions options = DefaultOptions(20);
  options.staging_bytes = 20 * kPage;
  for (uint64_t n = 0; n < 20; ++n) {
    Rig rig(options, {{n, Fault::kLate}, {n + 2, Fault::kLate}});
    ASSERT_TRUE(Ok(rig.Token(2, Sequence(0, 75, 3))));
    ASSERT_TRUE(Ok(rig.Token(0, Sequence(0, 200, 2))));
  }
}

TEST(BundleStoreFaultTest, AReadThatIsNeverAnsweredEndsOneCallOnly) {
  BundleStoreOptions options = DefaultOptions(20);
  options.staging_bytes = 20 * kPage;
  options.read_timeout = std::chrono::milliseconds(100);
  const Ids ids = Sequence(0, 75, 3);
  for (uint64_t n = 0; n < 20; n += 4) {
    SCOPED_TRACE(n);
    Rig rig(options, {{n, Fault::kNever}});
    const Status status = rig.Token(2, ids);
    ASSERT_GT(rig.reader->asked().size(), n);
    EXPECT_TRUE(Fails(
        status, StatusCode::kUnavailable,
        {"memory.felm", "layer 2 ffn",
         StatusMessage::Join("byte ", rig.reader->asked()[n].offset_bytes),
         "not answered within 0.1 s"}));
    EXPECT_EQ(rig.reader->num_in_flight(), 1u);
    for (int call = 0; call < 3; ++call) ASSERT_TRUE(Ok(rig.Token(2, ids)));
    // The answer comes after all.
    rig.reader->Release();
    ASSERT_TRUE(Ok(rig.Token(0, Sequence(0, 200))));
    EXPECT_EQ(rig.reader->num_in_flight(), 0u);
    rig.store.reset();
    EXPECT_EQ(rig.budget.used_bytes(), 0u);
  }
}

TEST(BundleStoreFaultTest, CancellingEndsAWaitAndTheNextCallWorks) {
  BundleStoreOptions options = DefaultOptions(20);
  options.staging_bytes = 20 * kPage;
  options.read_timeout = std::chrono::hours(1);
  const Ids ids = Sequence(0, 75, 3);
  for (uint64_t n = 0; n < 20; n += 4) {
    SCOPED_TRACE(n);
    Rig rig(options, {{n, Fault::kNever}});
    CancelToken cancel;
    rig.store->set_cancel(&cancel);
    std::thread canceller([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      cancel.Cancel();
    });
    EXPECT_TRUE(Fails(rig.Token(2, ids), StatusCode::kCancelled, {"stopped"}));
    canceller.join();
    EXPECT_GE(rig.reader->num_in_flight(), 1u);
    cancel.Reset();
    for (int call = 0; call < 3; ++call) ASSERT_TRUE(Ok(rig.Token(2, ids)));
    rig.reader->Release();
    ASSERT_TRUE(Ok(rig.Token(0, Sequence(0, 200))));
    EXPECT_EQ(rig.reader->num_in_flight(), 0u);
  }
}

TEST(BundleStoreFaultTest, MemoryOfAReadGivenUpWaitsForItsAnswer) {
  BundleStoreOptions options = DefaultOptions(20);
  options.staging_bytes = options.max_read_bytes = 2 * kPage;
  options.read_timeout = std::chrono::milliseconds(20);
  Rig rig(options, {{0, Fault::kNever}});
  EXPECT_TRUE(Fails(rig.Token(2, {3}), StatusCode::kUnavailable,
                    {"not answered within"}));
  EXPECT_TRUE(Fails(rig.Token(2, {5}), StatusCode::kUnavailable,
                    {"memory.felm", "layer 2 ffn", "no memory is left"}));
  EXPECT_EQ(rig.reader->asked().size(), 1u);
  rig.reader->Release();
  EXPECT_TRUE(Ok(rig.Token(2, {5})));
}

TEST(BundleStoreFaultTest, MemoryOfReadsThatNeverEndIsNotGivenBack) {
  BundleStoreOptions options = DefaultOptions(20);
  options.read_timeout = std::chrono::milliseconds(10);
  Rig rig(options, {{1, Fault::kNever}});
  ASSERT_TRUE(Ok(rig.store->Fetch(2, Ids{1, 20, 40})));
  rig.store.reset();
  EXPECT_EQ(rig.reader->adopted_bytes(), options.staging_bytes);
  EXPECT_EQ(rig.budget.used_bytes(), 0u);
}

TEST(BundleStoreFaultTest, DestructorWaitsForReadsThatAreLate) {
  const WeightFile file = BundleModel().Open();
  const auto slow =
      std::make_shared<SlowFile>(file.file(), std::chrono::milliseconds(3));
  auto reader = PreadReader::Create(slow, 8, 3);
  ASSERT_TRUE(reader);
  MemoryBudget budget(uint64_t{64} << 20);
  auto verifier = RecordVerifier::Create(file, budget);
  ASSERT_TRUE(verifier);
  const uint64_t before = budget.used_bytes();
  for (int round = 0; round < 4; ++round) {
    auto store = BundleStore::Create(file, kLayers, DefaultOptions(5), **reader,
                                     *verifier, budget);
    ASSERT_TRUE(store);
    ASSERT_TRUE(Ok((*store)->Fetch(0, Sequence(0, 200, 4))));
    if (round % 2 == 1) {
      ASSERT_TRUE((*store)->Next());
    }
    EXPECT_GT((*reader)->num_in_flight(), 0u);
    store->reset();
    EXPECT_EQ((*reader)->num_in_flight(), 0u);
    EXPECT_EQ(budget.used_bytes(), before);
  }
}

}  // namespace
}  // namespace flashelm
