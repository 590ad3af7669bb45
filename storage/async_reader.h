// Reads in flight.
#ifndef FLASHELM_STORAGE_ASYNC_READER_H_
#define FLASHELM_STORAGE_ASYNC_READER_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "core/base/memory.h"
#include "core/base/status.h"

namespace flashelm {

struct ReadRequest {
  uint64_t offset_bytes = 0;  // In the file.
  // Where the bytes go; stays valid until the read is seen to its end. Offset,
  // size and address are multiples of kIoAlignment.
  std::span<std::byte> target;
  uint32_t tag = 0;  // The caller's name for the read.
};

struct ReadCompletion {
  uint32_t tag = 0;
  // Bytes read when `status` is ok; fewer than asked where the file ends.
  size_t num_bytes = 0;
  Status status;  // kUnavailable: the device failed.
  // When it was handed to the operating system, and when its end was noticed.
  std::chrono::steady_clock::time_point begin;
  std::chrono::steady_clock::time_point end;
};

struct ReaderStats {
  uint64_t num_reads = 0;  // Requests to the device: pieces of reads.
  uint64_t num_bytes = 0;
  uint64_t busy_ns = 0;  // Time with at least one read in flight.
};

// Bytes that several owners count.
using SharedByteCount = std::shared_ptr<std::atomic<uint64_t>>;

// Takes reads and gives their completions, in any order. Used by one thread.
// Nothing is allocated per read.
//
// A read that the device does not answer stays in flight, and its target has to
// stay valid. So whoever owns targets drains the reader before they go, and
// gives them to the reader should that fail; then EndReader() looks after both.
class AsyncReader {
 public:
  AsyncReader() = default;
  // Waits for nothing: reads in flight are left behind, and what was adopted is
  // leaked.
  virtual ~AsyncReader();
  AsyncReader(const AsyncReader&) = delete;
  AsyncReader& operator=(const AsyncReader&) = delete;

  // Starts reads, all or none of them, with as few system calls as it takes.
  // kResourceExhausted: more than depth() reads would be in flight.
  virtual Status Submit(std::span<const ReadRequest> requests) = 0;

  // Returns a read that has ended, failed ones too, and waits for one at most
  // so long; with 0 it only looks. Nothing: none ended, or none is in flight.
  virtual std::optional<ReadCompletion> Wait(
      std::chrono::nanoseconds timeout) = 0;

  // Reads into this memory may get cheaper; it stays valid while reads go
  // there, and this is called again, with an empty span, before it goes.
  // Never fails: it is advice. No read is in flight.
  virtual void RegisterBuffer(std::span<std::byte> memory) = 0;

  // As --io and statistics call it.
  virtual std::string_view name() const = 0;
  virtual uint32_t depth() const = 0;  // Reads that may be in flight.
  virtual uint32_t num_in_flight() const = 0;
  virtual ReaderStats stats() const = 0;

  // Waits at most so long until no read is in flight; completions are dropped.
  // Whether that was reached.
  bool Drain(std::chrono::nanoseconds timeout);

  // The device gets no more requests: reads that it does not have yet fail, and
  // the reader takes no others.
  virtual void Stop() = 0;

  // Keeps a target that reads in flight go to, charged to nothing. There are at
  // most kMaxAdopted of them.
  void Adopt(AlignedBuffer target);
  uint64_t adopted_bytes() const;
  static constexpr size_t kMaxAdopted = 4;

 private:
  friend void EndReader(std::unique_ptr<AsyncReader> reader,
                        SharedByteCount left_bytes);

  std::array<AlignedBuffer, kMaxAdopted> adopted_;
  size_t num_adopted_ = 0;
};

// Ends a reader; null is none. If it has adopted targets, a thread takes it
// that waits for as long as the device takes, and then ends it and gives back
// their memory. What it refers to, such as its file, lives until then. Where
// there is no thread to be had, all of it is leaked. `left_bytes` has the bytes
// of such targets, for as long as they are there.
void EndReader(std::unique_ptr<AsyncReader> reader, SharedByteCount left_bytes);

// Asks the system to back memory with huge pages where it can, which has to
// come before the memory is touched. A device that gets its targets page by
// page may be several times slower.
void AdviseHugePages(std::span<std::byte> memory);

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_ASYNC_READER_H_
