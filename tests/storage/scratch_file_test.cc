#include "storage/scratch_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <vector>

#include "tests/temp_directory.h"

namespace flashelm {
namespace {

using test::TempDirectory;

bool IsEmpty(const TempDirectory& directory) {
  return std::filesystem::is_empty(directory.path());
}

TEST(ScratchFileTest, GivesBackWhatWasWrittenAndHasNoName) {
  const TempDirectory directory;
  auto file = ScratchFile::Create(directory.File("out"), 1000);
  ASSERT_TRUE(file) << file.error().message();
  EXPECT_TRUE(IsEmpty(directory));
  const std::vector<std::byte> bytes(10, std::byte{7});
  EXPECT_TRUE(file->WriteAt(500, bytes).ok());
  std::vector<std::byte> found(1000, std::byte{1});
  EXPECT_TRUE(file->ReadAt(0, found).ok());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i], i >= 500 && i < 510 ? std::byte{7} : std::byte{0});
  }
}

TEST(ScratchFileTest, CanBeReadAsAFileThatOutlivesIt) {
  const TempDirectory directory;
  std::unique_ptr<RandomAccessFile> reading;
  const std::vector<std::byte> bytes(8192, std::byte{9});
  {
    auto file = ScratchFile::Create(directory.File("out"), bytes.size());
    ASSERT_TRUE(file) << file.error().message();
    ASSERT_TRUE(file->WriteAt(0, bytes).ok());
    auto opened = file->Open(CacheMode::kDropped);
    ASSERT_TRUE(opened) << opened.error().message();
    reading = std::move(*opened);
  }
  std::vector<std::byte> found(bytes.size());
  EXPECT_EQ(reading->size_bytes(), bytes.size());
  EXPECT_TRUE(ReadExactly(*reading, 0, found, "all").ok());
  EXPECT_EQ(found, bytes);
  EXPECT_TRUE(IsEmpty(directory));
}

TEST(ScratchFileTest, RefusesAPlaceWhereNoFileCanBe) {
  const TempDirectory directory;
  const auto file = ScratchFile::Create(directory.File("none/out"), 10);
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code(), StatusCode::kNotFound);
  EXPECT_NE(file.error().message().find(directory.File("none/out")),
            std::string::npos);
}

// A limit of files is a full disk as far as the process can tell.
TEST(ScratchFileTest, AFullDiskIsKnownBeforeTheWork) {
  const TempDirectory directory;
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limits = {1 << 20, 1 << 20};
    if (setrlimit(RLIMIT_FSIZE, &limits) != 0) _exit(100);
    const auto file = ScratchFile::Create(directory.File("out"), 2 << 20);
    _exit(file ? 1 : static_cast<int>(file.error().code()));
  }
  int result = 0;
  ASSERT_EQ(waitpid(child, &result, 0), child);
  ASSERT_TRUE(WIFEXITED(result));
  EXPECT_EQ(WEXITSTATUS(result),
            static_cast<int>(StatusCode::kResourceExhausted));
  EXPECT_TRUE(IsEmpty(directory));
}

// As where room could not be reserved.
TEST(ScratchFileTest, AFailedWriteIsTold) {
  const TempDirectory directory;
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    auto file = ScratchFile::Create(directory.File("out"), 2 << 20);
    const rlimit limits = {1 << 20, 1 << 20};
    if (!file || setrlimit(RLIMIT_FSIZE, &limits) != 0) _exit(100);
    const std::vector<std::byte> bytes(2 << 20);
    _exit(static_cast<int>(file->WriteAt(0, bytes).code()));
  }
  int result = 0;
  ASSERT_EQ(waitpid(child, &result, 0), child);
  ASSERT_TRUE(WIFEXITED(result));
  EXPECT_EQ(WEXITSTATUS(result),
            static_cast<int>(StatusCode::kResourceExhausted));
}

}  // namespace
}  // namespace flashelm
