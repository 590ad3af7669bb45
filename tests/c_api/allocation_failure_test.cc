// No memory at the nth allocation, for every n: an error each time, nothing
// lost, and the next call works.

#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <new>
#include <string>
#include <vector>

#include "flashelm/flashelm.h"
#include "tests/c_api/sample_model.h"

namespace {

// Of so many allocations, one is let fail.
constexpr int64_t kStep = FLASHELM_TEST_STEP;

// Allocations until one fails; below 0: none does.
std::atomic<int64_t> num_left{-1};
std::atomic<int64_t> num_held{0};

void* Allocate(size_t size) {
  if (num_left.load() >= 0 && num_left-- == 0) return nullptr;
  void* const block = std::malloc(size > 0 ? size : 1);
  if (block != nullptr) ++num_held;
  return block;
}

void Free(void* block) {
  if (block == nullptr) return;
  --num_held;
  std::free(block);
}

}  // namespace

void* operator new(size_t size) {
  void* const block = Allocate(size);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}
void* operator new[](size_t size) { return operator new(size); }
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  return Allocate(size);
}
void* operator new[](size_t size, const std::nothrow_t&) noexcept {
  return Allocate(size);
}
void operator delete(void* block) noexcept { Free(block); }
void operator delete(void* block, size_t) noexcept { Free(block); }
void operator delete[](void* block) noexcept { Free(block); }
void operator delete[](void* block, size_t) noexcept { Free(block); }

namespace {

size_t CountDescriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

class AllocationFailureTest : public testing::TestWithParam<uint32_t> {
 protected:
  AllocationFailureTest() {
    source_.struct_size = sizeof(source_);
    source_.kind = FLASHELM_SOURCE_PATH;
    source_.path = model_.path().c_str();
    options_.struct_size = sizeof(options_);
    options_.memory_bytes = 6 << 20;
    options_.num_threads = 2;
    options_.context = 64;
    options_.io = GetParam();
    generate_.struct_size = sizeof(generate_);
    generate_.max_tokens = 2;
  }

  // Opens, generates, closes. The text, where all went well.
  std::string Cycle(flashelm_error& error) const {
    char text[256] = "";
    flashelm_generate_options generate = generate_;
    generate.token_user = text;
    generate.token = [](void* user, uint32_t, const char* more, size_t) {
      char* const all = static_cast<char*>(user);
      std::snprintf(all + std::strlen(all), 256 - std::strlen(all), "%s", more);
      return 0;
    };
    flashelm_engine* const engine =
        flashelm_engine_open_source(&source_, &options_, &error);
    if (engine == nullptr) return "";
    flashelm_session* const session = flashelm_session_open(engine, &error);
    flashelm_code code = FLASHELM_OK;
    if (session != nullptr) {
      code = flashelm_generate(session, "Once upon", 9, &generate, nullptr,
                               &error);
    }
    // No memory is needed to give it back.
    EXPECT_EQ(flashelm_session_close(session), FLASHELM_OK);
    EXPECT_EQ(flashelm_engine_close(engine), FLASHELM_OK);
    return session != nullptr && code == FLASHELM_OK ? text : "";
  }

  const SampleModel model_;
  flashelm_source source_{};
  flashelm_engine_options options_{};
  flashelm_generate_options generate_{};
};

TEST_P(AllocationFailureTest, EveryAllocationMayFail) {
  flashelm_error error;
  const std::string expected = Cycle(error);
  ASSERT_NE(expected, "") << error.message;
  num_left = INT64_MAX;
  Cycle(error);
  const int64_t num_allocations = INT64_MAX - num_left.exchange(-1);
  RecordProperty("num_allocations", std::to_string(num_allocations));
  ASSERT_GT(num_allocations, 100);
  const size_t num_descriptors = CountDescriptors();
  int64_t num_failed = 0;
  for (int64_t n = 0; n <= num_allocations; n += kStep) {
    const int64_t held = num_held;
    num_left = n;
    const std::string text = Cycle(error);
    const bool has_failed = num_left.exchange(-1) < 0;
    ASSERT_EQ(num_held, held) << "allocation " << n;
    if (!has_failed) continue;
    // A failure may be made up for, as where something is only tried.
    if (text.empty()) {
      ++num_failed;
      ASSERT_EQ(error.code, FLASHELM_RESOURCE_EXHAUSTED)
          << "allocation " << n << ": " << error.message;
    } else {
      ASSERT_EQ(text, expected) << "allocation " << n;
    }
  }
  EXPECT_GT(num_failed, num_allocations / kStep / 2);
  EXPECT_EQ(CountDescriptors(), num_descriptors);
  EXPECT_EQ(Cycle(error), expected) << error.message;
}

INSTANTIATE_TEST_SUITE_P(Readers, AllocationFailureTest,
                         testing::Values(FLASHELM_IO_AUTO, FLASHELM_IO_PREAD),
                         [](const auto& test) {
                           return std::string(test.param == FLASHELM_IO_AUTO
                                                  ? "Auto"
                                                  : "Pread");
                         });

}  // namespace
