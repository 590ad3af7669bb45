#include "cli/machine_facts.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "cli/machine.h"
#include "core/base/cgroup.h"
#include "core/base/process_memory.h"

namespace flashelm::cli {
namespace {

namespace fs = std::filesystem;

std::optional<std::string> ReadLine(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line) || line.empty()) return std::nullopt;
  return line;
}

std::optional<uint64_t> ParseCount(std::string_view text, int base = 10) {
  uint64_t value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc()) return std::nullopt;
  return value;
}

std::optional<uint64_t> ReadCount(const fs::path& path) {
  const auto line = ReadLine(path);
  return line ? ParseCount(*line) : std::nullopt;
}

// The first word behind `key` in the line that begins with it.
std::optional<std::string> WordBehind(const std::string& path,
                                      std::string_view key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (line.compare(0, key.size(), key) != 0) continue;
    const size_t begin = line.find_first_not_of(" \t", key.size());
    if (begin == std::string::npos) return std::nullopt;
    return line.substr(begin, line.find_first_of(" \t", begin) - begin);
  }
  return std::nullopt;
}

template <class Visit>
void ForEachEntry(const fs::path& directory, std::string_view prefix,
                  const Visit& visit) {
  std::error_code error;
  for (fs::directory_iterator at(directory, error), end; !error && at != end;
       at.increment(error)) {
    if (at->path().filename().string().rfind(prefix, 0) == 0) {
      visit(at->path());
    }
  }
}

// Keeps the larger one.
template <class T>
void Raise(std::optional<T>& most, const std::optional<T>& value) {
  if (value && (!most || *value > *most)) most = value;
}

bool StartsWith(const std::string& text, std::string_view prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

std::string KindOf(const StorageFacts& facts, const fs::path& device) {
  if (!facts.device) {
    const std::string type = facts.fs_type.value_or("");
    if (type == "tmpfs" || type == "ramfs") return "RAM";
    for (const char* shared :
         {"nfs", "cifs", "smb", "9p", "virtiofs", "fuse"}) {
      if (StartsWith(type, shared)) return "network";
    }
    return "unknown";
  }
  const std::string& name = *facts.device;
  if (StartsWith(name, "nvme")) return "NVMe";
  if (StartsWith(name, "mmcblk")) {
    return ReadLine(device / "device/type") == "SD" ? "SD card" : "eMMC";
  }
  if (StartsWith(name, "vd") || StartsWith(name, "xvd")) return "virtual disk";
  if (StartsWith(name, "sd")) {
    if (device.string().find("/usb") != std::string::npos) return "USB drive";
    if (device.string().find("ufs") != std::string::npos) return "UFS";
    return facts.is_rotational.value_or(false) ? "hard disk" : "SSD";
  }
  return name;
}

}  // namespace

MemoryFacts ReadMemoryFacts(const std::string& system_root) {
  MemoryFacts facts;
  const auto kilobytes = [&](std::string_view key) -> std::optional<uint64_t> {
    const auto word = WordBehind(system_root + "/proc/meminfo", key);
    const auto count = word ? ParseCount(*word) : std::nullopt;
    if (!count || *count > UINT64_MAX / 1024) return std::nullopt;
    return *count * 1024;
  };
  facts.total_bytes = kilobytes("MemTotal:");
  facts.available_bytes = kilobytes("MemAvailable:");
  facts.swap_bytes = kilobytes("SwapTotal:");
  facts.swap_free_bytes = kilobytes("SwapFree:");
  facts.cgroup_limit_bytes = MemoryCgroupLimitBytes(system_root);
  for (const CgroupPlace& place : CgroupPlaces("memory", system_root)) {
    // Where both are mounted, a controller that v1 has is not in v2.
    const auto version = static_cast<uint64_t>(place.version);
    facts.cgroup_version =
        std::min(version, facts.cgroup_version.value_or(version));
  }
  facts.free_bytes = AvailableMemoryBytes(system_root);
  return facts;
}

