#include "core/base/processors.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "core/base/cgroup.h"
#include "core/base/checked_math.h"

namespace flashelm {
namespace {

// The numbers of the processors in the affinity mask.
std::vector<uint32_t> AffinityMask() {
  std::vector<uint32_t> processors;
  // The kernel refuses a mask that is smaller than its own.
  constexpr size_t kMostProcessors = size_t{1} << 16;
  for (size_t most = CPU_SETSIZE; most <= kMostProcessors; most *= 2) {
    std::vector<cpu_set_t> mask(most / CPU_SETSIZE);
    const size_t num_bytes = mask.size() * sizeof(cpu_set_t);
    if (sched_getaffinity(0, num_bytes, mask.data()) == 0) {
      for (size_t i = 0; i < most; ++i) {
        if (CPU_ISSET_S(i, num_bytes, mask.data())) {
          processors.push_back(static_cast<uint32_t>(i));
        }
      }
      break;
    }
    if (errno != EINVAL) break;
  }
  return processors;
}

// The first line of a file, or nothing.
std::optional<std::string> ReadLine(const std::string& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(
      std::fopen(path.c_str(), "re"),
      [](std::FILE* open) { return open != nullptr ? std::fclose(open) : 0; });
  char line[4096];
  if (file == nullptr ||
      std::fgets(line, sizeof(line), file.get()) == nullptr) {
    return std::nullopt;
  }
  std::string text(line);
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) {
    text.pop_back();
  }
  return text;
}

// The number that `text` is, all of it; nothing else, signs among it.
std::optional<uint64_t> ParseNumber(std::string_view text) {
  uint64_t value = 0;
  const char* const text_end = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), text_end, value);
  if (error != std::errc() || end != text_end) return std::nullopt;
  return value;
}

std::optional<uint64_t> ReadLineAsNumber(const std::string& path) {
  const auto line = ReadLine(path);
  return line ? ParseNumber(*line) : std::nullopt;
}

// Processors that a quota of time per period pays for.
std::optional<uint64_t> Processors(std::optional<uint64_t> quota_us,
                                   std::optional<uint64_t> period_us) {
  if (!quota_us || !period_us || *quota_us == 0 || *period_us == 0) {
    return std::nullopt;
  }
  return CeilDiv(*quota_us, *period_us);
}

// Of one group: "150000 100000" or "max 100000" in v2, two files in v1, where
// -1 is no quota.
std::optional<uint64_t> QuotaOf(int version, const std::string& directory) {
  if (version == 1) {
    return Processors(ReadLineAsNumber(directory + "/cpu.cfs_quota_us"),
                      ReadLineAsNumber(directory + "/cpu.cfs_period_us"));
  }
  const auto line = ReadLine(directory + "/cpu.max");
  if (!line) return std::nullopt;
  const size_t blank = std::min(line->find(' '), line->size());
  const std::string_view text(*line);
  return Processors(ParseNumber(text.substr(0, blank)),
                    ParseNumber(text.substr(std::min(blank + 1, text.size()))));
}

// The least quota of our groups and all around them.
uint64_t Quota(const std::string& system_root) {
  uint64_t least = UINT64_MAX;
  for (const CgroupPlace& place : CgroupPlaces("cpu", system_root)) {
    std::string group = place.group;
    while (true) {
      if (const auto quota = QuotaOf(place.version, place.root + group)) {
        least = std::min(least, *quota);
      }
      // In a container, our own path may not be visible, but its root is.
      const size_t slash = group.rfind('/');
      if (slash == std::string::npos) break;
      group.resize(slash);
    }
  }
  return least;
}

