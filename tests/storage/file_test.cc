#include "storage/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/base/memory.h"
#include "core/base/types.h"
#include "tests/storage/memory_file.h"
#include "tests/storage/model_builder.h"
#include "tests/temp_directory.h"

namespace flashelm {
namespace {

using test::TempDirectory;

std::vector<std::byte> RandomBytes(size_t size) {
  std::mt19937_64 random(8);
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

void ExpectFails(const std::string& path, StatusCode code) {
  for (const CacheMode mode :
       {CacheMode::kBuffered, CacheMode::kDropped, CacheMode::kDirect}) {
    const auto file = OpenFile(path, mode);
    ASSERT_FALSE(file);
    EXPECT_EQ(file.error().code(), code) << file.error().message();
    EXPECT_NE(file.error().message().find(path), std::string::npos);
  }
}

TEST(OpenFileTest, RefusesWhatIsNoRegularFileWithoutWaiting) {
  const TempDirectory directory;
  ExpectFails(directory.File("none"), StatusCode::kNotFound);
  ExpectFails(directory.File("none/below"), StatusCode::kNotFound);
  ExpectFails("", StatusCode::kNotFound);
  ExpectFails(directory.path(), StatusCode::kInvalidArgument);
  ExpectFails("/dev/null", StatusCode::kInvalidArgument);

  const std::string pipe = directory.File("pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  ExpectFails(pipe, StatusCode::kInvalidArgument);

  const std::string name = directory.File("socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (name.size() < sizeof(address.sun_path)) {
    std::memcpy(address.sun_path, name.c_str(), name.size());
    const UniqueFd fd(socket(AF_UNIX, SOCK_STREAM, 0));
    ASSERT_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address),
                   sizeof(address)),
              0);
    ExpectFails(name, StatusCode::kInvalidArgument);
  }

  const std::string a_file = directory.File("file");
  WriteAllBytes(a_file, RandomBytes(10));
  ExpectFails(a_file + "/below", StatusCode::kNotFound);
}

TEST(OpenFileTest, GivesTheSameBytesInBothModesOnEveryFileSystem) {
  std::vector<std::string> parents = {testing::TempDir()};
  // Memory: some kernels refuse direct reads there, some give them.
  if (access("/dev/shm", W_OK) == 0) parents.push_back("/dev/shm");
  for (const std::string& parent : parents) {
    const TempDirectory directory(parent);
    for (const size_t size : {size_t{0}, size_t{1}, size_t{4095}, size_t{4096},
                              size_t{4097}, size_t{50000}}) {
      const std::vector<std::byte> bytes = RandomBytes(size);
      const std::string path = directory.File("bytes");
      WriteAllBytes(path, bytes);
      for (const CacheMode mode :
           {CacheMode::kBuffered, CacheMode::kDropped, CacheMode::kDirect}) {
        const auto file = OpenFile(path, mode);
        ASSERT_TRUE(file) << file.error().message();
        EXPECT_EQ((*file)->size_bytes(), size);
        EXPECT_EQ((*file)->path(), path);
        if (mode != CacheMode::kDirect) {
          EXPECT_FALSE((*file)->direct_io());
        }
        MemoryBudget budget(UINT64_MAX);
        const auto buffer =
            AlignedBuffer::Create(16 * kIoAlignment, budget, "test");
        ASSERT_TRUE(buffer);
        const auto got = (*file)->ReadAt(0, buffer->bytes());
        ASSERT_TRUE(got) << got.error().message();
        ASSERT_EQ(*got, size);
        EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), buffer->data()));
        const auto past = (*file)->ReadAt(64 * kIoAlignment, buffer->bytes());
        ASSERT_TRUE(past);
        EXPECT_EQ(*past, 0u);
      }
    }
  }
}

