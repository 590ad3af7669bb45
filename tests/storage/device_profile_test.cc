#include "storage/device_profile.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/base/types.h"
#include "tests/storage/memory_file.h"
#include "tests/storage/model_builder.h"
#include "tests/temp_directory.h"

namespace flashelm {
namespace {

using test::TempDirectory;

constexpr uint64_t kFileBytes = 40 * kIoAlignment + 100;

MeasureOptions QuickOptions() {
  MeasureOptions options;
  options.request_bytes = {kIoAlignment, 4 * kIoAlignment};
  options.queue_depths = {1, 3, 9};
  options.max_threads = 4;
  options.target_bytes = 12 * kIoAlignment;
  options.time_per_rate = std::chrono::milliseconds(1);
  return options;
}

std::shared_ptr<const RandomAccessFile> OnDisk(const TempDirectory& directory) {
  const std::string path = directory.File("bytes");
  WriteAllBytes(path, std::vector<std::byte>(kFileBytes));
  auto file = OpenFile(path, CacheMode::kDirect);
  return file ? std::move(*file) : nullptr;
}

TEST(MeasureDeviceTest, MeasuresEveryCombinationThatFits) {
  const TempDirectory directory;
  const auto file = OnDisk(directory);
  ASSERT_NE(file, nullptr);
  uint32_t last_done = 0;
  uint32_t last_total = 0;
  const auto profile =
      MeasureDevice(file, QuickOptions(), [&](uint32_t done, uint32_t total) {
        EXPECT_EQ(done, last_done + 1);
        last_done = done;
        last_total = total;
      });
  ASSERT_TRUE(profile) << profile.error().message();
  EXPECT_EQ(last_done, last_total);
  EXPECT_EQ(profile->path, file->path());
  EXPECT_EQ(profile->direct_io, file->direct_io());
  EXPECT_EQ(profile->file_bytes, kFileBytes);
  EXPECT_NE(profile->device_id, 0u);
  // Per order: pages 1, 3 (and 9 with io_uring) deep, larger reads 1 and 3.
  const bool has_uring = profile->uring_refusal.empty();
  EXPECT_EQ(profile->rates.size(), has_uring ? 2u * (5 + 4) : 2u * 4);
  for (const DeviceRate& rate : profile->rates) {
    EXPECT_GT(rate.bytes_per_second, 0u);
  }
  EXPECT_EQ(profile->FindBest(IoBackend::kUring) != nullptr, has_uring);
  const DeviceRate* best = profile->FindBest(IoBackend::kPread);
  ASSERT_NE(best, nullptr);
  EXPECT_EQ(best->order, ReadOrder::kSequential);
}

TEST(MeasureDeviceTest, SaysWhyThereIsNoUring) {
  const auto file = std::make_shared<MemoryFile>(
      ShareBytes(std::vector<std::byte>(kFileBytes)));
  const auto profile = MeasureDevice(file, QuickOptions(), nullptr);
  ASSERT_TRUE(profile) << profile.error().message();
  EXPECT_NE(profile->uring_refusal.find("io_uring"), std::string::npos);
  EXPECT_EQ(profile->FindBest(IoBackend::kUring), nullptr);
  EXPECT_EQ(profile->device_id, 0u);
}

TEST(MeasureDeviceTest, RefusesWhatCannotBeMeasured) {
  const auto tiny = std::make_shared<MemoryFile>(
      ShareBytes(std::vector<std::byte>(kIoAlignment - 1)));
  EXPECT_EQ(MeasureDevice(tiny, QuickOptions(), nullptr).error().code(),
            StatusCode::kInvalidArgument);
  const auto file = std::make_shared<MemoryFile>(
      ShareBytes(std::vector<std::byte>(kFileBytes)));
  for (const uint64_t request_bytes : {uint64_t{0}, uint64_t{1000}}) {
    MeasureOptions options = QuickOptions();
    options.request_bytes = {request_bytes};
    EXPECT_EQ(MeasureDevice(file, options, nullptr).error().code(),
              StatusCode::kInvalidArgument);
  }
  CancelToken cancel;
  cancel.Cancel();
  MeasureOptions options = QuickOptions();
  options.cancel = &cancel;
  EXPECT_EQ(MeasureDevice(file, options, nullptr).error().code(),
            StatusCode::kCancelled);
}

DeviceProfile Sample() {
  DeviceProfile profile;
  profile.path = "/models/\"3b\".felm";
  profile.device_id = 65025;
  profile.file_bytes = 123456789;
  profile.direct_io = true;
  for (const IoBackend backend : {IoBackend::kUring, IoBackend::kPread}) {
    for (const ReadOrder order : {ReadOrder::kSequential, ReadOrder::kRandom}) {
      profile.rates.push_back({backend, order, {65536, 8}, 1000});
      profile.rates.push_back({backend, order, {1048576, 2}, 3000});
      profile.rates.push_back({backend, order, {524288, 4}, 3000});
    }
  }
  profile.rates[4].bytes_per_second = 9000;  // Random, and so not the best.
  return profile;
}

TEST(DeviceProfileTest, JsonBringsBackWhatWasWritten) {
  for (const DeviceProfile& profile : {Sample(), DeviceProfile()}) {
    const std::string text = ToJson(profile);
    EXPECT_EQ(text.back(), '\n');
    const auto again = DeviceProfileFromJson(text, "profile");
    ASSERT_TRUE(again) << again.error().message();
    EXPECT_EQ(again->path, profile.path);
    EXPECT_EQ(again->device_id, profile.device_id);
    EXPECT_EQ(again->file_bytes, profile.file_bytes);
    EXPECT_EQ(again->direct_io, profile.direct_io);
    EXPECT_EQ(again->rates, profile.rates);
    EXPECT_EQ(ToJson(*again), text);
  }
}

TEST(DeviceProfileTest, TheBestIsTheFirstOfTheFastestSequentialRates) {
  const DeviceProfile profile = Sample();
  EXPECT_EQ(profile.FindBest(IoBackend::kUring), &profile.rates[1]);
  EXPECT_EQ(profile.FindBest(IoBackend::kPread), &profile.rates[7]);
  EXPECT_EQ(DeviceProfile().FindBest(IoBackend::kPread), nullptr);
}

TEST(DeviceProfileTest, RefusesTextsThatAreNoProfile) {
  const std::string text = ToJson(Sample());
  const std::pair<std::string, std::string> damages[] = {
      {"flashelm-device", "flashelm-other"},
      {"\"direct_io\": true", "\"direct_io\": 1"},
      {"\"file_bytes\": 123456789", "\"file_bytes\": -1"},
      {"\"path\"", "\"paths\""},
      {"\"uring\"", "\"aio\""},
      {"\"random\"", "\"reverse\""},
      {"\"queue_depth\": 8", "\"queue_depth\": 0"},
      {"\"queue_depth\": 8", "\"queue_depth\": 4294967297"},
      {"\"request_bytes\": 65536", "\"request_bytes\": 65537"},
      {"\"request_bytes\": 65536", "\"request_bytes\": 65536, \"more\": 1"},
      {"\"bytes_per_second\": 1000", "\"bytes_per_second\": 99999"},
      {"\"rates\": [", "\"rates\": [7, "},
      {"{", "["},
      {"{", "{\"more\": 1, "},
  };
  for (const auto& [from, to] : damages) {
    SCOPED_TRACE(from + " -> " + to);
    std::string damaged = text;
    const size_t at = damaged.find(from);
    ASSERT_NE(at, std::string::npos);
    damaged.replace(at, from.size(), to);
    const auto profile = DeviceProfileFromJson(damaged, "the profile");
    ASSERT_FALSE(profile);
    EXPECT_EQ(profile.error().code(), StatusCode::kDataLoss);
    EXPECT_EQ(profile.error().message().find("the profile"), 0u);
  }
  std::string newer = text;
  newer.replace(newer.find("\"version\": 1"), 12, "\"version\": 2");
  EXPECT_EQ(DeviceProfileFromJson(newer, "p").error().code(),
            StatusCode::kUnimplemented);
  for (const char* other : {"", "[]", "7", "null", "{}", "{\"format\": 3}"}) {
    EXPECT_EQ(DeviceProfileFromJson(other, "p").error().code(),
              StatusCode::kDataLoss);
  }
}

}  // namespace
}  // namespace flashelm
