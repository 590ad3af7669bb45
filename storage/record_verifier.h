// Which records this process has compared with their checksums.
#ifndef FLASHELM_STORAGE_RECORD_VERIFIER_H_
#define FLASHELM_STORAGE_RECORD_VERIFIER_H_

#include <cstdint>

#include "core/base/memory.h"
#include "core/base/status.h"
#include "storage/weight_file.h"

namespace flashelm {

// The checksum table of a file, and a bit for each checksum that was found
// right. All who read records of one file share one, so that a record is
// compared when the process first reads it, and not again. Used by one thread.
class RecordVerifier {
 public:
  // Bytes that Create() charges.
  static uint64_t NumBytes(const WeightFile& file);

  // Reads the checksum table. `file` and `budget` outlive the object.
  // kResourceExhausted: the budget has less. kDataLoss: the table is damaged.
  // kUnavailable: the device failed.
  static Result<RecordVerifier> Create(const WeightFile& file,
                                       MemoryBudget& budget);

  // Compares records [first, first + count) of a segment, at `data`, unless
  // all of them were found right before; where they begin and end as in
  // VerifyRecords(). kUnavailable: other bytes than were written; they may be
  // read and compared again. Allocates nothing unless it fails.
  Status VerifyOnce(uint32_t segment, uint64_t first, uint64_t count,
                    const std::byte* data);

 private:
  explicit RecordVerifier(const WeightFile& file) : file_(&file) {}

  const WeightFile* file_;
  AlignedBuffer checksums_;
  AlignedBuffer verified_;  // A bit for each 4 bytes of the table.
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_RECORD_VERIFIER_H_
