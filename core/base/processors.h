// How many processors this process may compute on.
#ifndef FLASHELM_CORE_BASE_PROCESSORS_H_
#define FLASHELM_CORE_BASE_PROCESSORS_H_

#include <cstdint>
#include <span>
#include <string>

namespace flashelm {

// Counts, each at least 1.
struct UsableProcessors {
  // Processors of the affinity mask, or what the CPU quota of the cgroups (v1
  // or v2) around the process pays for, rounded up, where that is less. More
  // threads than this wait for each other.
  uint32_t num_processors = 1;
  // Of those, physical cores, where a core's hardware threads count once, and
  // fast ones, where a core slower than 80 % of the fastest does not count: a
  // loop that is shared out evenly is as fast as its slowest part. What suits
  // computation. The quota caps it, too.
  uint32_t num_cores = 1;
};

// For this process as it stands now: reads a few small files per processor.
UsableProcessors FindUsableProcessors();

// The same for processors with these numbers, where `system_root` comes before
// "/proc" and "/sys". What a file does not say, because it is missing or not
// understood, limits nothing.
UsableProcessors FindUsableProcessors(std::span<const uint32_t> processors,
                                      const std::string& system_root);

// Of the largest cache that a core has a part in, however many other systems
// use it, too; 0 where nobody says.
uint64_t LastLevelCacheBytes();

// What the files say, with `system_root` as above.
uint64_t LastLevelCacheBytes(const std::string& system_root);

}  // namespace flashelm

#endif  // FLASHELM_CORE_BASE_PROCESSORS_H_
