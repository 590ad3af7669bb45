// Files that appear whole or not at all.
#ifndef FLASHELM_STORAGE_OUTPUT_FILE_H_
#define FLASHELM_STORAGE_OUTPUT_FILE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/status.h"
#include "storage/file.h"

namespace flashelm {

// Whether a file could be written at `path` later, for calls that work long
// before they write: its directory exists and may be written to, and what
// stands there is a regular file that is none of `inputs`, under whatever name.
// kNotFound: no such directory. kInvalidArgument: the rest.
Status CheckOutputPath(const std::string& path,
                       const std::vector<std::string>& inputs);

// Reserves the first bytes of an open file on the disk. Only a definite "no
// room" is an error: not every file system can reserve. `name` is for the
// message. kResourceExhausted: no room.
Status ReserveBytes(int fd, uint64_t num_bytes, std::string_view name);

// Writes all of `bytes` at `offset`. Errors as ErrnoStatus().
Status WriteBytes(int fd, uint64_t offset, std::span<const std::byte> bytes,
                  std::string_view name);

// Writes to a temporary name beside `path`; Commit() syncs it and gives it the
// real one. Without a Commit(), the destructor removes it, and what stood at
// `path` before stays. Move-only, one thread.
class OutputFile {
 public:
  // What an open one takes of memory.
  static constexpr size_t kBufferBytes = size_t{256} << 10;

  // `expected_bytes`: reserved on the disk at once where the file system can,
  // so that a full disk is known before the work; 0 when unknown.
  // kNotFound: no such directory. kResourceExhausted: no room.
  static Result<OutputFile> Create(const std::string& path,
                                   uint64_t expected_bytes);

  ~OutputFile();
  OutputFile(OutputFile&& other) noexcept = default;
  OutputFile& operator=(OutputFile&& other) = delete;

  // Adds at the end. Buffered: an error may show in a later call.
  // kResourceExhausted: the disk is full.
  Status Append(std::span<const std::byte> bytes);
  // Replaces bytes written before.
  Status WriteAt(uint64_t offset, std::span<const std::byte> bytes);
  // Flushes, syncs file and directory, renames. Nothing may follow.
  Status Commit();

  uint64_t size_bytes() const { return flushed_bytes_ + buffer_.size(); }
  const std::string& path() const { return path_; }

 private:
  OutputFile(UniqueFd fd, std::string path, std::string temporary_path);
  Status Flush();

  UniqueFd fd_;
  std::string path_;
  std::string temporary_path_;  // Empty once there is nothing to remove.
  std::vector<std::byte> buffer_;
  uint64_t flushed_bytes_ = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_OUTPUT_FILE_H_
