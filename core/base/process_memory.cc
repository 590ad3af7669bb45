#include "core/base/process_memory.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "core/base/cgroup.h"

namespace flashelm {
namespace {

struct FileCloser {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using UniqueFile = std::unique_ptr<std::FILE, FileCloser>;

UniqueFile OpenText(const char* path) {
  return UniqueFile(std::fopen(path, "re"));
}

// The number in the line of a file that begins with `key`.
std::optional<uint64_t> ReadValue(const char* path, const char* key) {
  UniqueFile file = OpenText(path);
  if (file == nullptr) return std::nullopt;
  char line[256];
  const size_t key_length = std::strlen(key);
  while (std::fgets(line, sizeof(line), file.get()) != nullptr) {
    if (std::strncmp(line, key, key_length) == 0) {
      return std::strtoull(line + key_length, nullptr, 10);
    }
  }
  return std::nullopt;
}

// The same of "key  NUMBER kB" in a /proc file, in bytes.
std::optional<uint64_t> ReadKilobytes(const char* path, const char* key) {
  auto value = ReadValue(path, key);
  if (value) *value *= 1024;
  return value;
}

// The number that a cgroup file holds; nothing when it says "max".
std::optional<uint64_t> ReadNumber(const std::string& path) {
  UniqueFile file = OpenText(path.c_str());
  uint64_t value = 0;
  if (file == nullptr || std::fscanf(file.get(), "%" SCNu64, &value) != 1) {
    return std::nullopt;
  }
  return value;
}

// What is left in the group at `directory` and in every group around it. Pages
// of files that have not been used again are given up before anything else, so
// they count as left, as they do in MemAvailable.
std::optional<uint64_t> CgroupLeft(const std::string& root, std::string group,
                                   const char* limit_file,
                                   const char* usage_file,
                                   const char* cache_key) {
  std::optional<uint64_t> left;
  while (true) {
    const std::string directory = root + group + "/";
    const auto limit = ReadNumber(directory + limit_file);
    const auto usage = ReadNumber(directory + usage_file);
    if (limit && usage) {
      const uint64_t cache = std::min(
          ReadValue((directory + "memory.stat").c_str(), cache_key).value_or(0),
          *usage);
      const uint64_t used = *usage - cache;
      const uint64_t here = *limit > used ? *limit - used : 0;
      left = left ? std::min(*left, here) : here;
    }
    const size_t slash = group.rfind('/');
    if (slash == std::string::npos) return left;
    group.resize(slash);
  }
}

}  // namespace

std::optional<ProcessMemory> ReadProcessMemory() {
  const auto resident = ReadKilobytes("/proc/self/status", "VmRSS:");
  const auto peak = ReadKilobytes("/proc/self/status", "VmHWM:");
  if (!resident || !peak) return std::nullopt;
  ProcessMemory memory;
  memory.resident_bytes = *resident;
  memory.peak_resident_bytes = *peak;
  memory.anonymous_bytes = ReadKilobytes("/proc/self/status", "RssAnon:");
  memory.file_bytes = ReadKilobytes("/proc/self/status", "RssFile:");
  const auto shared = ReadKilobytes("/proc/self/status", "RssShmem:");
  if (memory.file_bytes && shared) *memory.file_bytes += *shared;
  memory.swapped_bytes = ReadKilobytes("/proc/self/status", "VmSwap:");
  return memory;
}

std::optional<uint64_t> MappedFileBytes() {
  UniqueFile file = OpenText("/proc/self/maps");
  if (file == nullptr) return std::nullopt;
  uint64_t total = 0;
  char line[4096];
  while (std::fgets(line, sizeof(line), file.get()) != nullptr) {
    uint64_t begin = 0;
    uint64_t end = 0;
    uint64_t inode = 0;
    // address perms offset dev inode path; inode 0 is memory without a file.
    if (std::sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %*s %*s %" SCNu64,
                    &begin, &end, &inode) == 3 &&
        inode != 0) {
      total += end - begin;
    }
  }
  return total;
}

std::optional<uint64_t> AvailableMemoryBytes(const std::string& system_root) {
  auto available =
      ReadKilobytes((system_root + "/proc/meminfo").c_str(), "MemAvailable:");
  for (const CgroupPlace& place : CgroupPlaces("memory", system_root)) {
    const auto left =
        place.version == 1
            ? CgroupLeft(place.root, place.group, "memory.limit_in_bytes",
                         "memory.usage_in_bytes", "total_inactive_file ")
            : CgroupLeft(place.root, place.group, "memory.max",
                         "memory.current", "inactive_file ");
    if (left) available = available ? std::min(*available, *left) : *left;
  }
  return available;
}

std::optional<uint64_t> MemoryCgroupLimitBytes(const std::string& system_root) {
  // What v1 says in place of "max" is this or more, less a page.
  constexpr uint64_t kNoLimit = uint64_t{1} << 62;
  std::optional<uint64_t> limit;
  for (const CgroupPlace& place : CgroupPlaces("memory", system_root)) {
    std::string group = place.group;
    while (true) {
      const auto here = ReadNumber(
          place.root + group +
          (place.version == 1 ? "/memory.limit_in_bytes" : "/memory.max"));
      if (here && *here < kNoLimit) {
        limit = limit ? std::min(*limit, *here) : *here;
      }
      const size_t slash = group.rfind('/');
      if (slash == std::string::npos) break;
      group.resize(slash);
    }
  }
  return limit;
}

}  // namespace flashelm
