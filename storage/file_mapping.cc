#include "storage/file_mapping.h"

#include <sys/mman.h>

#include <cerrno>
#include <utility>

namespace flashelm {

Result<FileMapping> FileMapping::Create(const RandomAccessFile& file) {
  if (file.fd() < 0) {
    return Unimplemented(file.path(), ": cannot be mapped into memory");
  }
  FileMapping mapping;
  void* data = mmap(nullptr, file.size_bytes(), PROT_READ, MAP_SHARED,
                    file.fd(), static_cast<off_t>(file.fd_offset()));
  if (data == MAP_FAILED) {
    const int error = errno;
    return ErrnoStatus(
        error, StatusMessage::Join(file.path(), ": cannot map ",
                                   file.size_bytes(), " bytes into memory"));
  }
  mapping.data_ = static_cast<const std::byte*>(data);
  mapping.size_ = file.size_bytes();
  return mapping;
}

FileMapping& FileMapping::operator=(FileMapping&& other) noexcept {
  if (this != &other) {
    Unmap();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

void FileMapping::Unmap() {
  if (data_ == nullptr) return;
  munmap(const_cast<std::byte*>(data_), size_);
  data_ = nullptr;
}

}  // namespace flashelm
