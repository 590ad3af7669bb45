// Residency plans for the model that most tests read.
#ifndef FLASHELM_TESTS_STORAGE_TEST_PLANS_H_
#define FLASHELM_TESTS_STORAGE_TEST_PLANS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "storage/residency.h"
#include "storage/weight_format.h"

namespace flashelm {

// Those of SharedTestModel().
const std::vector<Segment>& SharedSegments();

// All other segments than the head, in file order. Slots are as large as the
// largest chunk.
ResidencyPlan MakePlan(const std::vector<Segment>& segments,
                       std::vector<uint64_t> resident,
                       std::vector<uint64_t> chunks, uint32_t num_slots);

// Everything streams, one unit at a time.
ResidencyPlan StreamingPlan(const std::vector<Segment>& segments,
                            uint32_t num_slots);

// Whether at `planar` are whole records of a segment, the first of them a
// block's first, in planar order.
bool IsPlanarOf(const Segment& segment, std::span<const std::byte> records,
                const std::byte* planar);

}  // namespace flashelm

#endif  // FLASHELM_TESTS_STORAGE_TEST_PLANS_H_
