// Comparing what the device gives with what was written.
#ifndef FLASHELM_STORAGE_VERIFY_H_
#define FLASHELM_STORAGE_VERIFY_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "core/base/cancel.h"
#include "core/base/status.h"
#include "storage/weight_file.h"

namespace flashelm {

// Compares records [first, first + count) of a segment, at `data`, with the
// checksum table; `first` is a multiple of records_per_checksum, and so is
// `count` unless the run ends the segment. kUnavailable, naming the record and
// its byte in the file: the device gave other bytes than were written.
// Allocates nothing unless it fails.
Status VerifyRecords(const Segment& segment, uint64_t first, uint64_t count,
                     const std::byte* data, std::span<const std::byte> table,
                     const std::string& path);

struct VerifyReport {
  uint64_t num_checksums = 0;  // Compared.
  uint64_t num_bytes = 0;      // Read.
};

// Reads a whole model file once and compares every checksum; padding has to be
// zero. `progress`, which may be empty, gets the bytes done so far. Takes a few
// MB of memory and as long as reading the file. kDataLoss: what is damaged, and
// at which byte. kUnavailable: the device failed. kCancelled: as asked.
Result<VerifyReport> VerifyFile(const WeightFile& weights,
                                const CancelToken& cancel,
                                const std::function<void(uint64_t)>& progress);

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_VERIFY_H_
