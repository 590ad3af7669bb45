// How io_uring is refused, and what becomes of reads then. The refusals are
// real: a child process forbids the calls to itself.
#include "storage/uring_reader.h"

#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/base/memory.h"
#include "core/base/types.h"
#include "storage/open_reader.h"
#include "tests/storage/memory_file.h"
#include "tests/storage/model_builder.h"
#include "tests/temp_directory.h"

namespace flashelm {
namespace {

using test::TempDirectory;

constexpr uint64_t kRingFileBytes = 16 * kIoAlignment;
constexpr std::chrono::seconds kLongest(60);
// What a child says that could not set the stage.
constexpr int kCannot = 77;

std::vector<std::byte> Bytes() {
  std::vector<std::byte> bytes(kRingFileBytes);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(i * 7 + i / 4096);
  }
  return bytes;
}

std::shared_ptr<const RandomAccessFile> Open(const std::string& path) {
  auto file = OpenFile(path, CacheMode::kDirect);
  return file ? std::move(*file) : nullptr;
}

ReaderOptions Options(IoBackend backend) {
  ReaderOptions options;
  options.backend = backend;
  options.depth = 2;
  return options;
}

// From here on, the system call gives this errno.
void Forbid(long call, int error) {
  const sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(call), 0, 1),
      BPF_STMT(BPF_RET | BPF_K,
               SECCOMP_RET_ERRNO | static_cast<uint32_t>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{static_cast<unsigned short>(std::size(code)),
                           const_cast<sock_filter*>(code)};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    std::perror("seccomp");
    std::_Exit(kCannot);
  }
}

// In a child: ends it with a message when something is not as it should be.
void Check(bool ok, const std::string& what) {
  if (ok) return;
  std::fprintf(stderr, "not so: %s\n", what.c_str());
  std::_Exit(1);
}

void CheckReads(AsyncReader& reader, std::span<std::byte> target) {
  const ReadRequest request{0, target, 4};
  Check(reader.Submit({&request, 1}).ok(), "a read starts");
  const auto completion = reader.Wait(kLongest);
  Check(completion.has_value() && completion->status.ok(), "it ends well");
  const std::vector<std::byte> expected = Bytes();
  Check(std::ranges::equal(target, std::span(expected).first(target.size())),
        "it gives the bytes of the file");
}

class UringReaderTest : public testing::Test {
 protected:
  void SetUp() override {
    // Starts the child afresh, so that it may have threads.
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    path_ = directory_.File("bytes");
    WriteAllBytes(path_, Bytes());
    const auto reader = UringReader::Create(Open(path_), 1);
    if (!reader) GTEST_SKIP() << reader.error().message();
  }

  const TempDirectory directory_;
  std::string path_;
};

// A child that refuses `call` to itself finds no io_uring, says so, and reads
// all the same.
void RunRefused(const std::string& path, long call, int error,
                const std::string& reason) {
  const auto file = Open(path);
  Forbid(call, error);
  const auto uring = OpenReader(file, Options(IoBackend::kUring));
  Check(!uring, "io_uring is refused");
  const std::string& message = uring.error().message();
  Check(uring.error().code() == StatusCode::kUnimplemented, message);
  for (const std::string& part : {path, std::string("io_uring"), reason}) {
    Check(message.find(part) != std::string::npos, message);
  }
  auto reader = OpenReader(file, Options(IoBackend::kAuto));
  Check(reader.has_value() && (*reader)->name() == "pread", "it falls back");
  MemoryBudget budget(UINT64_MAX);
  auto buffer = AlignedBuffer::Create(kRingFileBytes, budget, "test");
  CheckReads(**reader, buffer->bytes());
  std::_Exit(0);
}

TEST_F(UringReaderTest, IsReplacedByPreadWhereTheSystemRefusesIt) {
  EXPECT_EXIT(
      RunRefused(path_, __NR_io_uring_setup, EPERM, "Operation not permitted"),
      testing::ExitedWithCode(0), "");
  EXPECT_EXIT(RunRefused(path_, __NR_io_uring_setup, ENOSYS,
                         "Function not implemented"),
              testing::ExitedWithCode(0), "");
  EXPECT_EXIT(
      RunRefused(path_, __NR_io_uring_setup, ENOMEM, "Cannot allocate memory"),
      testing::ExitedWithCode(0), "");
  EXPECT_EXIT(
      RunRefused(path_, __NR_io_uring_enter, EPERM, "Operation not permitted"),
      testing::ExitedWithCode(0), "");
}

