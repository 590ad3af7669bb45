#include "tests/c_api/cycles.h"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <thread>

#include "core/base/process_memory.h"
#include "tests/c_api/fixture.h"
#include "tests/core/golden.h"
#include "tests/core/test_model.h"

namespace flashelm::test {
namespace {

constexpr size_t kCycleTokens = 8;
// Of weights, beside the least memory there is: most of them. The others
// stream; with none in RAM most of a cycle would be waiting for small reads.
constexpr uint64_t kWeightBytes = uint64_t{6} << 20;

size_t CountEntries(const char* directory) {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator(directory)) {
    ++count;
  }
  return count;
}

}  // namespace

void ExpectNothingIsLeftAfter(int num_cycles) {
  const ConvertedModel model(SampleModelDirectory("tiny-stories"),
                             Encoding::kBf16);
  const Golden golden = ReadGolden("tiny-stories");
  const flashelm_source source = PathSource(model.path());
  flashelm_engine_options options = MakeOptions();
  options.memory_bytes = LeastMemory(source, options) + kWeightBytes;
  const GoldenPrompt& prompt = golden.prompts[0];
  const std::vector<uint32_t> expected(
      prompt.greedy_ids.begin(), prompt.greedy_ids.begin() + kCycleTokens);
  const auto cycle = [&] {
    const UniqueEngine engine = OpenEngine(source, options);
    const UniqueSession session = OpenSession(engine.get());
    const Generated generated =
        Generate(session.get(), prompt.text, Greedy(kCycleTokens));
    ASSERT_EQ(generated.ids, expected);
  };
  for (int i = 0; i < 10; ++i) cycle();
  const size_t num_files = CountEntries("/proc/self/fd");
  const size_t num_threads = CountEntries("/proc/self/task");
  const auto before = ReadProcessMemory();
  ASSERT_TRUE(before);
  for (int i = 0; i < num_cycles; ++i) cycle();
  EXPECT_EQ(CountEntries("/proc/self/fd"), num_files);
  // Of a thread that was joined the system may know for a moment longer, above
  // all where the machine is busy.
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (CountEntries("/proc/self/task") > num_threads &&
         std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  // Or for a moment longer when they were counted first.
  EXPECT_LE(CountEntries("/proc/self/task"), num_threads);
#ifndef FLASHELM_FOREIGN_MEMORY
  const auto after = ReadProcessMemory();
  EXPECT_LE(after->resident_bytes, before->resident_bytes + (1 << 20));
  testing::Test::RecordProperty(
      "resident_bytes_more",
      std::to_string(static_cast<int64_t>(after->resident_bytes) -
                     static_cast<int64_t>(before->resident_bytes)));
#endif
}

}  // namespace flashelm::test
