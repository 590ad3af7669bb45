// Records in DRAM by parts.
#ifndef FLASHELM_STORAGE_PLANAR_H_
#define FLASHELM_STORAGE_PLANAR_H_

#include <cstddef>
#include <cstdint>

#include "storage/weight_format.h"

namespace flashelm {

// In a file each record is whole, so that one read brings it. Planar records
// come in blocks of so many, of a segment's last records perhaps fewer; a block
// is the first parts of all its records, then the second ones, and so on, and
// last what records have besides parts. It takes no more memory, and who
// computes with many records, part by part, reads long stretches of it in
// order.
inline constexpr uint64_t kPlanarRecords = 128;

// Whether the parts of a segment's records, at least two, have one size and
// follow each other from where a record begins.
bool CanBePlanar(const Segment& segment);

// Makes `num_records` records planar, in place, the first of them a block's
// first; `segment` is theirs, and can be planar. What a block has behind its
// parts is not specified.
void MakePlanar(const Segment& segment, uint64_t num_records,
                std::byte* records);

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_PLANAR_H_
