// An AsyncReader over io_uring: one thread keeps a device busy.
#ifndef FLASHELM_STORAGE_URING_READER_H_
#define FLASHELM_STORAGE_URING_READER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "storage/async_reader.h"
#include "storage/file.h"
#include "storage/read_splitter.h"
#include "storage/read_tuner.h"

struct io_uring;

namespace flashelm {

// The device gets its next requests inside Submit() and Wait(), and ends are
// noticed there: a caller that computes for long between them looks in with
// Wait(0). Kernel memory: a few KiB, and 16 bytes for each page of registered
// buffers, which stay pinned.
class UringReader : public AsyncReader {
 public:
  // `depth` reads at a time, cut into requests of the shape, which adapts where
  // `shape` has zeros. kInvalidArgument: no depth, or a bad shape.
  // kUnimplemented: this build, the system or the file does not do it; the
  // message has what was tried and what the system said.
  static Result<std::unique_ptr<AsyncReader>> Create(
      std::shared_ptr<const RandomAccessFile> file, uint32_t depth,
      const ReadShape& shape = {});
  ~UringReader() override;

  Status Submit(std::span<const ReadRequest> requests) override;
  std::optional<ReadCompletion> Wait(std::chrono::nanoseconds timeout) override;
  void RegisterBuffer(std::span<std::byte> memory) override;
  void Stop() override;
  std::string_view name() const override { return "uring"; }
  uint32_t depth() const override { return splitter_.max_reads(); }
  uint32_t num_in_flight() const override { return splitter_.num_reads(); }
  ReaderStats stats() const override;

 private:
  using Clock = std::chrono::steady_clock;

  // Ends the ring without waiting for what the kernel still has.
  struct RingDeleter {
    void operator()(io_uring* ring) const;
  };
  using UniqueRing = std::unique_ptr<io_uring, RingDeleter>;

  struct Request {
    ReadSplitter::Piece piece;
    size_t done = 0;
    uint32_t num_retries = 0;
  };

  // A ring that takes requests, with the file registered if that is allowed.
  static Result<std::pair<UniqueRing, bool>> Open(const RandomAccessFile& file,
                                                  uint32_t max_requests);

  UringReader(std::shared_ptr<const RandomAccessFile> file, UniqueRing ring,
              bool has_fixed_file, uint32_t depth,
              std::vector<ReadShape> candidates, uint32_t max_requests);

  // Puts the rest of a request into the submission queue.
  void Prepare(uint32_t index);
  // Begins requests while the shape allows, and hands all to the kernel.
  void Refill();
  void SubmitPrepared();
  // Takes every end that the kernel has noted.
  void Reap();
  void OnEnd(uint32_t index, int32_t result, Clock::time_point now);
  void EndRequest(uint32_t index, Status status, Clock::time_point now);
  // Gives up the ring: whatever the kernel has not got yet fails.
  void Break(int error);
  void Break(Status why);
  // Puts another ring in the place of one that was given up.
  Status Reopen();
  void RegisterAgain(std::span<std::byte> memory);

  const std::shared_ptr<const RandomAccessFile> file_;
  UniqueRing ring_;
  bool has_fixed_file_;
  std::span<std::byte> registered_;  // Empty: none.
  ReadSplitter splitter_;
  ReadTuner tuner_;
  // The number of a request is its index here. There are no more than the
  // submission queue has entries, and the completion queue has twice as many,
  // so neither overflows.
  std::vector<Request> requests_;
  std::vector<uint32_t> free_;      // Of these.
  std::vector<uint32_t> prepared_;  // In the queue, not handed over; in order.
  std::optional<Clock::time_point> refused_since_;  // By the kernel.
  Status broken_;
  bool is_stopped_ = false;
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_URING_READER_H_
