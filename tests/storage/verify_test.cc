#include "storage/verify.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/checked_math.h"
#include "tests/storage/felm_image.h"
#include "tests/storage/memory_file.h"
#include "tests/storage/model_builder.h"

namespace flashelm {
namespace {

Result<VerifyReport> Verify(const WeightFile& weights) {
  return VerifyFile(weights, CancelToken(), nullptr);
}

// Verifies the model with one byte changed.
Status VerifyWithFlip(uint64_t at) {
  std::vector<std::byte> file = SharedTestModel().file;
  file[at] ^= std::byte{0x20};
  const auto report = Verify(TestModel::Open(ShareBytes(std::move(file))));
  return report ? OkStatus() : report.error();
}

void ExpectNamed(const Status& status, const std::string& where, uint64_t at) {
  EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status.message();
  for (const std::string& part :
       {std::string("memory.felm"), where, StatusMessage::Join("byte ", at)}) {
    EXPECT_NE(status.message().find(part), std::string::npos)
        << "\"" << status.message() << "\" does not say " << part;
  }
}

TEST(VerifyTest, ReportsWhatItComparedInAnIntactFile) {
  const WeightFile weights = SharedTestModel().Open();
  uint64_t num_checksums = 0;
  for (const Segment& segment : weights.segments()) {
    num_checksums += segment.num_checksums();
  }
  uint64_t last = 0;
  const auto report = VerifyFile(weights, CancelToken(), [&](uint64_t done) {
    EXPECT_GT(done, last);
    last = done;
  });
  ASSERT_TRUE(report) << report.error().message();
  EXPECT_EQ(report->num_checksums, num_checksums);
  EXPECT_EQ(report->num_bytes, weights.weight_bytes());
  EXPECT_EQ(last, weights.weight_bytes());
}

TEST(VerifyTest, FindsAFlippedByteInEverySegment) {
  const WeightFile weights = SharedTestModel().Open();
  for (const Segment& segment : weights.segments()) {
    for (const uint64_t record :
         {uint64_t{0}, segment.num_records / 2, segment.num_records - 1}) {
      for (const uint64_t byte : {uint64_t{0}, segment.stride_bytes - 1}) {
        // Named is where the block of its checksum begins.
        const uint64_t block = RoundDown(record, segment.records_per_checksum);
        ExpectNamed(VerifyWithFlip(segment.offset_bytes +
                                   record * segment.stride_bytes + byte),
                    segment.Describe(),
                    segment.offset_bytes + block * segment.stride_bytes);
      }
    }
  }
}

TEST(VerifyTest, FindsAFlippedByteInEveryGap) {
  const WeightFile weights = SharedTestModel().Open();
  int num_gaps = 0;
  const auto check = [&](uint64_t begin, uint64_t end,
                         const std::string& before) {
    if (begin == end) return;
    ++num_gaps;
    for (const uint64_t at : {begin, begin + (end - begin) / 2, end - 1}) {
      ExpectNamed(VerifyWithFlip(at), "padding after " + before, at);
    }
  };
  uint64_t end = kFelmHeaderBytes;
  std::string before = "the header";
  for (uint32_t id = 0; id < kNumSections; ++id) {
    const Section& section = weights.header().sections[id];
    check(end, section.offset_bytes, before);
    end = section.offset_bytes + section.stored_bytes;
    before = StatusMessage::Join("section ", kSectionNames[id]);
  }
  for (const Segment& segment : weights.segments()) {
    check(end, segment.offset_bytes, before);
    end = segment.offset_bytes + segment.num_bytes();
    before = segment.Describe();
  }
  check(end, weights.header().file_bytes, before);
  EXPECT_GE(num_gaps, 10);
}

TEST(VerifyTest, FindsDamageInTokenizerAndTable) {
  const WeightFile weights = SharedTestModel().Open();
  for (const SectionId id : {kTokenizer, kChecksums}) {
    const Section& section = weights.header().sections[id];
    for (const uint64_t at : {uint64_t{0}, section.stored_bytes - 1}) {
      ExpectNamed(VerifyWithFlip(section.offset_bytes + at),
                  std::string(kSectionNames[id]), section.offset_bytes);
    }
  }
}

// A gap of several pages, larger than what is read at a time.
TEST(VerifyTest, FindsAByteInAGapOfManyPages) {
  constexpr uint64_t kGap = uint64_t{3} << 20;
  const WeightFile weights = SharedTestModel().Open();
  const Segment& last = weights.segments().back();
  const auto edited = [&](uint64_t damage_at) {
    FelmEdit edit;
    edit.manifest = [&](Json& m) {
      m["segments"].back()["offset"] = last.offset_bytes + kGap;
    };
    edit.header = [&](FelmHeader& header) { header.file_bytes += kGap; };
    edit.bytes = [&](std::vector<std::byte>& file) {
      file.insert(file.begin() + static_cast<ptrdiff_t>(last.offset_bytes),
                  kGap, std::byte{0});
      if (damage_at != 0) file[damage_at] = std::byte{1};
    };
    return TestModel::Open(ShareBytes(EditFelm(SharedTestModel().file, edit)));
  };
  EXPECT_TRUE(Verify(edited(0)));
  const uint64_t at = last.offset_bytes + kGap - 5;
  const auto report = Verify(edited(at));
  ASSERT_FALSE(report);
  ExpectNamed(report.error(), "padding after layer 1 ffn", at);
}

TEST(VerifyTest, AFileCutOffWhileOpenIsDamaged) {
  const SharedBytes bytes = ShareBytes(SharedTestModel().file);
  const WeightFile weights = TestModel::Open(bytes);
  bytes->resize(weights.segments()[4].offset_bytes);
  const auto report = Verify(weights);
  ASSERT_FALSE(report);
  ExpectNamed(report.error(), "layer 0 ffn",
              weights.segments()[4].offset_bytes);
}

TEST(VerifyTest, StopsWhenAsked) {
  const WeightFile weights = SharedTestModel().Open();
  CancelToken cancel;
  int calls = 0;
  const auto report = VerifyFile(weights, cancel, [&](uint64_t) {
    ++calls;
    cancel.Cancel();
  });
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code(), StatusCode::kCancelled);
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace flashelm