LimitFacts ReadLimitFacts(const std::string& system_root) {
  const auto limit = [&](std::string_view key) -> std::optional<uint64_t> {
    const auto word = WordBehind(system_root + "/proc/self/limits", key);
    if (word == "unlimited") return kNoLimit;
    return word ? ParseCount(*word) : std::nullopt;
  };
  LimitFacts facts;
  facts.address_space_bytes = limit("Max address space");
  facts.locked_bytes = limit("Max locked memory");
  facts.open_files = limit("Max open files");
  constexpr uint64_t kIpcLock = uint64_t{1} << 14;
  const auto capabilities =
      WordBehind(system_root + "/proc/self/status", "CapEff:");
  const auto bits = capabilities ? ParseCount(*capabilities, 16) : std::nullopt;
  facts.may_lock = (bits.value_or(0) & kIpcLock) != 0;
  return facts;
}

ClockFacts ReadClockFacts(const std::string& system_root) {
  ClockFacts facts;
  std::set<std::pair<std::optional<std::string>, std::optional<std::string>>>
      cores;
  ForEachEntry(
      system_root + "/sys/devices/system/cpu", "cpu",
      [&facts, &cores](const fs::path& cpu) {
        const fs::path clock = cpu / "cpufreq";
        const auto governor = ReadLine(clock / "scaling_governor");
        if (governor) {
          facts.governor = !facts.governor || facts.governor == governor
                               ? *governor
                               : "mixed";
        }
        if (!facts.driver) facts.driver = ReadLine(clock / "scaling_driver");
        Raise(facts.current_khz, ReadCount(clock / "scaling_cur_freq"));
        Raise(facts.max_khz, ReadCount(clock / "cpuinfo_max_freq"));
        const auto count =
            ReadCount(cpu / "thermal_throttle/core_throttle_count");
        // Threads of one core show the same count.
        const auto core =
            std::pair(ReadLine(cpu / "topology/physical_package_id"),
                      ReadLine(cpu / "topology/core_id"));
        if (count && (!core.second || cores.insert(core).second)) {
          facts.num_throttled = facts.num_throttled.value_or(0) + *count;
        }
      });
  ForEachEntry(system_root + "/sys/class/thermal", "thermal_zone",
               [&facts](const fs::path& zone) {
                 const auto millidegrees = ReadCount(zone / "temp");
                 if (!millidegrees) return;
                 Raise(
                     facts.celsius,
                     std::optional(static_cast<double>(*millidegrees) / 1000));
               });
  return facts;
}

void AddDeviceFacts(StorageFacts& facts, const std::string& system_root) {
  fs::path device;
  if (facts.device) {
    std::error_code error;
    device =
        fs::canonical(system_root + "/sys/class/block/" + *facts.device, error);
    // A partition lies in the directory of its drive.
    if (fs::exists(device / "partition", error)) device = device.parent_path();
    const auto rotational = ReadCount(device / "queue/rotational");
    if (rotational) facts.is_rotational = *rotational != 0;
    facts.model = StorageModel(*facts.device, system_root);
  }
  facts.kind = KindOf(facts, device);
}

StorageFacts ReadStorageFacts(const std::string& path,
                              const std::string& system_root) {
  StorageFacts facts;
  facts.fs_type = FileSystemType(path, system_root);
  facts.device = BlockDeviceOf(path);
  facts.uring_disabled =
      ReadCount(system_root + "/proc/sys/kernel/io_uring_disabled");
  struct statvfs info {};
  if (statvfs(path.c_str(), &info) == 0) {
    facts.free_bytes = uint64_t{info.f_bavail} * info.f_frsize;
    facts.is_read_only = (info.f_flag & ST_RDONLY) != 0;
  }
  AddDeviceFacts(facts, system_root);
  return facts;
}

}  // namespace flashelm::cli
