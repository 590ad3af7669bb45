// How fast a model file can be read from one end to the other.
#ifndef FLASHELM_CORE_READ_RATE_H_
#define FLASHELM_CORE_READ_RATE_H_

#include <chrono>
#include <cstdint>
#include <string>

#include "core/base/cancel.h"
#include "core/base/status.h"
#include "core/model_file.h"
#include "storage/open_reader.h"

namespace flashelm {

struct ReadRate {
  double bytes_per_second = 0;
  std::string io_backend;  // As --io calls it.
  bool direct_io = false;  // Otherwise caches had a part in it.
};

// Reads the file in order, again from its beginning where it ends, for so long.
// `io` is not kMmap. Takes 16 MiB. kUnavailable: a read failed, or took longer
// than 30 s. kCancelled: as asked. kUnimplemented: as OpenReader().
Result<ReadRate> MeasureReadRate(const ModelFile& model, IoBackend io,
                                 std::chrono::nanoseconds duration,
                                 const CancelToken& cancel);

}  // namespace flashelm

#endif  // FLASHELM_CORE_READ_RATE_H_
