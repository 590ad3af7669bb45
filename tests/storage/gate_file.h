// A file on a device that does not answer until it is told to.
#ifndef FLASHELM_TESTS_STORAGE_GATE_FILE_H_
#define FLASHELM_TESTS_STORAGE_GATE_FILE_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "storage/file.h"

namespace flashelm {

// Its bytes can be read once, from the start; at most what a pipe holds, 64
// KiB. For readers that go by descriptor it is that pipe.
class GateFile : public RandomAccessFile {
 public:
  explicit GateFile(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    read_end_ = UniqueFd(ends[0]);
    write_end_ = UniqueFd(ends[1]);
  }

  // Lets the reads have so many bytes more.
  void Give(size_t num_bytes) {
    std::lock_guard lock(mutex_);
    num_bytes = std::min(num_bytes, bytes_.size() - num_given_);
    EXPECT_EQ(write(write_end_.get(), bytes_.data() + num_given_, num_bytes),
              static_cast<ssize_t>(num_bytes));
    num_given_ += num_bytes;
    has_given_.notify_all();
  }
  void GiveAll() { Give(bytes_.size()); }

  Result<size_t> ReadAt(uint64_t offset,
                        std::span<std::byte> target) const override {
    std::unique_lock lock(mutex_);
    has_given_.wait(lock, [&] { return num_given_ >= offset + target.size(); });
    std::memcpy(target.data(), bytes_.data() + offset, target.size());
    return target.size();
  }
  uint64_t size_bytes() const override { return bytes_.size(); }
  const std::string& path() const override { return path_; }
  bool direct_io() const override { return false; }
  int fd() const override { return read_end_.get(); }

 private:
  const std::vector<std::byte> bytes_;
  const std::string path_ = "gate";
  UniqueFd read_end_;
  UniqueFd write_end_;
  mutable std::mutex mutex_;
  mutable std::condition_variable has_given_;
  size_t num_given_ = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_TESTS_STORAGE_GATE_FILE_H_
