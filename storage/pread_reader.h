// An AsyncReader made of threads that block in pread: works everywhere.
#ifndef FLASHELM_STORAGE_PREAD_READER_H_
#define FLASHELM_STORAGE_PREAD_READER_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/thread.h"
#include "storage/async_reader.h"
#include "storage/file.h"
#include "storage/read_tuner.h"

namespace flashelm {

// Several threads share a large read. No more of them work at a time than the
// queue depth says. A thread that the device holds when the reader goes is left
// to end by itself; it touches nothing of the reader's then.
class PreadReader : public AsyncReader {
 public:
  // `depth` reads at a time, cut into requests of the shape, which adapts where
  // `shape` has zeros. kInvalidArgument: no threads or no depth, or a bad
  // shape. kResourceExhausted: no threads to be had.
  static Result<std::unique_ptr<PreadReader>> Create(
      std::shared_ptr<const RandomAccessFile> file, uint32_t depth,
      uint32_t num_threads, const ReadShape& shape = {});
  ~PreadReader() override;

  Status Submit(std::span<const ReadRequest> requests) override;
  std::optional<ReadCompletion> Wait(std::chrono::nanoseconds timeout) override;
  void RegisterBuffer(std::span<std::byte> memory) override;
  void Stop() override;
  std::string_view name() const override { return "pread"; }
  uint32_t depth() const override;
  uint32_t num_in_flight() const override;
  ReaderStats stats() const override;

 private:
  // What the threads use: theirs too, so that it lives as long as they do.
  struct Worker;
  struct State;

  explicit PreadReader(std::shared_ptr<State> state);
  void WakeCalled();
  // Under the mutex: no piece is begun from here on; WakeCalled() comes next.
  void EndIdle();
  static void WorkerLoop(State& state, uint32_t index);

  const std::shared_ptr<State> state_;
  std::vector<Thread> workers_;
  std::vector<Worker*> called_;  // Not woken yet.
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_PREAD_READER_H_
