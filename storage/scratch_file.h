// Room on a disk for what is too large for RAM.
#ifndef FLASHELM_STORAGE_SCRATCH_FILE_H_
#define FLASHELM_STORAGE_SCRATCH_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/base/status.h"
#include "storage/file.h"

namespace flashelm {

// A file of fixed size without a name, so that it is gone with its descriptor,
// however the process ends. Zeros where nothing was written. Move-only; reads
// and writes of different bytes may overlap in time.
class ScratchFile {
 public:
  // In the directory of `beside`, whose name messages have. The room is
  // reserved at once where the file system can, so that a full disk is known
  // before the work. kNotFound: no such directory. kResourceExhausted: no room.
  static Result<ScratchFile> Create(const std::string& beside,
                                    uint64_t num_bytes);

  // kResourceExhausted: the disk is full.
  Status WriteAt(uint64_t offset, std::span<const std::byte> bytes);
  // Fills all of `target`. kUnavailable: the device failed.
  Status ReadAt(uint64_t offset, std::span<std::byte> target) const;

  // The same bytes as a file to read, which stays when this goes. What was
  // written is on the device then. kUnavailable: writing failed late.
  Result<std::unique_ptr<RandomAccessFile>> Open(CacheMode mode) const;

 private:
  ScratchFile(UniqueFd fd, std::string name, uint64_t size_bytes);

  UniqueFd fd_;
  std::string name_;                          // For messages.
  [[maybe_unused]] uint64_t size_bytes_ = 0;  // Nobody may go beyond.
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_SCRATCH_FILE_H_