// What a file system may do to direct reads.
TEST(DirectReadsWorkTest, NoticesWhatDiffersAnywhere) {
  for (const size_t size : {size_t{4096}, size_t{4097}, size_t{40000},
                            size_t{1} << 20, (size_t{1} << 20) + 5}) {
    SCOPED_TRACE(size);
    const std::vector<std::byte> bytes = RandomBytes(size);
    const auto reads = [](const std::vector<std::byte>& from) {
      return [&from](uint64_t offset, std::span<std::byte> target) {
        return MemoryFile(ShareBytes(from)).ReadAt(offset, target);
      };
    };
    EXPECT_TRUE(DirectReadsWork(reads(bytes), reads(bytes), size));
    for (const size_t damage : {size_t{0}, size - 1}) {
      std::vector<std::byte> other = bytes;
      other[damage] ^= std::byte{1};
      EXPECT_FALSE(DirectReadsWork(reads(other), reads(bytes), size));
    }
    // The file's last bytes are missing, or its last page is full.
    std::vector<std::byte> other = bytes;
    other.pop_back();
    EXPECT_FALSE(DirectReadsWork(reads(other), reads(bytes), size));
    other = bytes;
    if (size % 4096 != 0) {
      other.resize(size + 4096);
      EXPECT_FALSE(DirectReadsWork(reads(other), reads(bytes), size));
    }
    // Single pages work, larger reads are refused.
    const auto refuses = [&](uint64_t offset,
                             std::span<std::byte> target) -> Result<size_t> {
      if (target.size() > 4096) return Unavailable("refused");
      return reads(bytes)(offset, target);
    };
    EXPECT_FALSE(DirectReadsWork(refuses, reads(bytes), size));
  }
  const std::vector<std::byte> bytes = RandomBytes(100);
  const auto never = [](uint64_t, std::span<std::byte>) -> Result<size_t> {
    ADD_FAILURE() << "no page to compare";
    return size_t{0};
  };
  EXPECT_FALSE(DirectReadsWork(never, never, 100));
}

TEST(OpenFileTest, ReadsGoOnAfterTheNameIsGone) {
  const TempDirectory directory;
  const std::string path = directory.File("bytes");
  const std::vector<std::byte> bytes = RandomBytes(8192);
  WriteAllBytes(path, bytes);
  const auto file = OpenFile(path, CacheMode::kDirect);
  ASSERT_TRUE(file);
  std::filesystem::remove(path);
  alignas(kIoAlignment) static std::byte target[8192];
  EXPECT_TRUE(ReadExactly(**file, 0, target, "all").ok());
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), target));
}

