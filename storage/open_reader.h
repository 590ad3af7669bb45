// Choosing a reader.
#ifndef FLASHELM_STORAGE_OPEN_READER_H_
#define FLASHELM_STORAGE_OPEN_READER_H_

#include <cstdint>
#include <memory>

#include "core/base/status.h"
#include "storage/async_reader.h"
#include "storage/file.h"

namespace flashelm {

enum class IoBackend {
  kAuto,  // io_uring where the system lets us, pread elsewhere.
  kUring,
  kPread,
  kMmap,  // No reader: the baseline, for which OpenReader() is not called.
};

struct ReaderOptions {
  IoBackend backend = IoBackend::kAuto;
  uint32_t depth = 0;        // Reads that may be in flight.
  uint32_t num_threads = 8;  // Of a pread reader: its largest queue depth.
  // What the device gets at a time, as in ReadShape. 0: the reader finds out
  // what suits the device while it streams.
  uint32_t queue_depth = 0;
  uint64_t request_bytes = 0;
};

// kUnimplemented: io_uring was asked for, and the system or this build refuses
// it, or the file has no descriptor. kInvalidArgument, kResourceExhausted: as
// the readers' Create().
Result<std::unique_ptr<AsyncReader>> OpenReader(
    std::shared_ptr<const RandomAccessFile> file, const ReaderOptions& options);

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_OPEN_READER_H_