TEST_F(UringReaderTest, ReadsWithoutRegisteringWhereThatIsRefused) {
  const auto run = [&] {
    const auto file = Open(path_);
    Forbid(__NR_io_uring_register, EPERM);
    auto reader = OpenReader(file, Options(IoBackend::kUring));
    Check(reader.has_value(), "io_uring is there");
    MemoryBudget budget(UINT64_MAX);
    auto buffer = AlignedBuffer::Create(kRingFileBytes, budget, "test");
    (*reader)->RegisterBuffer(buffer->bytes());
    CheckReads(**reader, buffer->bytes());
    std::_Exit(0);
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}

TEST_F(UringReaderTest, ReadsWhereLittleMemoryMayBeLocked) {
  const auto run = [&] {
    const auto file = Open(path_);
    const rlimit limit{64 << 10, 64 << 10};
    Check(setrlimit(RLIMIT_MEMLOCK, &limit) == 0, "the limit is set");
    // The limit does not bind the superuser.
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) {
      std::_Exit(kCannot);
    }
    auto reader = OpenReader(file, Options(IoBackend::kAuto));
    Check(reader.has_value(), "there is a reader");
    MemoryBudget budget(UINT64_MAX);
    auto buffer = AlignedBuffer::Create(64 * kRingFileBytes, budget, "test");
    (*reader)->RegisterBuffer(buffer->bytes());
    CheckReads(**reader, buffer->bytes().first(kRingFileBytes));
    std::_Exit(0);
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}

// The ring goes dead under a reader: no read is left without an answer.
TEST_F(UringReaderTest, ReadsFailWhenTheKernelTakesNoMore) {
  const auto run = [&] {
    const auto file = Open(path_);
    auto reader = OpenReader(file, Options(IoBackend::kUring));
    Check(reader.has_value(), "io_uring is there");
    MemoryBudget budget(UINT64_MAX);
    auto buffer = AlignedBuffer::Create(kRingFileBytes, budget, "test");
    CheckReads(**reader, buffer->bytes());
    Forbid(__NR_io_uring_enter, EAGAIN);
    for (uint32_t tag = 0; tag < 2; ++tag) {
      const ReadRequest request{0, buffer->bytes(), tag};
      Check((*reader)->Submit({&request, 1}).ok(), "a read starts");
    }
    Check(!(*reader)->Wait(std::chrono::milliseconds(20)), "it takes a while");
    for (int i = 0; i < 2; ++i) {
      const auto completion = (*reader)->Wait(kLongest);
      Check(completion.has_value(), "it ends");
      Check(completion->status.code() == StatusCode::kUnavailable,
            completion->status.message());
      Check(completion->status.message().find(path_) != std::string::npos,
            completion->status.message());
    }
    Check((*reader)->num_in_flight() == 0, "none is left");
    const ReadRequest request{0, buffer->bytes(), 0};
    Check((*reader)->Submit({&request, 1}).code() == StatusCode::kUnavailable,
          "another one is refused");
    std::_Exit(0);
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}

// And it comes back when the kernel does.
TEST_F(UringReaderTest, ReadsAgainWhenTheKernelTakesRequestsAgain) {
  const auto run = [&] {
    const auto file = Open(path_);
    auto reader = OpenReader(file, Options(IoBackend::kUring));
    Check(reader.has_value(), "io_uring is there");
    MemoryBudget budget(UINT64_MAX);
    auto buffer = AlignedBuffer::Create(kRingFileBytes, budget, "test");
    (*reader)->RegisterBuffer(buffer->bytes());
    // What is forbidden is so for a thread.
    std::thread([&] {
      Forbid(__NR_io_uring_enter, EAGAIN);
      const ReadRequest request{0, buffer->bytes(), 0};
      Check((*reader)->Submit({&request, 1}).ok(), "a read starts");
      const auto completion = (*reader)->Wait(kLongest);
      Check(completion.has_value() && !completion->status.ok(), "it fails");
    }).join();
    CheckReads(**reader, buffer->bytes());
    std::_Exit(0);
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}

TEST(UringReaderCreateTest, RefusesFilesWithoutADescriptor) {
  const auto file = std::make_shared<MemoryFile>(ShareBytes(Bytes()));
  const auto reader = UringReader::Create(file, 1);
  ASSERT_FALSE(reader);
  EXPECT_EQ(reader.error().code(), StatusCode::kUnimplemented);
  const auto other = OpenReader(file, Options(IoBackend::kAuto));
  ASSERT_TRUE(other) << other.error().message();
  EXPECT_EQ((*other)->name(), "pread");
}

}  // namespace
}  // namespace flashelm
