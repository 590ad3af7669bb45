// Reads in flight.
#ifndef FLASHELM_STORAGE_ASYNC_READER_H_
#define FLASHELM_STORAGE_ASYNC_READER_H_

#include <cstddef>
#include <cstdint>
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
};

struct ReaderStats {
  uint64_t num_reads = 0;
  uint64_t num_bytes = 0;
  uint64_t busy_ns = 0;  // Time with at least one read in flight.
};

// Takes reads and gives their completions, in any order. The destructor sees
// every read to its end. Used by one thread. Nothing is allocated per read.
class AsyncReader {
 public:
  virtual ~AsyncReader() = default;

  // Starts a read. kResourceExhausted: depth() reads are in flight.
  virtual Status Submit(const ReadRequest& request) = 0;

  // Waits until a read ends and returns it, failed ones too.
  // kInvalidArgument: none is in flight.
  virtual Result<ReadCompletion> Wait() = 0;

  // As --io and statistics call it.
  virtual std::string_view name() const = 0;
  virtual uint32_t depth() const = 0;  // Reads that may be in flight.
  virtual uint32_t num_in_flight() const = 0;
  virtual ReaderStats stats() const = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_ASYNC_READER_H_
