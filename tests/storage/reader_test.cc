// What every AsyncReader promises, on each reader there is.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "core/base/checked_math.h"
#include "core/base/memory.h"
#include "storage/open_reader.h"
#include "storage/uring_reader.h"
#include "tests/core/allocation_counter.h"
#include "tests/storage/faulty_reader.h"
#include "tests/storage/gate_file.h"
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
  // A reader that goes by descriptor would not see the delay.
  const SharedFile slow =
      is_uring()
          ? file_
          : std::make_shared<SlowFile>(*file_, std::chrono::milliseconds(2));
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

TEST_P(ReaderTest, ALargeReadIsManyRequestsAndOneCompletion) {
  MemoryBudget budget(UINT64_MAX);
  auto buffer = AlignedBuffer::Create(kPages * kIoAlignment, budget, "test");
  ASSERT_TRUE(buffer);
  for (const uint32_t queue_depth : {1u, 3u, 8u}) {
    for (const uint64_t pages : {1, 3, 7, 1000}) {
      SCOPED_TRACE(StatusMessage::Join(pages, " pages, ", queue_depth));
      const auto reader = Create({pages * kIoAlignment, queue_depth});
      std::ranges::fill(buffer->bytes(), std::byte{0});
      ASSERT_TRUE(SubmitOne(*reader, 0, buffer->bytes(), 5).ok());
      const auto completion = reader->Wait(kLong);
      ASSERT_TRUE(completion);
      ASSERT_TRUE(completion->status.ok()) << completion->status.message();
      EXPECT_EQ(completion->tag, 5u);
      EXPECT_EQ(completion->num_bytes, kFileBytes);
      EXPECT_LE(completion->begin, completion->end);
      EXPECT_TRUE(
          std::ranges::equal(buffer->bytes().first(kFileBytes), bytes_));
      EXPECT_EQ(reader->stats().num_reads, CeilDiv(kPages, pages));
      EXPECT_EQ(reader->stats().num_bytes, kFileBytes);
      EXPECT_FALSE(reader->Wait(kLong));
    }
  }
}

TEST_P(ReaderTest, AReadFarPastTheEndStopsAtTheEnd) {
  // Most of its requests would find nothing.
  const auto reader = Create({kIoAlignment, 2});
  const uint64_t offset = (kPages - 3) * kIoAlignment;
  ASSERT_TRUE(SubmitOne(*reader, offset, Slot(0, kSlotBytes), 0).ok());
  const auto completion = reader->Wait(kLong);
  ASSERT_TRUE(completion);
  EXPECT_TRUE(completion->status.ok());
  EXPECT_EQ(completion->num_bytes, kFileBytes - offset);
  EXPECT_TRUE(std::ranges::equal(Slot(0, completion->num_bytes),
                                 Expected(offset, kSlotBytes)));
}

