// Reads in flight.
#ifndef FLASHELM_STORAGE_ASYNC_READER_H_
#define FLASHELM_STORAGE_ASYNC_READER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

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

// Takes reads and gives their completions, in any order. Used by one thread.
// Nothing is allocated per read.
//
// A read that the device never answers stays in flight, and its target has to
// stay valid for ever. So whoever owns targets drains the reader before they
// go, and leaks them should that fail; a reader's destructor then leaves such
// reads behind instead of waiting for them.
class AsyncReader {
 public:
  virtual ~AsyncReader() = default;

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
};

// Asks the system to back memory with huge pages where it can, which has to
// come before the memory is touched. A device that gets its targets page by
// page may be several times slower.
void AdviseHugePages(std::span<std::byte> memory);

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_ASYNC_READER_H_