// The lowest processor of a list such as "0-1,8" that names `processor`;
// nothing when it does not, or is no list.
std::optional<uint64_t> LowestSibling(std::string_view list,
                                      uint32_t processor) {
  uint64_t lowest = UINT64_MAX;
  bool is_named = false;
  while (true) {
    const size_t comma = std::min(list.find(','), list.size());
    const std::string_view range = list.substr(0, comma);
    const size_t dash = std::min(range.find('-'), range.size());
    const auto first = ParseNumber(range.substr(0, dash));
    const auto last =
        dash == range.size() ? first : ParseNumber(range.substr(dash + 1));
    if (!first || !last || *last < *first) return std::nullopt;
    lowest = std::min(lowest, *first);
    is_named = is_named || (*first <= processor && processor <= *last);
    if (comma == list.size()) break;
    list.remove_prefix(comma + 1);
  }
  return is_named ? std::optional(lowest) : std::nullopt;
}

// A number that the hardware threads of one physical core have in common.
uint64_t CoreOf(const std::string& directory, uint32_t processor) {
  for (const char* file :
       {"/topology/core_cpus_list", "/topology/thread_siblings_list"}) {
    const auto list = ReadLine(directory + file);
    const auto lowest = list ? LowestSibling(*list, processor) : std::nullopt;
    if (lowest) return *lowest;
  }
  return processor;
}

// How fast each processor is, in a unit that they share; empty where one does
// not say.
std::vector<uint64_t> Speeds(const std::vector<std::string>& directories) {
  std::vector<uint64_t> speeds;
  for (const char* file : {"/cpu_capacity", "/cpufreq/cpuinfo_max_freq"}) {
    speeds.clear();
    for (const std::string& directory : directories) {
      const auto speed = ReadLineAsNumber(directory + file);
      if (!speed || *speed == 0) break;
      speeds.push_back(*speed);
    }
    if (speeds.size() == directories.size()) return speeds;
  }
  return {};
}

}  // namespace

UsableProcessors FindUsableProcessors() {
  return FindUsableProcessors(AffinityMask(), "");
}

UsableProcessors FindUsableProcessors(std::span<const uint32_t> processors,
                                      const std::string& system_root) {
  std::vector<std::string> directories;
  for (const uint32_t processor : processors) {
    directories.push_back(system_root + "/sys/devices/system/cpu/cpu" +
                          std::to_string(processor));
  }
  const std::vector<uint64_t> speeds = Speeds(directories);
  const double least_speed = speeds.empty()
                                 ? 0
                                 : 0.8 * static_cast<double>(*std::max_element(
                                             speeds.begin(), speeds.end()));
  std::vector<uint64_t> cores;
  for (size_t i = 0; i < processors.size(); ++i) {
    if (speeds.empty() || static_cast<double>(speeds[i]) >= least_speed) {
      cores.push_back(CoreOf(directories[i], processors[i]));
    }
  }
  std::sort(cores.begin(), cores.end());
  cores.erase(std::unique(cores.begin(), cores.end()), cores.end());

  const uint64_t quota = Quota(system_root);
  const auto capped = [&](size_t count) {
    return static_cast<uint32_t>(
        std::max<uint64_t>(1, std::min<uint64_t>(count, quota)));
  };
  return {capped(processors.size()), capped(cores.size())};
}

uint64_t LastLevelCacheBytes() {
  if (const uint64_t bytes = LastLevelCacheBytes("")) return bytes;
  uint64_t most = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
  // The C library may be wrong in a virtual machine: glibc 2.36 says 320 MiB
  // for the 32 of an EPYC.
  for (const int name : {_SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE}) {
    // Below 0 where it is not known.
    most = std::max(most, static_cast<uint64_t>(std::max(0L, sysconf(name))));
  }
#endif
  return most;
}

uint64_t LastLevelCacheBytes(const std::string& system_root) {
  constexpr uint64_t kKib = 1024;
  uint64_t most = 0;
  for (int i = 0;; ++i) {
    auto size =
        ReadLine(system_root + "/sys/devices/system/cpu/cpu0/cache/index" +
                 std::to_string(i) + "/size");
    if (!size) return most;
    if (size->empty() || size->back() != 'K') continue;
    size->pop_back();
    most = std::max(most, ParseNumber(*size).value_or(0) * kKib);
  }
}

}  // namespace flashelm
