#include "storage/output_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/storage/model_builder.h"
#include "tests/storage/text_bytes.h"
#include "tests/temp_directory.h"

namespace flashelm {
namespace {

using test::TempDirectory;
using test::TextBytes;

std::string TextOf(const std::string& path) {
  return ReadWholeFile(path, 1u << 30).value();
}

// Names in the directory, temporary ones too.
size_t NumFiles(const TempDirectory& directory) {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator(directory.path())) {
    ++count;
  }
  return count;
}

TEST(OutputFileTest, AppearsWholeAtCommit) {
  const TempDirectory directory;
  const std::string path = directory.File("out");
  {
    auto file = OutputFile::Create(path, 0);
    ASSERT_TRUE(file) << file.error().message();
    EXPECT_TRUE(file->Append(TextBytes("hello ")).ok());
    EXPECT_TRUE(file->Append(TextBytes("world")).ok());
    EXPECT_EQ(file->size_bytes(), 11u);
    EXPECT_FALSE(std::filesystem::exists(path));
    EXPECT_TRUE(file->Commit().ok());
    EXPECT_EQ(NumFiles(directory), 1u);
  }
  EXPECT_EQ(TextOf(path), "hello world");
  EXPECT_EQ(NumFiles(directory), 1u);
}

TEST(OutputFileTest, LeavesNothingWithoutCommit) {
  const TempDirectory directory;
  {
    auto file = OutputFile::Create(directory.File("out"), 100000);
    ASSERT_TRUE(file);
    EXPECT_TRUE(file->Append(TextBytes("x")).ok());
    EXPECT_EQ(NumFiles(directory), 1u);
    const OutputFile moved = std::move(*file);
    EXPECT_EQ(NumFiles(directory), 1u);
  }
  EXPECT_EQ(NumFiles(directory), 0u);
}

TEST(OutputFileTest, KeepsWhatWasThereUntilCommit) {
  const TempDirectory directory;
  const std::string path = directory.File("out");
  WriteAllBytes(path, TextBytes("old"));
  for (const bool commit : {false, true}) {
    {
      auto file = OutputFile::Create(path, 0);
      ASSERT_TRUE(file);
      EXPECT_TRUE(file->Append(TextBytes("new")).ok());
      EXPECT_EQ(TextOf(path), "old");
      if (commit) {
        EXPECT_TRUE(file->Commit().ok());
      }
    }
    EXPECT_EQ(TextOf(path), commit ? "new" : "old");
    EXPECT_EQ(NumFiles(directory), 1u);
  }
}

TEST(OutputFileTest, CommitsAnEmptyFileAndGivesBackWhatWasReserved) {
  const TempDirectory directory;
  auto file = OutputFile::Create(directory.File("out"), 1u << 20);
  ASSERT_TRUE(file);
  EXPECT_TRUE(file->Commit().ok());
  EXPECT_EQ(std::filesystem::file_size(directory.File("out")), 0u);
}

TEST(OutputFileTest, AnyMixOfSizesGivesTheSameBytes) {
  const TempDirectory directory;
  const std::string path = directory.File("out");
  std::mt19937_64 random(9);
  std::string expected(6u << 20, '\0');
  for (char& c : expected) c = static_cast<char>(random());
  auto file = OutputFile::Create(path, expected.size());
  ASSERT_TRUE(file);
  constexpr size_t kBuffer = size_t{1} << 20;
  const size_t sizes[] = {0,           1,           kBuffer - 1, kBuffer,
                          kBuffer + 1, 2 * kBuffer, 100,         4096};
  for (size_t at = 0; at < expected.size();) {
    const size_t size =
        std::min(sizes[random() % std::size(sizes)], expected.size() - at);
    ASSERT_TRUE(file->Append(TextBytes(expected).subspan(at, size)).ok());
    at += size;
    ASSERT_EQ(file->size_bytes(), at);
    if (at > 100 && random() % 3 == 0) {
      // Also over what is still in the buffer.
      const size_t place = random() % (at - 10);
      expected.replace(place, 10, "0123456789");
      ASSERT_TRUE(file->WriteAt(place, TextBytes("0123456789")).ok());
      ASSERT_EQ(file->size_bytes(), at);
    }
  }
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(TextOf(path), expected);
}

TEST(OutputFileTest, RefusesPlacesWhereNoFileCanBe) {
  const TempDirectory directory;
  const auto code = [](const std::string& path) {
    const auto file = OutputFile::Create(path, 0);
    return file ? StatusCode::kOk : file.error().code();
  };
  EXPECT_EQ(code(directory.File("none/out")), StatusCode::kNotFound);
  EXPECT_EQ(code(directory.path()), StatusCode::kInvalidArgument);
  EXPECT_EQ(code("/dev/null"), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(""), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(directory.File(std::string(300, 'x'))),
            StatusCode::kInvalidArgument);
  WriteAllBytes(directory.File("file"), TextBytes("x"));
  EXPECT_EQ(code(directory.File("file/out")), StatusCode::kNotFound);
  EXPECT_EQ(NumFiles(directory), 1u);
}

TEST(OutputFileTest, AFailedRenameIsToldAndCleanedUp) {
  const TempDirectory directory;
  const std::string path = directory.File("out");
  {
    auto file = OutputFile::Create(path, 0);
    ASSERT_TRUE(file);
    // Since then, a directory has come to stand there.
    std::filesystem::create_directory(path);
    const Status status = file->Commit();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(path), std::string::npos);
  }
  EXPECT_EQ(NumFiles(directory), 1u);
}

