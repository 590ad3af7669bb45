#include "storage/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/base/checked_math.h"
#include "core/base/types.h"

namespace flashelm {
namespace {

// Where the bytes of a file are in what a descriptor names.
struct Range {
  uint64_t offset = 0;
  uint64_t size_bytes = 0;
};

// Reads until `target` is full or the range ends; whole blocks stay whole, as a
// direct read that stops short is continued at an aligned offset or not at all.
// `target` may hold bytes from behind the range, which do not count.
Result<size_t> ReadFully(int fd, const Range& range, uint64_t offset,
                         std::span<std::byte> target, bool direct,
                         const std::string& path) {
  const uint64_t most = range.size_bytes - std::min(range.size_bytes, offset);
  size_t done = 0;
  while (done < target.size()) {
    const ssize_t got = pread(fd, target.data() + done, target.size() - done,
                              static_cast<off_t>(range.offset + offset + done));
    if (got < 0) {
      if (errno == EINTR) continue;
      return ReadFailed(path, offset, target.size(), errno);
    }
    if (got == 0) break;
    done += static_cast<size_t>(got);
    if (done >= most) return most;  // Behind it there may be something else.
    if (direct && done % kIoAlignment != 0) break;  // The file's end.
  }
  return done;
}

class PosixFile : public RandomAccessFile {
 public:
  PosixFile(UniqueFd fd, std::string path, const Range& range, bool direct_io,
            bool drop_cache)
      : fd_(std::move(fd)),
        path_(std::move(path)),
        range_(range),
        direct_io_(direct_io),
        drop_cache_(drop_cache) {}

  Result<size_t> ReadAt(uint64_t offset,
                        std::span<std::byte> target) const override {
    auto got = ReadFully(fd_.get(), range_, offset, target, direct_io_, path_);
    if (got) DropPages(offset, *got);
    return got;
  }
  uint64_t size_bytes() const override { return range_.size_bytes; }
  const std::string& path() const override { return path_; }
  bool direct_io() const override { return direct_io_; }
  int fd() const override { return fd_.get(); }
  uint64_t fd_offset() const override { return range_.offset; }
  void DropPages(uint64_t offset, uint64_t num_bytes) const override {
    // A length of 0 would mean all that follows.
    if (!drop_cache_ || num_bytes == 0) return;
    posix_fadvise(fd_.get(), static_cast<off_t>(range_.offset + offset),
                  static_cast<off_t>(num_bytes), POSIX_FADV_DONTNEED);
  }

 private:
  UniqueFd fd_;
  std::string path_;
  Range range_;
  bool direct_io_;
  bool drop_cache_;
};

// Memory for a direct read.
struct FreeDeleter {
  void operator()(std::byte* memory) const { std::free(memory); }
};
using AlignedBytes = std::unique_ptr<std::byte[], FreeDeleter>;
AlignedBytes AllocateAligned(size_t size) {
  return AlignedBytes(
      static_cast<std::byte*>(std::aligned_alloc(kIoAlignment, size)));
}

// Another descriptor of the same file with a state of its own. By descriptor,
// not by path: the name may lead to another file by now.
UniqueFd Reopen(int fd, int flags) {
  const std::string self = StatusMessage::Join("/proc/self/fd/", fd);
  return UniqueFd(open(self.c_str(), O_RDONLY | O_CLOEXEC | flags));
}

std::unique_ptr<RandomAccessFile> OpenRange(UniqueFd fd, std::string path,
                                            const Range& range, CacheMode mode,
                                            bool is_shared) {
  if (mode == CacheMode::kBuffered) {
    return std::make_unique<PosixFile>(std::move(fd), std::move(path), range,
                                       /*direct_io=*/false,
                                       /*drop_cache=*/false);
  }
#ifdef O_DIRECT
  if (mode == CacheMode::kDirect && range.offset % kIoAlignment == 0) {
    UniqueFd direct = Reopen(fd.get(), O_DIRECT);
    const auto read_by = [&range](int by, bool is_direct) -> ReadFunction {
      return [&range, by, is_direct](uint64_t offset,
                                     std::span<std::byte> target) {
        return ReadFully(by, range, offset, target, is_direct, std::string());
      };
    };
    if (direct.is_open() &&
        DirectReadsWork(read_by(direct.get(), true), read_by(fd.get(), false),
                        range.size_bytes)) {
      return std::make_unique<PosixFile>(std::move(direct), std::move(path),
                                         range, /*direct_io=*/true,
                                         /*drop_cache=*/false);
    }
  }
#endif
  // Reading ahead is the reader's business, and would bring pages in blocks
  // that can only be dropped whole. That of a shared descriptor is the caller's
  // business.
  if (!is_shared) posix_fadvise(fd.get(), 0, 0, POSIX_FADV_RANDOM);
  return std::make_unique<PosixFile>(std::move(fd), std::move(path), range,
                                     /*direct_io=*/false, /*drop_cache=*/true);
}

}  // namespace

UniqueFd::~UniqueFd() {
  if (fd_ >= 0) close(fd_);
}

UniqueFd::UniqueFd(UniqueFd&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)) {}

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

