#include "storage/scratch_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "storage/output_file.h"

namespace flashelm {

ScratchFile::ScratchFile(UniqueFd fd, std::string name, uint64_t size_bytes)
    : fd_(std::move(fd)), name_(std::move(name)), size_bytes_(size_bytes) {}

Result<ScratchFile> ScratchFile::Create(const std::string& beside,
                                        uint64_t num_bytes) {
  std::string path = beside + ".scratch.XXXXXX";
  UniqueFd fd(mkostemp(path.data(), O_CLOEXEC));
  if (!fd.is_open()) {
    const int error = errno;
    return ErrnoStatus(
        error,
        StatusMessage::Join("cannot make a temporary file beside ", beside));
  }
  unlink(path.c_str());
  ScratchFile file(std::move(fd), "the temporary file beside " + beside,
                   num_bytes);
  FLASHELM_RETURN_IF_ERROR(ReserveBytes(file.fd_.get(), num_bytes, file.name_));
  if (ftruncate(file.fd_.get(), static_cast<off_t>(num_bytes)) != 0) {
    const int error = errno;
    return ErrnoStatus(error, StatusMessage::Join("cannot make ", num_bytes,
                                                  " bytes of ", file.name_));
  }
  return file;
}

Status ScratchFile::WriteAt(uint64_t offset, std::span<const std::byte> bytes) {
  assert(offset <= size_bytes_ && bytes.size() <= size_bytes_ - offset);
  return WriteBytes(fd_.get(), offset, bytes, name_);
}

Status ScratchFile::ReadAt(uint64_t offset, std::span<std::byte> target) const {
  assert(offset <= size_bytes_ && target.size() <= size_bytes_ - offset);
  size_t done = 0;
  while (done < target.size()) {
    const ssize_t got =
        pread(fd_.get(), target.data() + done, target.size() - done,
              static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      return ReadFailed(name_, offset + done, target.size() - done,
                        got < 0 ? errno : EIO);
    }
    done += static_cast<size_t>(got);
  }
  return OkStatus();
}

Result<std::unique_ptr<RandomAccessFile>> ScratchFile::Open(
    CacheMode mode) const {
  if (fsync(fd_.get()) != 0) {
    const int error = errno;
    return ErrnoStatus(error, StatusMessage::Join("cannot write ", name_));
  }
  DropCachedPages(fd_.get());
  return OpenDescriptor(fd_.get(), 0, kToTheEnd, name_, mode);
}

}  // namespace flashelm
