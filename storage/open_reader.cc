#include "storage/open_reader.h"

#include <utility>

#include "storage/pread_reader.h"
#include "storage/uring_reader.h"

namespace flashelm {

Result<std::unique_ptr<AsyncReader>> OpenReader(
    std::shared_ptr<const RandomAccessFile> file,
    const ReaderOptions& options) {
  const ReadShape shape{options.request_bytes, options.queue_depth};
  if (options.backend != IoBackend::kPread) {
    auto reader = UringReader::Create(file, options.depth, shape);
    if (reader || options.backend == IoBackend::kUring ||
        reader.error().code() != StatusCode::kUnimplemented) {
      return reader;
    }
  }
  return PreadReader::Create(std::move(file), options.depth,
                             options.num_threads, shape);
}

}  // namespace flashelm
