// What the kernel counts for this process, beside memory.
#ifndef FLASHELM_CORE_BASE_PROCESS_COUNTERS_H_
#define FLASHELM_CORE_BASE_PROCESS_COUNTERS_H_

#include <cstdint>
#include <optional>

namespace flashelm {

// Since the process began, all its threads together. What a platform does not
// say is nothing.
struct ProcessCounters {
  // Bytes that came from and went to block devices, whoever asked for them:
  // direct reads, page faults and read-ahead alike.
  std::optional<uint64_t> device_read_bytes;
  std::optional<uint64_t> device_write_bytes;
  std::optional<uint64_t> minor_faults;
  std::optional<uint64_t> major_faults;  // Those that waited for a device.
  // That its threads computed, in the kernel or outside.
  std::optional<uint64_t> cpu_ns;
};
ProcessCounters ReadProcessCounters();

}  // namespace flashelm

#endif  // FLASHELM_CORE_BASE_PROCESS_COUNTERS_H_