// Two at a time, and what a killed process of the same id left behind.
TEST(OutputFileTest, TemporaryNamesStayOutOfEachOthersWay) {
  const TempDirectory directory;
  const std::string path = directory.File("out");
  WriteAllBytes(StatusMessage::Join(path, ".", getpid(), ".0.tmp"),
                TextBytes("left"));
  auto first = OutputFile::Create(path, 0);
  ASSERT_TRUE(first) << first.error().message();
  auto second = OutputFile::Create(path, 0);
  ASSERT_TRUE(second) << second.error().message();
  EXPECT_TRUE(first->Append(TextBytes("first")).ok());
  EXPECT_TRUE(second->Append(TextBytes("second")).ok());
  EXPECT_TRUE(second->Commit().ok());
  EXPECT_TRUE(first->Commit().ok());
  EXPECT_EQ(TextOf(path), "first");
  EXPECT_EQ(NumFiles(directory), 2u);  // And the one left behind.
}

// Runs `body` in a child that may write files of `limit` bytes at most, which
// is a full disk as far as the child can tell. Returns what `body` returned.
int RunWithFileLimit(rlim_t limit, const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limits = {limit, limit};
    if (setrlimit(RLIMIT_FSIZE, &limits) != 0) _exit(100);
    _exit(body());
  }
  int result = 0;
  if (child < 0 || waitpid(child, &result, 0) != child) return 101;
  return WIFEXITED(result) ? WEXITSTATUS(result) : 102;
}

TEST(OutputFileTest, AFullDiskIsKnownBeforeTheWorkWhereTheSizeIs) {
  const TempDirectory directory;
  const std::string path = directory.File("out");
  EXPECT_EQ(RunWithFileLimit(
                1u << 20,
                [&] {
                  const auto file = OutputFile::Create(path, 4u << 20);
                  if (file) return 1;
                  return file.error().code() == StatusCode::kResourceExhausted
                             ? 0
                             : 2;
                }),
            0);
  EXPECT_EQ(NumFiles(directory), 0u);
}

TEST(OutputFileTest, AFullDiskEndsTheWorkAndLeavesNothing) {
  const TempDirectory directory;
  const std::string path = directory.File("out");
  WriteAllBytes(path, TextBytes("old"));
  for (const bool large : {false, true}) {
    EXPECT_EQ(
        RunWithFileLimit(
            3u << 20,
            [&] {
              auto file = OutputFile::Create(path, 0);
              if (!file) return 1;
              const std::vector<std::byte> bytes(large ? 2u << 20 : 300u << 10);
              Status status;
              for (int i = 0; i < 20 && status.ok(); ++i) {
                status = file->Append(bytes);
              }
              if (status.code() != StatusCode::kResourceExhausted) {
                return 2;
              }
              // It does not fit later, either.
              if (file->Append(std::vector<std::byte>(2u << 20)).ok()) {
                return 3;
              }
              return 0;
            }),
        0);
    EXPECT_EQ(TextOf(path), "old");
    EXPECT_EQ(NumFiles(directory), 1u);
  }
}

}  // namespace
}  // namespace flashelm
