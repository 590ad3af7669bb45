// What every AsyncReader promises, on each reader there is.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "core/base/checked_math.h"
#include "core/base/memory.h"
#include "storage/open_reader.h"
#include "storage/pread_reader.h"
#include "storage/uring_reader.h"
#include "tests/storage/faulty_reader.h"
#include "tests/storage/memory_file.h"
#include "tests/storage/model_builder.h"
#include "tests/temp_directory.h"

namespace flashelm {
namespace {

using test::TempDirectory;

constexpr uint64_t kPages = 64;
// The file's last page is partial.
constexpr uint64_t kFileBytes = kPages * kIoAlignment - 1000;
constexpr uint32_t kDepth = 4;

// Longer than any read takes that comes at all.
constexpr std::chrono::seconds kLong(60);

using SharedFile = std::shared_ptr<const RandomAccessFile>;

struct ReaderKind {
  std::string name;
  ReaderOptions options;
  CacheMode mode;
};

ReaderKind Kind(IoBackend backend, uint32_t num_threads, CacheMode mode) {
  const char* cache = mode == CacheMode::kDirect ? "Direct" : "Buffered";
  ReaderKind kind;
  kind.name = backend == IoBackend::kUring
                  ? StatusMessage::Join("Uring", cache)
                  : StatusMessage::Join("Pread", num_threads, cache);
  kind.options.backend = backend;
  kind.options.num_threads = num_threads;
  kind.mode = mode;
  return kind;
}

Status SubmitOne(AsyncReader& reader, uint64_t offset,
                 std::span<std::byte> target, uint32_t tag) {
  const ReadRequest request{offset, target, tag};
  return reader.Submit({&request, 1});
}

class ReaderTest : public testing::TestWithParam<ReaderKind> {
 protected:
  void SetUp() override {
    std::mt19937_64 random(3);
    bytes_.resize(kFileBytes);
    for (std::byte& byte : bytes_) byte = static_cast<std::byte>(random());
    path_ = directory_.File("bytes");
    WriteAllBytes(path_, bytes_);
    auto file = OpenFile(path_, GetParam().mode);
    ASSERT_TRUE(file) << file.error().message();
    file_ = std::move(*file);
    if (is_uring()) {
      const auto reader = UringReader::Create(file_, kDepth);
      if (!reader) GTEST_SKIP() << reader.error().message();
    }
    auto buffer = AlignedBuffer::Create(kDepth * kSlotBytes, budget_, "test");
    ASSERT_TRUE(buffer);
    buffer_ = std::move(*buffer);
  }

  bool is_uring() const {
    return GetParam().options.backend == IoBackend::kUring;
  }
  std::unique_ptr<AsyncReader> Create(const ReadShape& shape = {}) {
    return Create(file_, shape);
  }
  std::unique_ptr<AsyncReader> Create(SharedFile file,
                                      const ReadShape& shape = {}) {
    ReaderOptions options = GetParam().options;
    options.depth = kDepth;
    options.request_bytes = shape.request_bytes;
    options.queue_depth = shape.queue_depth;
    auto reader = OpenReader(std::move(file), options);
    EXPECT_TRUE(reader) << reader.error().message();
    return reader ? std::move(*reader) : nullptr;
  }
  std::span<std::byte> Slot(uint32_t slot, uint64_t num_bytes) {
    return buffer_.bytes().subspan(slot * kSlotBytes, num_bytes);
  }
  // What a read of so many bytes gets.
  std::span<const std::byte> Expected(uint64_t offset, uint64_t num_bytes) {
    const std::span<const std::byte> all(bytes_);
    if (offset >= all.size()) return {};
    return all.subspan(offset,
                       std::min<uint64_t>(num_bytes, all.size() - offset));
  }

