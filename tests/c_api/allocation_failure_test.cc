// No memory at the nth allocation, for every n, from the heap or straight from
// the system: an error each time, nothing lost, and the next call works. With
// the address sanitizer, which has an mmap of its own, from the heap alone.

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "flashelm/flashelm.h"
#include "tests/c_api/sample_model.h"

namespace {

// Of so many allocations, one is let fail.
constexpr int64_t kStep = FLASHELM_TEST_STEP;

// A part of the weights streams.
#ifdef FLASHELM_SANITIZED
constexpr uint64_t kMemoryBytes = uint64_t{26} << 20;  // Stacks are large.
#else
constexpr uint64_t kMemoryBytes = uint64_t{6} << 20;
#endif

// Allocations until one fails; below 0: none does.
std::atomic<int64_t> num_left{-1};
std::atomic<int64_t> num_held{0};
std::atomic<int64_t> mapped_bytes{0};

bool IsToFail() { return num_left.load() >= 0 && num_left-- == 0; }

void* Allocate(size_t size) {
  if (IsToFail()) return nullptr;
  void* const block = std::malloc(size > 0 ? size : 1);
  if (block != nullptr) ++num_held;
  return block;
}

// Not inline: GCC 12 would warn of free() after what it sees as plain new.
[[gnu::noinline]] void Free(void* block) {
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

#ifndef FLASHELM_SANITIZED
// Not those of the C library itself, which calls another name.
extern "C" void* mmap(void* address, size_t size, int protection, int flags,
                      int fd, off_t offset) {
  if (IsToFail()) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  const long mapped =
      syscall(SYS_mmap, address, size, protection, flags, fd, offset);
  if (mapped == -1) return MAP_FAILED;
  mapped_bytes += static_cast<int64_t>((size + 4095) / 4096 * 4096);
  return reinterpret_cast<void*>(mapped);
}
extern "C" int munmap(void* address, size_t size) {
  mapped_bytes -= static_cast<int64_t>((size + 4095) / 4096 * 4096);
  return static_cast<int>(syscall(SYS_munmap, address, size));
}
#endif

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
    options_.memory_bytes = kMemoryBytes;
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
      if (code == FLASHELM_OK) {
        code = flashelm_set_budget(engine, kMemoryBytes + (1 << 20), &error);
      }
      if (code != FLASHELM_OK) ExpectGoesOn(session);
    }
    // No memory is needed to give it back.
    EXPECT_EQ(flashelm_session_close(session), FLASHELM_OK);
    EXPECT_EQ(flashelm_engine_close(engine), FLASHELM_OK);
    return session != nullptr && code == FLASHELM_OK ? text : "";
  }

  // A call that failed leaves nothing behind that the next one meets.
  void ExpectGoesOn(flashelm_session* session) const {
    const int64_t left = num_left.exchange(-1);
    uint32_t position = 0;
    flashelm_error error;
    EXPECT_EQ(flashelm_position(session, &position, &error), FLASHELM_OK);
    EXPECT_EQ(flashelm_generate(session, "Once upon", position == 0 ? 9 : 0,
                                &generate_, nullptr, &error),
              FLASHELM_OK)
        << error.message;
    num_left = left;
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
    const int64_t mapped = mapped_bytes;
    num_left = n;
    const std::string text = Cycle(error);
    const bool has_failed = num_left.exchange(-1) < 0;
    ASSERT_EQ(num_held, held) << "allocation " << n;
    ASSERT_EQ(mapped_bytes, mapped) << "allocation " << n;
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

TEST_P(AllocationFailureTest, DecodingAllocatesNothing) {
  flashelm_error error;
  flashelm_engine* const engine =
      flashelm_engine_open_source(&source_, &options_, &error);
  ASSERT_NE(engine, nullptr) << error.message;
  flashelm_session* const session = flashelm_session_open(engine, &error);
  ASSERT_NE(session, nullptr) << error.message;
  // The whole text is held back until its end.
  const char* const stop = ", there was a little girl named Lily. And no more";
  flashelm_generate_options generate = generate_;
  generate.max_tokens = 12;
  generate.stop_strings = &stop;
  generate.num_stop_strings = 1;
  int64_t left = 0;  // At the last token.
  generate.token_user = &left;
  generate.token = [](void* user, uint32_t, const char*, size_t text_bytes) {
    if (num_left < 0) num_left = INT64_MAX;
    if (text_bytes == 0) *static_cast<int64_t*>(user) = num_left;
    return 0;
  };
  EXPECT_EQ(flashelm_generate(session, "Once upon a time", 16, &generate,
                              nullptr, &error),
            FLASHELM_OK)
      << error.message;
  num_left = -1;
  EXPECT_EQ(INT64_MAX - left, 0);
  EXPECT_EQ(flashelm_session_close(session), FLASHELM_OK);
  EXPECT_EQ(flashelm_engine_close(engine), FLASHELM_OK);
}

// What is said of a call that is stopped is text, too.
TEST_P(AllocationFailureTest, NoMemoryToSayThatACallWasStopped) {
  struct Reader {
    std::FILE* file;
    std::mutex mutex;
    flashelm_session* session = nullptr;  // To be stopped by the next read.
    int num_reads = 0;                    // Before that.
  };
  for (int num_reads = 0; num_reads < 8; ++num_reads) {
    SCOPED_TRACE(num_reads);
    Reader reader{std::fopen(model_.path().c_str(), "rb"), {}};
    ASSERT_NE(reader.file, nullptr);
    flashelm_source source{};
    source.struct_size = sizeof(source);
    source.kind = FLASHELM_SOURCE_READ;
    source.size_bytes = std::filesystem::file_size(model_.path());
    source.user = &reader;
    source.read = [](void* user, uint64_t offset, void* target,
                     size_t num_bytes) {
      auto& from = *static_cast<Reader*>(user);
      std::lock_guard lock(from.mutex);
      if (from.session != nullptr && from.num_reads-- == 0) {
        num_left = 0;
        flashelm_cancel(std::exchange(from.session, nullptr));
      }
      std::fseek(from.file, static_cast<long>(offset), SEEK_SET);
      return static_cast<int64_t>(std::fread(target, 1, num_bytes, from.file));
    };
    flashelm_error error;
    flashelm_engine* const engine =
        flashelm_engine_open_source(&source, &options_, &error);
    ASSERT_NE(engine, nullptr) << error.message;
    flashelm_session* const session = flashelm_session_open(engine, &error);
    ASSERT_NE(session, nullptr) << error.message;
    {
      std::lock_guard lock(reader.mutex);
      reader.num_reads = num_reads;
      reader.session = session;
    }
    EXPECT_EQ(
        flashelm_generate(session, "Once upon", 9, &generate_, nullptr, &error),
        FLASHELM_RESOURCE_EXHAUSTED)
        << error.message;
    num_left = -1;
    flashelm_clear_cancel(session);
    ExpectGoesOn(session);
    EXPECT_EQ(flashelm_session_close(session), FLASHELM_OK);
    EXPECT_EQ(flashelm_engine_close(engine), FLASHELM_OK);
    std::fclose(reader.file);
  }
}

INSTANTIATE_TEST_SUITE_P(Readers, AllocationFailureTest,
                         testing::Values(FLASHELM_IO_AUTO, FLASHELM_IO_PREAD),
                         [](const auto& test) {
                           return std::string(test.param == FLASHELM_IO_AUTO
                                                  ? "Auto"
                                                  : "Pread");
                         });

}  // namespace
