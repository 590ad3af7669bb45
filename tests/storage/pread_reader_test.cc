// What a PreadReader does beside what every reader promises.

#include "storage/pread_reader.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <new>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/types.h"
#include "tests/storage/memory_file.h"
#include "tests/storage/model_builder.h"

namespace flashelm {
namespace {

TEST(PreadReaderTest, NeedsThreadsAndDepth) {
  const auto file = std::make_shared<MemoryFile>(ShareBytes({}));
  for (const auto& [depth, threads] : {std::pair{0, 1}, std::pair{1, 0}}) {
    const auto reader = PreadReader::Create(file, depth, threads);
    ASSERT_FALSE(reader);
    EXPECT_EQ(reader.error().code(), StatusCode::kInvalidArgument);
  }
}

// Fails, and has no memory to say so.
class SpeechlessFile : public MemoryFile {
 public:
  using MemoryFile::MemoryFile;

  Result<size_t> ReadAt(uint64_t, std::span<std::byte>) const override {
    throw std::bad_alloc();
  }
};

TEST(PreadReaderTest, AReadThatFailsWithoutMemoryIsAFailedRead) {
  std::vector<std::byte> target(kIoAlignment);
  const auto reader = PreadReader::Create(
      std::make_shared<SpeechlessFile>(ShareBytes(target)), 1, 1);
  ASSERT_TRUE(reader);
  const ReadRequest request{0, target, 0};
  ASSERT_TRUE((*reader)->Submit({&request, 1}).ok());
  const auto completion = (*reader)->Wait(std::chrono::seconds(60));
  ASSERT_TRUE(completion);
  EXPECT_EQ(completion->status.code(), StatusCode::kUnavailable);
}

// Counts how many threads read at a time.
class CountingFile : public MemoryFile {
 public:
  using MemoryFile::MemoryFile;

  Result<size_t> ReadAt(uint64_t offset,
                        std::span<std::byte> target) const override {
    const uint32_t now = ++num_reading_;
    uint32_t most = most_.load();
    while (now > most && !most_.compare_exchange_weak(most, now)) {
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    auto got = MemoryFile::ReadAt(offset, target);
    --num_reading_;
    return got;
  }
  uint32_t most() const { return most_; }

 private:
  mutable std::atomic<uint32_t> num_reading_{0};
  mutable std::atomic<uint32_t> most_{0};
};

TEST(PreadReaderTest, AsManyThreadsShareAReadAsTheQueueIsDeep) {
  std::vector<std::byte> bytes(40 * kIoAlignment, std::byte{7});
  for (const uint32_t queue_depth : {1u, 3u}) {
    const auto file = std::make_shared<CountingFile>(ShareBytes(bytes));
    const auto reader =
        PreadReader::Create(file, 1, 4, {kIoAlignment, queue_depth});
    ASSERT_TRUE(reader);
    std::vector<std::byte> target(bytes.size());
    const ReadRequest request{0, target, 0};
    ASSERT_TRUE((*reader)->Submit({&request, 1}).ok());
    ASSERT_TRUE((*reader)->Wait(std::chrono::seconds(60)));
    EXPECT_EQ(target, bytes);
    EXPECT_EQ(file->most(), queue_depth);
    EXPECT_EQ((*reader)->stats().num_reads, 40u);
  }
}

}  // namespace
}  // namespace flashelm
