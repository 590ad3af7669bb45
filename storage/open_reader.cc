#include "storage/open_reader.h"

#include <utility>

#include "storage/pread_reader.h"

namespace flashelm {

Result<std::unique_ptr<AsyncReader>> OpenReader(
    std::shared_ptr<const RandomAccessFile> file,
    const ReaderOptions& options) {
  if (options.backend == IoBackend::kUring) {
    return Unimplemented(file->path(), ": no io_uring in this build");
  }
  return PreadReader::Create(std::move(file), options.depth,
                             options.num_threads);
}

}  // namespace flashelm
