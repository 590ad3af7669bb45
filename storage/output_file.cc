#include "storage/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

namespace flashelm {
namespace {

constexpr mode_t kMode = 0644;
constexpr int kMaxAttempts = 100;

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

Status CheckOutputPath(const std::string& path,
                       const std::vector<std::string>& inputs) {
  if (path.empty()) return InvalidArgument("a file to write needs a name");
  struct stat out {};
  if (stat(path.c_str(), &out) == 0) {
    if (!S_ISREG(out.st_mode)) {
      return InvalidArgument(path,
                             ": exists and is not a regular file, expected one "
                             "to replace or none");
    }
    for (const std::string& input : inputs) {
      struct stat in {};
      if (stat(input.c_str(), &in) == 0 && in.st_dev == out.st_dev &&
          in.st_ino == out.st_ino) {
        return InvalidArgument(path, ": is ", input,
                               ", which is read; choose another name");
      }
    }
  }
  const std::string directory = DirectoryOf(path);
  struct stat info {};
  if (stat(directory.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return NotFound("cannot write ", path, ": no directory ", directory);
  }
  if (access(directory.c_str(), W_OK | X_OK) != 0) {
    const int error = errno;
    return ErrnoStatus(error, StatusMessage::Join("cannot write ", path));
  }
  return OkStatus();
}

Status ReserveBytes([[maybe_unused]] int fd, uint64_t num_bytes,
                    std::string_view name) {
  if (num_bytes == 0) return OkStatus();
#ifdef __linux__
  if (fallocate(fd, 0, 0, static_cast<off_t>(num_bytes)) != 0 &&
      (errno == ENOSPC || errno == EFBIG || errno == EDQUOT)) {
    const int error = errno;
    return ErrnoStatus(error, StatusMessage::Join("cannot reserve ", num_bytes,
                                                  " bytes for ", name));
  }
#endif
  return OkStatus();
}

Status WriteBytes(int fd, uint64_t offset, std::span<const std::byte> bytes,
                  std::string_view name) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t wrote = pwrite(fd, bytes.data() + done, bytes.size() - done,
                                 static_cast<off_t>(offset + done));
    if (wrote < 0) {
      if (errno == EINTR) continue;
      const int error = errno;
      return ErrnoStatus(
          error, StatusMessage::Join("cannot write ", bytes.size(),
                                     " bytes at byte ", offset, " of ", name));
    }
    done += static_cast<size_t>(wrote);
  }
  return OkStatus();
}

OutputFile::OutputFile(UniqueFd fd, std::string path,
                       std::string temporary_path)
    : fd_(std::move(fd)),
      path_(std::move(path)),
      temporary_path_(std::move(temporary_path)) {
  buffer_.reserve(kBufferBytes);
}

Result<OutputFile> OutputFile::Create(const std::string& path,
                                      uint64_t expected_bytes) {
  if (path.empty()) return InvalidArgument("a file to write needs a name");
  struct stat info {};
  if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    return InvalidArgument(path, ": exists and is not a regular file");
  }
  // The process id keeps two writers of one path apart. In a container it is
  // the same at every start, so what a killed writer left may be in the way.
  std::string temporary;
  UniqueFd fd;
  int error = EEXIST;
  for (int attempt = 0; error == EEXIST && attempt < kMaxAttempts; ++attempt) {
    temporary = StatusMessage::Join(path, ".", getpid(), ".", attempt, ".tmp");
    fd = UniqueFd(open(temporary.c_str(),
                       O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kMode));
    error = fd.is_open() ? 0 : errno;
  }
  if (!fd.is_open()) {
    return ErrnoStatus(error, StatusMessage::Join("cannot write ", temporary));
  }
  OutputFile file(std::move(fd), path, std::move(temporary));
  FLASHELM_RETURN_IF_ERROR(ReserveBytes(file.fd_.get(), expected_bytes, path));
  return file;
}

OutputFile::~OutputFile() {
  if (fd_.is_open() && !temporary_path_.empty()) {
    unlink(temporary_path_.c_str());
  }
}

Status OutputFile::Append(std::span<const std::byte> bytes) {
  if (buffer_.size() + bytes.size() > kBufferBytes) {
    FLASHELM_RETURN_IF_ERROR(Flush());
  }
  if (bytes.size() >= kBufferBytes) {
    FLASHELM_RETURN_IF_ERROR(
        WriteBytes(fd_.get(), flushed_bytes_, bytes, path_));
    flushed_bytes_ += bytes.size();
    return OkStatus();
  }
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  return OkStatus();
}

Status OutputFile::WriteAt(uint64_t offset, std::span<const std::byte> bytes) {
  FLASHELM_RETURN_IF_ERROR(Flush());
  return WriteBytes(fd_.get(), offset, bytes, path_);
}

Status OutputFile::Flush() {
  FLASHELM_RETURN_IF_ERROR(
      WriteBytes(fd_.get(), flushed_bytes_, buffer_, path_));
  flushed_bytes_ += buffer_.size();
  buffer_.clear();
  return OkStatus();
}

Status OutputFile::Commit() {
  FLASHELM_RETURN_IF_ERROR(Flush());
  // Reserved bytes that were not written are given back.
  if (ftruncate(fd_.get(), static_cast<off_t>(flushed_bytes_)) != 0 ||
      fsync(fd_.get()) != 0) {
    const int error = errno;
    return ErrnoStatus(error, StatusMessage::Join("cannot sync ", path_));
  }
  if (std::rename(temporary_path_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    return ErrnoStatus(
        error,
        StatusMessage::Join("cannot rename ", temporary_path_, " to ", path_));
  }
  temporary_path_.clear();
  // The new name lasts only once its directory is on disk, too.
  const std::string directory = DirectoryOf(path_);
  UniqueFd fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.is_open() || fsync(fd.get()) != 0) {
    const int error = errno;
    if (error != EINVAL) {
      return ErrnoStatus(error, StatusMessage::Join("cannot sync ", directory));
    }
  }
  return OkStatus();
}

}  // namespace flashelm
