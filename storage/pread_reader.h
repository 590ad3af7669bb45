// An AsyncReader made of threads that block in pread: works everywhere.
#ifndef FLASHELM_STORAGE_PREAD_READER_H_
#define FLASHELM_STORAGE_PREAD_READER_H_

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "core/base/thread.h"
#include "storage/async_reader.h"
#include "storage/file.h"

namespace flashelm {

class PreadReader : public AsyncReader {
 public:
  // kInvalidArgument: no threads or no depth. kResourceExhausted: no threads to
  // be had.
  static Result<std::unique_ptr<PreadReader>> Create(
      std::shared_ptr<const RandomAccessFile> file, uint32_t depth,
      uint32_t num_threads);
  ~PreadReader() override;

  Status Submit(std::span<const ReadRequest> requests) override;
  std::optional<ReadCompletion> Wait(std::chrono::nanoseconds timeout) override;
  void RegisterBuffer(std::span<std::byte>) override {}
  std::string_view name() const override { return "pread"; }
  uint32_t depth() const override { return depth_; }
  uint32_t num_in_flight() const override { return num_in_flight_; }
  ReaderStats stats() const override;

 private:
  using Clock = std::chrono::steady_clock;

  // A queue in a fixed array.
  template <class T>
  class FixedQueue {
   public:
    explicit FixedQueue(uint32_t capacity) : items_(capacity) {}
    bool empty() const { return size_ == 0; }
    void Push(T item) {
      items_[(first_ + size_++) % items_.size()] = std::move(item);
    }
    T Pop() {
      T item = std::move(items_[first_]);
      first_ = (first_ + 1) % items_.size();
      --size_;
      return item;
    }

   private:
    std::vector<T> items_;
    size_t first_ = 0;
    size_t size_ = 0;
  };

  PreadReader(std::shared_ptr<const RandomAccessFile> file, uint32_t depth);
  void WorkerLoop();

  const std::shared_ptr<const RandomAccessFile> file_;
  const uint32_t depth_;
  uint32_t num_in_flight_ = 0;  // Submitted and not yet returned by Wait().

  mutable std::mutex mutex_;
  std::condition_variable has_request_;
  std::condition_variable has_completion_;
  // Guarded by mutex_ from here on.
  FixedQueue<ReadRequest> requests_;
  FixedQueue<ReadCompletion> completions_;
  bool stop_ = false;
  ReaderStats stats_;
  uint32_t num_unfinished_ = 0;   // Submitted and not yet read.
  Clock::time_point busy_since_;  // While num_unfinished_ is not 0.

  std::vector<Thread> workers_;  // Last: joined before the rest goes.
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_PREAD_READER_H_
