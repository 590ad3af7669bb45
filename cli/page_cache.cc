#include "cli/page_cache.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace flashelm::cli {
namespace {

// Looked at or read at a time: memory of this process is that of every row's,
// since rows are its children.
constexpr uint64_t kPiecePages = 16384;
constexpr size_t kReadBytes = 32768;

class Descriptor {
 public:
  explicit Descriptor(const std::string& path)
      : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)), error_(errno) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  Status Check(const std::string& path) const {
    return fd_ >= 0 ? OkStatus() : ErrnoStatus(error_, "cannot open " + path);
  }

 private:
  const int fd_;
  const int error_;
};

// 5.2 and later answer "cached" for every page to those who may not know.
bool MayKnow(int fd, const std::string& path) {
  struct stat info {};
  if (fstat(fd, &info) != 0) return false;
  return info.st_uid == geteuid() || geteuid() == 0 ||
         access(path.c_str(), W_OK) == 0;
}

}  // namespace

std::optional<uint64_t> CachedBytes(const std::string& path) {
  const Descriptor file(path);
  struct stat info {};
  if (file.get() < 0 || fstat(file.get(), &info) != 0 ||
      !MayKnow(file.get(), path)) {
    return std::nullopt;
  }
  const auto page_bytes = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const auto file_bytes = static_cast<uint64_t>(info.st_size);
  const uint64_t piece_bytes = kPiecePages * page_bytes;
  uint64_t cached = 0;
  for (uint64_t at = 0; at < file_bytes; at += piece_bytes) {
    const uint64_t num_bytes = std::min(piece_bytes, file_bytes - at);
    void* const piece = mmap(nullptr, num_bytes, PROT_READ, MAP_SHARED,
                             file.get(), static_cast<off_t>(at));
    if (piece == MAP_FAILED) return std::nullopt;
    std::array<unsigned char, kPiecePages> pages;
    const int result = mincore(piece, num_bytes, pages.data());
    munmap(piece, num_bytes);
    if (result != 0) return std::nullopt;
    const uint64_t num_pages = (num_bytes + page_bytes - 1) / page_bytes;
    for (uint64_t i = 0; i < num_pages; ++i) cached += pages[i] & 1;
  }
  return cached * page_bytes;
}

std::optional<uint64_t> FileBytes(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return std::nullopt;
  return static_cast<uint64_t>(info.st_size);
}

Status DropPageCache(const std::string& path) {
  const Descriptor file(path);
  FLASHELM_RETURN_IF_ERROR(file.Check(path));
  // Best effort: what cannot be written stays, which the caller sees.
  fdatasync(file.get());
  const int error = posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
  return error == 0
             ? OkStatus()
             : ErrnoStatus(error, "cannot drop " + path + " from the cache");
}

Status FillPageCache(const std::string& path, const CancelToken& cancel) {
  const Descriptor file(path);
  FLASHELM_RETURN_IF_ERROR(file.Check(path));
  posix_fadvise(file.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  std::array<char, kReadBytes> buffer;
  while (!cancel.IsCancelled()) {
    const ssize_t got = read(file.get(), buffer.data(), buffer.size());
    if (got == 0) return OkStatus();
    const int error = errno;
    if (got < 0 && error != EINTR) {
      return ErrnoStatus(error, "cannot read " + path);
    }
  }
  return Cancelled("interrupted");
}

}  // namespace flashelm::cli
