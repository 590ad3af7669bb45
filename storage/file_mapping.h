// A whole file mapped into memory.
#ifndef FLASHELM_STORAGE_FILE_MAPPING_H_
#define FLASHELM_STORAGE_FILE_MAPPING_H_

#include <cstddef>

#include "core/base/status.h"
#include "storage/file.h"

namespace flashelm {

// Owns a read-only mapping, which outlives the file it was made of. Pages come
// when they are touched and go when the system wants them back, so no budget
// counts them; where the file is cut short, or the device fails, touching one
// ends the process with SIGBUS. Move-only.
class FileMapping {
 public:
  // kUnimplemented: a file without a descriptor. kResourceExhausted: no room
  // in the address space.
  static Result<FileMapping> Create(const RandomAccessFile& file);

  FileMapping() = default;
  ~FileMapping() { Unmap(); }
  FileMapping(FileMapping&& other) noexcept { *this = std::move(other); }
  FileMapping& operator=(FileMapping&& other) noexcept;

  const std::byte* data() const { return data_; }

 private:
  void Unmap();

  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_FILE_MAPPING_H_