TEST_P(ReaderTest, ABatchIsTakenWholeOrNotAtAll) {
  const auto reader = Create({kIoAlignment, 3});
  std::vector<ReadRequest> batch;
  for (uint32_t i = 0; i < kDepth + 1; ++i) {
    batch.push_back({i * kSlotBytes, Slot(i % kDepth, kSlotBytes), i});
  }
  EXPECT_EQ(reader->Submit(batch).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(reader->num_in_flight(), 0u);
  EXPECT_TRUE(reader->Submit({}).ok());
  EXPECT_FALSE(reader->Wait(kLong));
  batch.pop_back();
  for (int round = 0; round < 50; ++round) {
    ASSERT_TRUE(reader->Submit(batch).ok());
    std::set<uint32_t> seen;
    for (uint32_t i = 0; i < kDepth; ++i) {
      const auto completion = reader->Wait(kLong);
      ASSERT_TRUE(completion);
      seen.insert(completion->tag);
      EXPECT_EQ(completion->num_bytes, kSlotBytes);
    }
    EXPECT_EQ(seen.size(), kDepth);
    EXPECT_TRUE(
        std::ranges::equal(buffer_.bytes(), Expected(0, kDepth * kSlotBytes)));
  }
}

TEST_P(ReaderTest, RegisteredMemoryGetsTheSameBytes) {
  const auto reader = Create();
  MemoryBudget budget(UINT64_MAX);
  auto other = AlignedBuffer::Create(kIoAlignment, budget, "test");
  ASSERT_TRUE(other);
  for (const std::span<std::byte> memory :
       {buffer_.bytes(), Slot(1, kSlotBytes), std::span<std::byte>()}) {
    reader->RegisterBuffer(memory);
    // Inside, across an edge, outside.
    ASSERT_TRUE(
        SubmitOne(*reader, 0, {Slot(0, 0).data(), 2 * kSlotBytes}, 0).ok());
    ASSERT_TRUE(SubmitOne(*reader, kIoAlignment, Slot(2, kSlotBytes), 1).ok());
    ASSERT_TRUE(SubmitOne(*reader, kIoAlignment, other->bytes(), 2).ok());
    for (int i = 0; i < 3; ++i) {
      const auto completion = reader->Wait(kLong);
      ASSERT_TRUE(completion);
      EXPECT_TRUE(completion->status.ok()) << completion->status.message();
    }
    EXPECT_TRUE(std::ranges::equal(buffer_.bytes().first(2 * kSlotBytes),
                                   Expected(0, 2 * kSlotBytes)));
    EXPECT_TRUE(std::ranges::equal(Slot(2, kSlotBytes),
                                   Expected(kIoAlignment, kSlotBytes)));
    EXPECT_TRUE(std::ranges::equal(other->bytes(),
                                   Expected(kIoAlignment, kIoAlignment)));
  }
}

TEST_P(ReaderTest, AFileReplacedAfterOpeningIsStillRead) {
  const auto reader = Create();
  std::filesystem::remove(path_);
  WriteAllBytes(path_, std::vector<std::byte>(kFileBytes));
  ASSERT_TRUE(SubmitOne(*reader, 0, Slot(0, kSlotBytes), 0).ok());
  const auto completion = reader->Wait(kLong);
  ASSERT_TRUE(completion);
  EXPECT_TRUE(std::ranges::equal(Slot(0, kSlotBytes), Expected(0, kSlotBytes)));
}

TEST_P(ReaderTest, AFailedReadNamesFileOffsetSizeAndReason) {
  // Nothing is mapped at byte 0 of a process's memory.
  auto memory = OpenFile("/proc/self/mem", CacheMode::kBuffered);
  if (!memory) GTEST_SKIP() << memory.error().message();
  const auto reader = Create(std::move(*memory), {kIoAlignment, 2});
  ASSERT_TRUE(SubmitOne(*reader, kIoAlignment, Slot(0, kSlotBytes), 3).ok());
  const auto completion = reader->Wait(kLong);
  ASSERT_TRUE(completion);
  EXPECT_EQ(completion->tag, 3u);
  EXPECT_EQ(completion->num_bytes, 0u);
  EXPECT_EQ(completion->status.code(), StatusCode::kUnavailable);
  for (const char* part :
       {"/proc/self/mem", "4096 bytes", "at byte 4096", "Input/output error"}) {
    EXPECT_NE(completion->status.message().find(part), std::string::npos)
        << completion->status.message();
  }
}

TEST_P(ReaderTest, WaitEndsInTimeAndTheReadArrivesLater) {
  const std::vector<std::byte> bytes(bytes_.begin(),
                                     bytes_.begin() + kSlotBytes);
  const auto gate = std::make_shared<GateFile>(bytes);
  const auto reader = Create(gate);
  ASSERT_TRUE(SubmitOne(*reader, 0, Slot(0, kSlotBytes), 1).ok());
  EXPECT_FALSE(reader->Wait(std::chrono::nanoseconds(0)));
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_FALSE(reader->Wait(std::chrono::milliseconds(20)));
  const auto waited = std::chrono::steady_clock::now() - begin;
  EXPECT_GE(waited, std::chrono::milliseconds(20));
  EXPECT_LT(waited, std::chrono::seconds(20));
  EXPECT_EQ(reader->num_in_flight(), 1u);
  EXPECT_FALSE(reader->Drain(std::chrono::milliseconds(1)));
  // A part of it: the reader goes on where that ends.
  gate->Give(kIoAlignment + 100);
  EXPECT_FALSE(reader->Wait(std::chrono::milliseconds(5)));
  gate->GiveAll();
  const auto completion = reader->Wait(kLong);
  ASSERT_TRUE(completion);
  EXPECT_TRUE(completion->status.ok()) << completion->status.message();
  EXPECT_EQ(completion->num_bytes, kSlotBytes);
  EXPECT_TRUE(std::ranges::equal(Slot(0, kSlotBytes), bytes));
  EXPECT_GE(reader->stats().busy_ns, 20000000u);
}

TEST_P(ReaderTest, ReadsThatNeverEndAreLeftBehind) {
  // What such reads write to stays for ever, as the contract demands.
  static std::vector<std::unique_ptr<std::byte[]>> leaked;
  leaked.push_back(std::make_unique<std::byte[]>(kDepth * kIoAlignment));
  const std::span<std::byte> memory(leaked.back().get(), kDepth * kIoAlignment);
  const auto gate =
      std::make_shared<GateFile>(std::vector<std::byte>(kDepth * kIoAlignment));
  auto reader = Create(gate);
  for (uint32_t i = 0; i < kDepth; ++i) {
    ASSERT_TRUE(SubmitOne(*reader, i * kIoAlignment,
                          memory.subspan(i * kIoAlignment, kIoAlignment), i)
                    .ok());
  }
  EXPECT_FALSE(reader->Drain(std::chrono::milliseconds(5)));
  const auto begin = std::chrono::steady_clock::now();
  reader.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
  gate->GiveAll();
  // Threads that were left behind let go of the file when they end.
  const auto deadline = std::chrono::steady_clock::now() + kLong;
  while (gate.use_count() > 1 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(gate.use_count(), 1);
}

TEST_P(ReaderTest, TargetsStayUntilTheDeviceHasAnsweredAndNoLonger) {
  const auto left_bytes = std::make_shared<std::atomic<uint64_t>>(0);
  MemoryBudget budget(uint64_t{1} << 20);
  auto target = AlignedBuffer::Create(2 * kIoAlignment, budget, "target");
  ASSERT_TRUE(target);
  const std::span<std::byte> memory = target->bytes();
  const auto gate =
      std::make_shared<GateFile>(std::vector<std::byte>(memory.size()));
  auto reader = Create(gate);
  for (uint32_t i = 0; i < 2; ++i) {
    ASSERT_TRUE(SubmitOne(*reader, i * kIoAlignment,
                          memory.subspan(i * kIoAlignment, kIoAlignment), i)
                    .ok());
  }
  EXPECT_FALSE(reader->Drain(std::chrono::milliseconds(5)));
  reader->Adopt(std::move(*target));
  EXPECT_EQ(budget.used_bytes(), 0u);
  const auto begin = std::chrono::steady_clock::now();
  EndReader(std::move(reader), left_bytes);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
  EXPECT_EQ(*left_bytes, memory.size());
  EXPECT_GT(gate.use_count(), 1);
  gate->GiveAll();
  const auto deadline = std::chrono::steady_clock::now() + kLong;
  while ((*left_bytes > 0 || gate.use_count() > 1) &&
         std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(*left_bytes, 0u);
  EXPECT_EQ(gate.use_count(), 1);
}

TEST_P(ReaderTest, AReaderThatWasStoppedTakesNoReads) {
  const auto reader = Create();
  reader->Stop();
  EXPECT_FALSE(SubmitOne(*reader, 0, Slot(0, kIoAlignment), 0).ok());
  EXPECT_EQ(reader->num_in_flight(), 0u);
}

TEST_P(ReaderTest, ADeviceThatNeverAnswersCanBeReplayed) {
  const auto inner = Create();
  FaultyReader reader(*inner, {{/*read=*/1, Fault::kNever}});
  for (uint32_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(
        SubmitOne(reader, i * kIoAlignment, Slot(i, kIoAlignment), i).ok());
  }
  std::set<uint32_t> seen;
  for (int i = 0; i < 2; ++i) {
    const auto completion = reader.Wait(kLong);
    ASSERT_TRUE(completion);
    seen.insert(completion->tag);
  }
  EXPECT_EQ(seen, (std::set<uint32_t>{0, 2}));
  EXPECT_EQ(reader.num_in_flight(), 1u);
  EXPECT_FALSE(reader.Drain(std::chrono::milliseconds(2)));
  reader.Release();
  const auto completion = reader.Wait(kLong);
  ASSERT_TRUE(completion);
  EXPECT_EQ(completion->tag, 1u);
  EXPECT_TRUE(std::ranges::equal(Slot(1, kIoAlignment),
                                 Expected(kIoAlignment, kIoAlignment)));
}

TEST_P(ReaderTest, CountsTheTimeWithReadsInFlightOnly) {
  const auto reader = Create();
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_TRUE(SubmitOne(*reader, 0, Slot(0, kSlotBytes), 0).ok());
  const auto completion = reader->Wait(kLong);
  ASSERT_TRUE(completion);
  const auto end = std::chrono::steady_clock::now();
  EXPECT_LE(begin, completion->begin);
  EXPECT_LE(completion->begin, completion->end);
  EXPECT_LE(completion->end, end);
  const uint64_t busy_ns = reader->stats().busy_ns;
  EXPECT_EQ(busy_ns,
            static_cast<uint64_t>(
                std::chrono::nanoseconds(completion->end - completion->begin)
                    .count()));
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  EXPECT_EQ(reader->stats().busy_ns, busy_ns);
}

TEST_P(ReaderTest, AllocatesNothingPerRead) {
  const auto reader = Create({2 * kIoAlignment, 2});
  const auto read_some = [&] {
    for (uint32_t i = 0; i < kDepth; ++i) {
      ASSERT_TRUE(
          SubmitOne(*reader, i * kSlotBytes, Slot(i, kSlotBytes), i).ok());
    }
    while (reader->num_in_flight() > 0) ASSERT_TRUE(reader->Wait(kLong));
  };
  read_some();
  const AllocationCounter counter;
  for (int round = 0; round < 20; ++round) read_some();
  EXPECT_EQ(counter.num_allocations(), 0u);
}

TEST_P(ReaderTest, LeavesNoPagesInTheSystemsCache) {
  const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  // They are there from writing, and dirty ones could not be dropped.
  ASSERT_EQ(fsync(fd), 0);
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  const auto reader = Create({2 * kIoAlignment, 4});
  for (uint64_t at = 0; at < kPages * kIoAlignment; at += kSlotBytes) {
    ASSERT_TRUE(SubmitOne(*reader, at, Slot(0, kSlotBytes), 0).ok());
    ASSERT_TRUE(reader->Wait(kLong));
  }
  void* map = mmap(nullptr, kFileBytes, PROT_READ, MAP_SHARED, fd, 0);
  ASSERT_NE(map, MAP_FAILED);
  std::vector<unsigned char> present(kPages);
  EXPECT_EQ(mincore(map, kFileBytes, present.data()), 0);
  munmap(map, kFileBytes);
  close(fd);
  const auto num_present = std::ranges::count_if(
      present, [](unsigned char page) { return (page & 1) != 0; });
  EXPECT_EQ(num_present, 0) << "of " << kPages;
}

TEST_P(ReaderTest, RefusesShapesThatNoDeviceTakes) {
  for (const ReadShape& shape :
       {ReadShape{kIoAlignment + 1, 1}, ReadShape{uint64_t{1} << 40, 1},
        ReadShape{kIoAlignment, kMaxQueueDepth + 1}}) {
    ReaderOptions options = GetParam().options;
    options.depth = 1;
    options.request_bytes = shape.request_bytes;
    options.queue_depth = shape.queue_depth;
    const auto reader = OpenReader(file_, options);
    ASSERT_FALSE(reader);
    EXPECT_EQ(reader.error().code(), StatusCode::kInvalidArgument);
  }
}

INSTANTIATE_TEST_SUITE_P(
    AllReaders, ReaderTest,
    testing::Values(Kind(IoBackend::kPread, 1, CacheMode::kDropped),
                    Kind(IoBackend::kPread, 1, CacheMode::kDirect),
                    Kind(IoBackend::kPread, 4, CacheMode::kDropped),
                    Kind(IoBackend::kPread, 4, CacheMode::kDirect),
                    Kind(IoBackend::kUring, 1, CacheMode::kDropped),
                    Kind(IoBackend::kUring, 1, CacheMode::kDirect)),
    [](const testing::TestParamInfo<ReaderKind>& kind) {
      return kind.param.name;
    });

}  // namespace
}  // namespace flashelm
