// Counts what the test program takes from operator new.
#ifndef FLASHELM_TESTS_CORE_ALLOCATION_COUNTER_H_
#define FLASHELM_TESTS_CORE_ALLOCATION_COUNTER_H_

#include <cstdint>

namespace flashelm {

// Since its creation: calls, and the most bytes held at one moment beyond those
// held at the start, as asked for by the callers. One at a time, one thread.
class AllocationCounter {
 public:
  AllocationCounter();
  uint64_t num_allocations() const;
  uint64_t peak_bytes() const;

 private:
  uint64_t start_count_;
  uint64_t start_bytes_;
};

}  // namespace flashelm

#endif  // FLASHELM_TESTS_CORE_ALLOCATION_COUNTER_H_
