// What a system says of a machine, as far as it matters to running a model.
// What it does not say is nothing. `system_root` comes before "/proc" and
// "/sys".
#ifndef FLASHELM_CLI_MACHINE_FACTS_H_
#define FLASHELM_CLI_MACHINE_FACTS_H_

#include <cstdint>
#include <optional>
#include <string>

namespace flashelm::cli {

struct MemoryFacts {
  std::optional<uint64_t> total_bytes;
  std::optional<uint64_t> available_bytes;  // Of the whole machine.
  std::optional<uint64_t> swap_bytes;
  std::optional<uint64_t> swap_free_bytes;
  std::optional<uint64_t> cgroup_limit_bytes;
  std::optional<uint64_t> cgroup_version;  // Of the memory controller: 1 or 2.
  // What this process can take, within cgroups.
  std::optional<uint64_t> free_bytes;
};
MemoryFacts ReadMemoryFacts(const std::string& system_root = "");

// Soft limits of this process; kNoLimit where there is none.
inline constexpr uint64_t kNoLimit = UINT64_MAX;
struct LimitFacts {
  std::optional<uint64_t> address_space_bytes;  // RLIMIT_AS
  std::optional<uint64_t> locked_bytes;         // RLIMIT_MEMLOCK
  std::optional<uint64_t> open_files;           // RLIMIT_NOFILE
  bool may_lock = false;  // Whatever the limit says: CAP_IPC_LOCK.
};
LimitFacts ReadLimitFacts(const std::string& system_root = "");

struct ClockFacts {
  std::optional<std::string> driver;
  std::optional<std::string> governor;    // "mixed": not the same everywhere.
  std::optional<uint64_t> current_khz;    // Of the fastest processor now.
  std::optional<uint64_t> max_khz;        // That the fastest one could have.
  std::optional<uint64_t> num_throttled;  // Times that heat slowed a core.
  std::optional<double> celsius;          // Of the hottest sensor.
};
ClockFacts ReadClockFacts(const std::string& system_root = "");

struct StorageFacts {
  std::optional<std::string> fs_type;
  std::optional<std::string> device;  // "nvme0n1p2"
  std::optional<std::string> model;
  std::optional<bool> is_rotational;
  std::optional<uint64_t> free_bytes;
  std::optional<bool> is_read_only;  // All of the file system.
  // 1: only with privileges; 2: nobody may use it.
  std::optional<uint64_t> uring_disabled;
  // "NVMe", "SD card", "eMMC", "UFS", "USB drive", "hard disk", "SSD",
  // "virtual disk", "RAM", "network", or what the device is called.
  std::string kind = "unknown";
};
StorageFacts ReadStorageFacts(const std::string& path,
                              const std::string& system_root = "");
// The part of it that follows from the device and the file system.
void AddDeviceFacts(StorageFacts& facts, const std::string& system_root = "");

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_MACHINE_FACTS_H_
