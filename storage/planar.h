// Records in DRAM by parts.
#ifndef FLASHELM_STORAGE_PLANAR_H_
#define FLASHELM_STORAGE_PLANAR_H_

#include <cstddef>
#include <cstdint>

#include "storage/weight_format.h"

namespace flashelm {

// In a file each record is whole, so that one read brings it. Planar records
// come in blocks of so many, of a segment's last records perhaps fewer; a block
// is the first parts of all its records, then the second ones, and so on. It
// takes no more memory, and who computes with many records, part by part, reads
// long stretches of it in order.
inline constexpr uint64_t kPlanarRecords = 128;

// Whether a segment's records consist of parts of one size, at least two.
bool CanBePlanar(const Segment& segment);

// Makes `num_records` records planar, in place, the first of them a block's
// first; `segment` is theirs, and can be planar.
void MakePlanar(const Segment& segment, uint64_t num_records,
                std::byte* records);

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_PLANAR_H_
