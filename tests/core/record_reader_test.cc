#include "core/record_reader.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "storage/file.h"
#include "tests/core/checkpoint_builder.h"
#include "tests/core/test_model.h"
#include "tests/temp_directory.h"

namespace flashelm::test {
namespace {

// A few records of the test model at a time.
constexpr uint64_t kSmallSlab = 10'000;

TEST(ForEachRecordTest, VisitsEveryRecordOnceInTheFilesOrder) {
  const ConvertedModel converted(CheckpointOptions(), Encoding::kBf16);
  const auto model = ModelFile::Open(converted.path());
  ASSERT_TRUE(model);
  const std::string file = ReadFile(converted.path());
  for (const uint64_t slab_bytes : {kSmallSlab, RecordReader::kSlabBytes}) {
    MemoryBudget budget(
        RecordReader::NumBytes(model->weight_file(), slab_bytes));
    auto reader =
        RecordReader::Create(model->weight_file(), budget, slab_bytes);
    ASSERT_TRUE(reader) << reader.error().message();
    for (const Segment& segment : model->weight_file().segments()) {
      SCOPED_TRACE(segment.Describe());
      uint64_t num_visited = 0;
      const auto visit = [&](uint32_t index, const std::byte* record) {
        ASSERT_EQ(index, num_visited++);
        const uint64_t begin =
            segment.offset_bytes + index * segment.stride_bytes;
        ASSERT_EQ(std::string(reinterpret_cast<const char*>(record),
                              segment.stride_bytes),
                  file.substr(begin, segment.stride_bytes));
      };
      EXPECT_TRUE(ForEachRecord(segment, *reader, nullptr, visit).ok());
      EXPECT_EQ(num_visited, segment.num_records);
    }
  }
}

TEST(ForEachRecordTest, StopsAtDamageAndWhenAsked) {
  const ConvertedModel converted(CheckpointOptions(), Encoding::kBf16);
  const TempDirectory directory;
  std::string file = ReadFile(converted.path());
  std::vector<Segment> segments;
  {
    const auto model = ModelFile::Open(converted.path());
    ASSERT_TRUE(model);
    segments = model->weight_file().segments();
  }
  const Segment& segment = segments[0];
  const uint64_t damaged = segment.num_records / 2;
  file[segment.offset_bytes + damaged * segment.stride_bytes] ^= 1;
  const std::string path = directory.File("damaged.felm");
  WriteFile(path, file);

  const auto model = ModelFile::Open(path);
  ASSERT_TRUE(model);
  MemoryBudget unlimited(UINT64_MAX);
  auto reader =
      RecordReader::Create(model->weight_file(), unlimited, kSmallSlab);
  ASSERT_TRUE(reader);
  uint64_t num_visited = 0;
  const auto count = [&](uint32_t, const std::byte*) { ++num_visited; };
  const Status found = ForEachRecord(segment, *reader, nullptr, count);
  EXPECT_EQ(found.code(), StatusCode::kDataLoss) << found.message();
  // Those of the slabs before it.
  EXPECT_EQ(num_visited, damaged - damaged % reader->SlabRecords(segment));

  CancelToken cancel;
  num_visited = 0;
  const auto ask = [&](uint32_t, const std::byte*) {
    ++num_visited;
    cancel.Cancel();
  };
  const Status stopped = ForEachRecord(segment, *reader, &cancel, ask);
  EXPECT_EQ(stopped.code(), StatusCode::kCancelled) << stopped.message();
  EXPECT_EQ(num_visited, reader->SlabRecords(segment));
}

}  // namespace
}  // namespace flashelm::test
