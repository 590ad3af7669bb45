// Which part of each segment stays in DRAM, where not all of the weights do.
#ifndef FLASHELM_CORE_PINS_H_
#define FLASHELM_CORE_PINS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "storage/residency.h"
#include "storage/weight_file.h"

namespace flashelm {

// Sets plan.resident_records of the segments `order`, in which a sweep reads
// them, so that these take at most `bytes` of memory, each in whole pages; no
// further unit fits. Up to each segment about the same share of the weights
// streams, so that no layer waits for the device more than others do; but of
// each segment in full chunks (plan.chunk_records), as reads and slots of the
// ring cost as much where they bring less. What that leaves over is pinned unit
// by unit.
void PinEvenly(const std::vector<Segment>& segments,
               std::span<const uint32_t> order, uint64_t bytes,
               ResidencyPlan& plan);

}  // namespace flashelm

#endif  // FLASHELM_CORE_PINS_H_