bool DirectReadsWork(const ReadFunction& direct, const ReadFunction& buffered,
                     uint64_t size_bytes) {
  // Several blocks at a time, as they go other ways than a single one.
  constexpr uint64_t kReadBytes = 8 * kIoAlignment;
  if (size_bytes < kIoAlignment) return false;
  const AlignedBytes a = AllocateAligned(kReadBytes);
  const AlignedBytes b = AllocateAligned(kReadBytes);
  if (a == nullptr || b == nullptr) return false;
  const uint64_t end = RoundUp(size_bytes, kIoAlignment);
  const uint64_t last = end - std::min(end, kReadBytes);
  for (const uint64_t offset :
       {uint64_t{0}, RoundDown(last / 2, kIoAlignment), last}) {
    const auto got_a = direct(offset, {a.get(), kReadBytes});
    const auto got_b = buffered(offset, {b.get(), kReadBytes});
    if (!got_a || !got_b || *got_a != *got_b ||
        *got_a != std::min(kReadBytes, size_bytes - offset) ||
        std::memcmp(a.get(), b.get(), *got_a) != 0) {
      return false;
    }
  }
  return true;
}

Result<std::unique_ptr<RandomAccessFile>> OpenFile(const std::string& path,
                                                   CacheMode mode) {
  // Without O_NONBLOCK, opening a pipe would wait for someone to write to it;
  // to a regular file it means nothing.
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.is_open()) {
    const int error = errno;
    if (error == ENXIO) {  // A socket.
      return InvalidArgument(path, ": not a regular file");
    }
    return ErrnoStatus(error, StatusMessage::Join("cannot open ", path));
  }
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) {
    const int error = errno;
    return ErrnoStatus(error, StatusMessage::Join("cannot examine ", path));
  }
  if (!S_ISREG(info.st_mode)) {
    return InvalidArgument(path, ": not a regular file");
  }
  // Some file systems take the flag seriously.
  fcntl(fd.get(), F_SETFL, 0);
  return OpenRange(std::move(fd), path,
                   {0, static_cast<uint64_t>(info.st_size)}, mode,
                   /*is_shared=*/false);
}

Result<std::unique_ptr<RandomAccessFile>> OpenDescriptor(int fd,
                                                         uint64_t offset,
                                                         uint64_t size_bytes,
                                                         std::string name,
                                                         CacheMode mode) {
  struct stat info {};
  if (fstat(fd, &info) != 0) {
    const int error = errno;
    return InvalidArgument(name, ": descriptor ", fd, " cannot be examined: ",
                           ErrnoStatus(error, "fstat").message());
  }
  if (!S_ISREG(info.st_mode)) {
    return InvalidArgument(name, ": descriptor ", fd, " is no regular file");
  }
  const uint64_t file_bytes = static_cast<uint64_t>(info.st_size);
  if (size_bytes == kToTheEnd && offset <= file_bytes) {
    size_bytes = file_bytes - offset;
  }
  if (offset > file_bytes || size_bytes > file_bytes - offset) {
    return InvalidArgument(name, ": ", size_bytes, " bytes from byte ", offset,
                           " of descriptor ", fd, ", which has ", file_bytes);
  }
  UniqueFd own = Reopen(fd, 0);
  // Where no file may be opened, the caller's is shared.
  const bool is_shared = !own.is_open();
  if (is_shared) own = UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  std::byte probe{};
  if (!own.is_open() || pread(own.get(), &probe, 1, 0) < 0) {
    const int error = errno;
    return InvalidArgument(name, ": descriptor ", fd, " cannot be read: ",
                           ErrnoStatus(error, "read").message());
  }
  return OpenRange(std::move(own), std::move(name), {offset, size_bytes}, mode,
                   is_shared);
}

void DropCachedPages(int fd) { posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); }

ErrorStatus ReadFailed(const std::string& path, uint64_t offset,
                       uint64_t num_bytes, int error) {
  return Unavailable(path, ": reading ", num_bytes, " bytes at byte ", offset,
                     " failed: ", ErrnoStatus(error, "read").message());
}

Status ReadExactly(const RandomAccessFile& file, uint64_t offset,
                   std::span<std::byte> target, std::string_view what) {
  FLASHELM_ASSIGN_OR_RETURN(const size_t got, file.ReadAt(offset, target));
  if (got != target.size()) {
    return DataLoss(file.path(), ": ", what, " at byte ", offset, " of ",
                    target.size(), " bytes, but the file ends after ", got,
                    " of them");
  }
  return OkStatus();
}

Result<std::string> ReadWholeFile(const std::string& path, uint64_t max_bytes) {
  FLASHELM_ASSIGN_OR_RETURN(auto file, OpenFile(path, CacheMode::kBuffered));
  if (file->size_bytes() > max_bytes) {
    return DataLoss(path, ": ", file->size_bytes(), " bytes, expected at most ",
                    max_bytes);
  }
  std::string text(file->size_bytes(), '\0');
  FLASHELM_RETURN_IF_ERROR(ReadExactly(
      *file, 0, std::as_writable_bytes(std::span(text)), "the whole file"));
  return text;
}

}  // namespace flashelm
