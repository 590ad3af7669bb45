// What the operating system says about this process and this machine's RAM.
#ifndef FLASHELM_CORE_BASE_PROCESS_MEMORY_H_
#define FLASHELM_CORE_BASE_PROCESS_MEMORY_H_

#include <cstdint>
#include <optional>
#include <string>

namespace flashelm {

// Resident bytes now and at their highest, as the kernel counts them (VmRSS,
// VmHWM), and what they are now: memory of the process's own, and pages of
// files, shared memory among them. Nothing on a platform that does not say.
struct ProcessMemory {
  uint64_t resident_bytes = 0;
  uint64_t peak_resident_bytes = 0;
  std::optional<uint64_t> anonymous_bytes;
  std::optional<uint64_t> file_bytes;
  std::optional<uint64_t> swapped_bytes;  // Not resident: in swap.
};
std::optional<ProcessMemory> ReadProcessMemory();

// Bytes of the files mapped into this process (program and shared libraries):
// the most that its code and constants can ever take of RAM. Nothing on a
// platform that does not say.
std::optional<uint64_t> MappedFileBytes();

// Bytes that this process can still take: the smaller of what the system has
// available and what the memory cgroups (v1 or v2) around it leave. Pages of
// files that have not been used again count as free in both. `system_root`
// comes before "/proc" and "/sys". Nothing on a platform that does not say.
std::optional<uint64_t> AvailableMemoryBytes(
    const std::string& system_root = "");

// The smallest limit of the memory cgroups (v1 or v2) around this process.
// Nothing without a limit, or on a platform without them.
std::optional<uint64_t> MemoryCgroupLimitBytes(
    const std::string& system_root = "");

}  // namespace flashelm

#endif  // FLASHELM_CORE_BASE_PROCESS_MEMORY_H_
