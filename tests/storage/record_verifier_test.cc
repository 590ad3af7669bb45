#include "storage/record_verifier.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/storage/memory_file.h"
#include "tests/storage/model_builder.h"

namespace flashelm {
namespace {

constexpr uint32_t kFfn = 4;  // A checksum for each record.

TEST(RecordVerifierTest, AcceptsEveryRecordAndChargesWhatItSays) {
  const WeightFile weights = SharedTestModel().Open();
  MemoryBudget budget(RecordVerifier::NumBytes(weights));
  auto verifier = RecordVerifier::Create(weights, budget);
  ASSERT_TRUE(verifier) << verifier.error().message();
  EXPECT_EQ(budget.used_bytes(), budget.limit_bytes());
  for (uint32_t i = 0; i < weights.segments().size(); ++i) {
    const Segment& segment = weights.segments()[i];
    const std::byte* data = SharedTestModel().segments[i].data();
    for (uint64_t first = 0; first < segment.num_records;
         first += segment.records_per_checksum) {
      const uint64_t count =
          std::min(segment.records_per_checksum, segment.num_records - first);
      EXPECT_TRUE(
          verifier
              ->VerifyOnce(i, first, count, data + first * segment.stride_bytes)
              .ok());
    }
  }
}

TEST(RecordVerifierTest, ComparesARecordUntilItWasRightAndNotAgain) {
  const WeightFile weights = SharedTestModel().Open();
  const uint64_t stride = weights.segments()[kFfn].stride_bytes;
  MemoryBudget budget(uint64_t{1} << 20);
  auto verifier = RecordVerifier::Create(weights, budget);
  ASSERT_TRUE(verifier);
  std::vector<std::byte> data = SharedTestModel().segments[kFfn];
  for (uint64_t record = 0; record < weights.segments()[kFfn].num_records;
       ++record) {
    std::byte* at = data.data() + record * stride;
    at[stride - 1] ^= std::byte{1};
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(verifier->VerifyOnce(kFfn, record, 1, at).code(),
                StatusCode::kUnavailable);
    }
    at[stride - 1] ^= std::byte{1};
    EXPECT_TRUE(verifier->VerifyOnce(kFfn, record, 1, at).ok());
    at[0] ^= std::byte{1};
    EXPECT_TRUE(verifier->VerifyOnce(kFfn, record, 1, at).ok());
  }
  // Others were not taken for it.
  EXPECT_EQ(verifier->VerifyOnce(kFfn + 4, 0, 1, data.data()).code(),
            StatusCode::kUnavailable);
}

TEST(RecordVerifierTest, ARunIsComparedWhileOneOfItsRecordsIsNew) {
  const WeightFile weights = SharedTestModel().Open();
  const uint64_t stride = weights.segments()[kFfn].stride_bytes;
  MemoryBudget budget(uint64_t{1} << 20);
  auto verifier = RecordVerifier::Create(weights, budget);
  ASSERT_TRUE(verifier);
  std::vector<std::byte> data = SharedTestModel().segments[kFfn];
  ASSERT_TRUE(verifier->VerifyOnce(kFfn, 0, 5, data.data()).ok());
  data[5 * stride] ^= std::byte{1};
  EXPECT_TRUE(verifier->VerifyOnce(kFfn, 0, 5, data.data()).ok());
  const Status status = verifier->VerifyOnce(kFfn, 0, 6, data.data());
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("neuron 5"), std::string::npos)
      << status.message();
}

TEST(RecordVerifierTest, TakesNothingWhereItFails) {
  const WeightFile weights = SharedTestModel().Open();
  MemoryBudget less(RecordVerifier::NumBytes(weights) - kIoAlignment);
  const auto refused = RecordVerifier::Create(weights, less);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(less.used_bytes(), 0u);

  std::vector<std::byte> file = SharedTestModel().file;
  file[weights.header().sections[kChecksums].offset_bytes] ^= std::byte{1};
  const WeightFile damaged = TestModel::Open(ShareBytes(file));
  MemoryBudget budget(uint64_t{1} << 20);
  const auto verifier = RecordVerifier::Create(damaged, budget);
  ASSERT_FALSE(verifier);
  EXPECT_EQ(verifier.error().code(), StatusCode::kDataLoss);
  EXPECT_EQ(budget.used_bytes(), 0u);
}

}  // namespace
}  // namespace flashelm