  static constexpr uint64_t kSlotBytes = 8 * kIoAlignment;
  const TempDirectory directory_;
  std::string path_;
  std::vector<std::byte> bytes_;
  MemoryBudget budget_{UINT64_MAX};
  AlignedBuffer buffer_;
  SharedFile file_;
};

TEST_P(ReaderTest, RandomReadsGiveTheBytesOfTheFile) {
  const auto reader = Create();
  std::mt19937_64 random(4);
  std::vector<uint64_t> offsets(kDepth);
  std::vector<uint64_t> sizes(kDepth);
  std::vector<uint32_t> free = {0, 1, 2, 3};
  uint64_t num_bytes = 0;
  for (int reads = 0; reads < 300;) {
    if (!free.empty() && (free.size() == kDepth || random() % 2 == 0)) {
      const uint32_t slot = free.back();
      free.pop_back();
      offsets[slot] = random() % kPages * kIoAlignment;
      sizes[slot] = (1 + random() % 8) * kIoAlignment;
      ASSERT_TRUE(
          SubmitOne(*reader, offsets[slot], Slot(slot, sizes[slot]), slot)
              .ok());
      continue;
    }
    EXPECT_EQ(reader->num_in_flight(), kDepth - free.size());
    const auto completion = reader->Wait(kLong);
    ASSERT_TRUE(completion);
    ASSERT_TRUE(completion->status.ok()) << completion->status.message();
    const uint32_t slot = completion->tag;
    const auto expected = Expected(offsets[slot], sizes[slot]);
    ASSERT_EQ(completion->num_bytes, expected.size());
    ASSERT_TRUE(std::ranges::equal(Slot(slot, expected.size()), expected));
    num_bytes += expected.size();
    free.push_back(slot);
    ++reads;
  }
  while (reader->num_in_flight() > 0) {
    const auto completion = reader->Wait(kLong);
    ASSERT_TRUE(completion);
    num_bytes += completion->num_bytes;
  }
  EXPECT_GE(reader->stats().num_reads, 300u);
  EXPECT_EQ(reader->stats().num_bytes, num_bytes);
  EXPECT_GT(reader->stats().busy_ns, 0u);
}

TEST_P(ReaderTest, RefusesOneReadMoreThanItsDepthAndGoesOn) {
  const auto reader = Create();
  EXPECT_EQ(reader->depth(), kDepth);
  for (uint32_t i = 0; i < kDepth; ++i) {
    ASSERT_TRUE(SubmitOne(*reader, 0, Slot(i, kIoAlignment), i).ok());
  }
  EXPECT_EQ(reader->num_in_flight(), kDepth);
  EXPECT_EQ(SubmitOne(*reader, 0, Slot(0, kIoAlignment), 9).code(),
            StatusCode::kResourceExhausted);
  std::set<uint32_t> seen;
  const auto first = reader->Wait(kLong);
  ASSERT_TRUE(first);
  seen.insert(first->tag);
  ASSERT_TRUE(
      SubmitOne(*reader, 0, Slot(first->tag, kIoAlignment), kDepth).ok());
  while (reader->num_in_flight() > 0) {
    const auto completion = reader->Wait(kLong);
    ASSERT_TRUE(completion);
    EXPECT_TRUE(seen.insert(completion->tag).second) << "seen twice";
  }
  EXPECT_EQ(seen.size(), kDepth + 1);
  EXPECT_EQ(reader->stats().num_reads, kDepth + 1);
}

TEST_P(ReaderTest, WaitGivesNothingAtOnceWhenNothingIsInFlight) {
  const auto reader = Create();
  EXPECT_FALSE(reader->Wait(kLong));
  EXPECT_TRUE(reader->Drain(kLong));
  EXPECT_EQ(reader->stats().num_reads, 0u);
  EXPECT_EQ(reader->stats().busy_ns, 0u);
}

TEST_P(ReaderTest, ReadsAcrossAndPastTheEndAreShort) {
  const auto reader = Create();
  const uint64_t last = (kPages - 1) * kIoAlignment;
  ASSERT_TRUE(SubmitOne(*reader, last, Slot(0, 2 * kIoAlignment), 0).ok());
  auto completion = reader->Wait(kLong);
  ASSERT_TRUE(completion);
  EXPECT_TRUE(completion->status.ok());
  EXPECT_EQ(completion->num_bytes, kFileBytes - last);

  ASSERT_TRUE(
      SubmitOne(*reader, last + 8 * kIoAlignment, Slot(0, kIoAlignment), 0)
          .ok());
  completion = reader->Wait(kLong);
  ASSERT_TRUE(completion);
  EXPECT_TRUE(completion->status.ok());
  EXPECT_EQ(completion->num_bytes, 0u);
}

TEST_P(ReaderTest, AFileCutOffAfterOpeningGivesShortReads) {
  const auto reader = Create();
  ASSERT_EQ(truncate(path_.c_str(), 3 * kIoAlignment), 0);
  ASSERT_TRUE(
      SubmitOne(*reader, 2 * kIoAlignment, Slot(0, 4 * kIoAlignment), 0).ok());
  const auto completion = reader->Wait(kLong);
  ASSERT_TRUE(completion);
  EXPECT_TRUE(completion->status.ok());
  EXPECT_EQ(completion->num_bytes, kIoAlignment);
}

TEST_P(ReaderTest, AnImpossibleOffsetFailsThatReadOnly) {
  const auto reader = Create();
  ASSERT_TRUE(
      SubmitOne(*reader, uint64_t{1} << 63, Slot(0, kIoAlignment), 7).ok());
  auto completion = reader->Wait(kLong);
  ASSERT_TRUE(completion);
  EXPECT_EQ(completion->tag, 7u);
  EXPECT_EQ(completion->status.code(), StatusCode::kUnavailable);
  EXPECT_NE(completion->status.message().find(path_), std::string::npos);

  ASSERT_TRUE(SubmitOne(*reader, 0, Slot(0, kIoAlignment), 8).ok());
  completion = reader->Wait(kLong);
  ASSERT_TRUE(completion);
  EXPECT_TRUE(completion->status.ok());
  EXPECT_EQ(completion->num_bytes, kIoAlignment);
}

TEST_P(ReaderTest, DrainSeesEveryReadToItsEnd) {
  if (is_uring()) GTEST_SKIP() << "reads by descriptor";
  const auto slow =
      std::make_shared<SlowFile>(*file_, std::chrono::milliseconds(2));
  for (int round = 0; round < 5; ++round) {
    MemoryBudget budget(UINT64_MAX);
    auto buffer = AlignedBuffer::Create(kDepth * kIoAlignment, budget, "test");
    ASSERT_TRUE(buffer);
    {
      const auto reader = Create(slow);
      for (uint32_t i = 0; i < kDepth; ++i) {
        ASSERT_TRUE(
            SubmitOne(*reader, i * kIoAlignment,
                      buffer->bytes().subspan(i * kIoAlignment, kIoAlignment),
                      i)
                .ok());
      }
      EXPECT_TRUE(reader->Drain(kLong));
    }
    // All are there, and the memory may go: no read writes to it any more.
    EXPECT_TRUE(std::ranges::equal(buffer->bytes(),
                                   Expected(0, kDepth * kIoAlignment)));
  }
}

TEST_P(ReaderTest, TagsFindTheirReadsInAnyOrder) {
  const auto inner = Create();
  FaultyReader reader(*inner, {{/*read=*/4, Fault::kLate}},
                      CompletionOrder::kReversed);
  for (int round = 0; round < 4; ++round) {
    for (uint32_t i = 0; i < kDepth; ++i) {
      ASSERT_TRUE(
          SubmitOne(reader, i * kIoAlignment, Slot(i, kIoAlignment), i).ok());
    }
    EXPECT_EQ(SubmitOne(reader, 0, Slot(0, kIoAlignment), 9).code(),
              StatusCode::kResourceExhausted);
    std::set<uint32_t> seen;
    while (reader.num_in_flight() > 0) {
      const auto completion = reader.Wait(kLong);
      ASSERT_TRUE(completion);
      const uint32_t tag = completion->tag;
      EXPECT_TRUE(seen.insert(tag).second);
      EXPECT_EQ(completion->num_bytes, kIoAlignment);
      EXPECT_TRUE(std::ranges::equal(
          Slot(tag, kIoAlignment), Expected(tag * kIoAlignment, kIoAlignment)));
    }
    EXPECT_EQ(seen.size(), kDepth);
  }
}

INSTANTIATE_TEST_SUITE_P(
    AllReaders, ReaderTest,
    testing::Values(Kind(IoBackend::kPread, 1, CacheMode::kBuffered),
                    Kind(IoBackend::kPread, 1, CacheMode::kDirect),
                    Kind(IoBackend::kPread, 4, CacheMode::kBuffered),
                    Kind(IoBackend::kPread, 4, CacheMode::kDirect),
                    Kind(IoBackend::kUring, 1, CacheMode::kBuffered),
                    Kind(IoBackend::kUring, 1, CacheMode::kDirect)),
    [](const testing::TestParamInfo<ReaderKind>& kind) {
      return kind.param.name;
    });

TEST(PreadReaderTest, NeedsThreadsAndDepth) {
  const auto file = std::make_shared<MemoryFile>(ShareBytes({}));
  for (const auto& [depth, threads] : {std::pair{0, 1}, std::pair{1, 0}}) {
    const auto reader = PreadReader::Create(file, depth, threads);
    ASSERT_FALSE(reader);
    EXPECT_EQ(reader.error().code(), StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace flashelm
