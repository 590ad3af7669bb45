// Files that are not on a disk.
#ifndef FLASHELM_TESTS_STORAGE_MEMORY_FILE_H_
#define FLASHELM_TESTS_STORAGE_MEMORY_FILE_H_

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "storage/file.h"

namespace flashelm {

// Shared, so that a test can damage a file that is open.
using SharedBytes = std::shared_ptr<std::vector<std::byte>>;

inline SharedBytes ShareBytes(std::vector<std::byte> bytes) {
  return std::make_shared<std::vector<std::byte>>(std::move(bytes));
}

// A file over memory. Its size is what the bytes have at the start, or any
// other that a test wants it to claim.
class MemoryFile : public RandomAccessFile {
 public:
  explicit MemoryFile(SharedBytes bytes, std::string path = "memory.felm")
      : MemoryFile(bytes, bytes->size(), std::move(path)) {}
  MemoryFile(SharedBytes bytes, uint64_t claimed_bytes, std::string path)
      : bytes_(std::move(bytes)),
        size_bytes_(claimed_bytes),
        path_(std::move(path)) {}

  Result<size_t> ReadAt(uint64_t offset,
                        std::span<std::byte> target) const override {
    if (offset >= bytes_->size()) return size_t{0};
    const size_t count =
        std::min<uint64_t>(target.size(), bytes_->size() - offset);
    if (count > 0) std::memcpy(target.data(), bytes_->data() + offset, count);
    return count;
  }
  uint64_t size_bytes() const override { return size_bytes_; }
  const std::string& path() const override { return path_; }
  bool direct_io() const override { return false; }

 private:
  SharedBytes bytes_;
  uint64_t size_bytes_;
  std::string path_;
};

// Another file on a device that takes its time before it writes to a target.
class SlowFile : public RandomAccessFile {
 public:
  // `file` outlives this one.
  SlowFile(const RandomAccessFile& file, std::chrono::microseconds delay)
      : file_(file), delay_(delay) {}

  Result<size_t> ReadAt(uint64_t offset,
                        std::span<std::byte> target) const override {
    std::this_thread::sleep_for(delay_);
    return file_.ReadAt(offset, target);
  }
  uint64_t size_bytes() const override { return file_.size_bytes(); }
  const std::string& path() const override { return file_.path(); }
  bool direct_io() const override { return file_.direct_io(); }

 private:
  const RandomAccessFile& file_;
  const std::chrono::microseconds delay_;
};

}  // namespace flashelm

#endif  // FLASHELM_TESTS_STORAGE_MEMORY_FILE_H_