// What is opened by descriptor.
class OpenDescriptorTest : public testing::Test {
 protected:
  OpenDescriptorTest()
      : bytes_(RandomBytes(60000)), path_(directory_.File("package")) {
    WriteAllBytes(path_, bytes_);
    fd_ = UniqueFd(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  }
  Result<std::unique_ptr<RandomAccessFile>> Open(uint64_t offset,
                                                 uint64_t size_bytes,
                                                 CacheMode mode) const {
    return OpenDescriptor(fd_.get(), offset, size_bytes, "packed", mode);
  }

  const TempDirectory directory_;
  const std::vector<std::byte> bytes_;
  const std::string path_;
  UniqueFd fd_;
};

TEST_F(OpenDescriptorTest, APartOfAFileIsAFileOfItsOwn) {
  for (const uint64_t offset : {0, 1, 4096, 30000}) {
    for (const uint64_t size : {0, 1, 4096, 8192, 30000}) {
      for (const CacheMode mode :
           {CacheMode::kBuffered, CacheMode::kDropped, CacheMode::kDirect}) {
        SCOPED_TRACE(testing::Message() << size << " from " << offset);
        const auto file = Open(offset, size, mode);
        ASSERT_TRUE(file) << file.error().message();
        EXPECT_EQ((*file)->size_bytes(), size);
        EXPECT_EQ((*file)->fd_offset(), offset);
        EXPECT_EQ((*file)->path(), "packed");
        MemoryBudget budget(UINT64_MAX);
        const auto buffer =
            AlignedBuffer::Create(16 * kIoAlignment, budget, "test");
        ASSERT_TRUE(buffer);
        // Not a byte of what lies behind it.
        const auto got = (*file)->ReadAt(0, buffer->bytes());
        ASSERT_TRUE(got) << got.error().message();
        ASSERT_EQ(*got, size);
        EXPECT_TRUE(
            std::equal(buffer->data(), buffer->data() + size,
                       bytes_.begin() + static_cast<ptrdiff_t>(offset)));
        const auto past = (*file)->ReadAt(8 * kIoAlignment, buffer->bytes());
        ASSERT_TRUE(past);
        EXPECT_EQ(*past, 0u);
      }
    }
  }
}

TEST_F(OpenDescriptorTest, TheDescriptorStaysTheCallers) {
  ASSERT_EQ(lseek(fd_.get(), 17, SEEK_SET), 17);
  const auto file = Open(4096, 8192, CacheMode::kDropped);
  ASSERT_TRUE(file);
  std::vector<std::byte> got(8192);
  ASSERT_TRUE((*file)->ReadAt(0, got));
  EXPECT_EQ(lseek(fd_.get(), 0, SEEK_CUR), 17);
  const auto rest = Open(4096, kToTheEnd, CacheMode::kDropped);
  ASSERT_TRUE(rest);
  EXPECT_EQ((*rest)->size_bytes(), 60000u - 4096);
  fd_ = UniqueFd();
  std::filesystem::remove(path_);
  EXPECT_EQ(*(*file)->ReadAt(0, got), 8192u);
  EXPECT_TRUE(std::equal(got.begin(), got.end(), bytes_.begin() + 4096));
}

TEST_F(OpenDescriptorTest, RefusesWhatIsNoPartOfAReadableFile) {
  const auto expect_refused = [](int fd, uint64_t offset, uint64_t size) {
    const auto file = OpenDescriptor(fd, offset, size, "x", CacheMode::kDirect);
    ASSERT_FALSE(file);
    EXPECT_EQ(file.error().code(), StatusCode::kInvalidArgument);
  };
  expect_refused(-1, 0, 1);
  expect_refused(fd_.get(), 0, 60001);
  expect_refused(fd_.get(), 60001, 0);
  expect_refused(fd_.get(), UINT64_MAX, 2);
  expect_refused(fd_.get(), 2, UINT64_MAX - 1);
  expect_refused(fd_.get(), 60001, kToTheEnd);
  int ends[2] = {-1, -1};
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  expect_refused(ends[0], 0, 0);
  close(ends[0]);
  close(ends[1]);
}

TEST(UniqueFdTest, ClosesOnceAndMoves) {
  const int raw = open("/dev/null", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(raw, 0);
  {
    UniqueFd a(raw);
    UniqueFd b(std::move(a));
    EXPECT_FALSE(a.is_open());
    UniqueFd c;
    EXPECT_FALSE(c.is_open());
    c = std::move(b);
    EXPECT_EQ(c.get(), raw);
    EXPECT_NE(fcntl(raw, F_GETFD), -1);
  }
  EXPECT_EQ(fcntl(raw, F_GETFD), -1);
}

TEST(ReadExactlyTest, SaysWhatIsMissing) {
  const MemoryFile file(ShareBytes(RandomBytes(100)), "m");
  std::vector<std::byte> target(60);
  EXPECT_TRUE(ReadExactly(file, 40, target, "things").ok());
  const Status status = ReadExactly(file, 41, target, "things");
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  for (const char* part : {"m: things", "byte 41", "60 bytes", "after 59"}) {
    EXPECT_NE(status.message().find(part), std::string::npos)
        << status.message();
  }
  EXPECT_TRUE(ReadExactly(file, 1000, {}, "nothing").ok());
}

TEST(ReadWholeFileTest, KeepsToItsLimit) {
  const TempDirectory directory;
  const std::string path = directory.File("text");
  WriteAllBytes(path, std::as_bytes(std::span("hello", 5)));
  EXPECT_EQ(ReadWholeFile(path, 5).value(), "hello");
  const auto refused = ReadWholeFile(path, 4);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), StatusCode::kDataLoss);
  EXPECT_EQ(ReadWholeFile(directory.File("none"), 4).error().code(),
            StatusCode::kNotFound);
  WriteAllBytes(path, {});
  EXPECT_EQ(ReadWholeFile(path, 0).value(), "");
}

}  // namespace
}  // namespace flashelm
