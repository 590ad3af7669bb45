#include "core/base/process_counters.h"

#include <sys/resource.h>

#include <cinttypes>
#include <cstdio>

namespace flashelm {

ProcessCounters ReadProcessCounters() {
  ProcessCounters counters;
  if (std::FILE* file = std::fopen("/proc/self/io", "re")) {
    char line[256];
    while (std::fgets(line, sizeof(line), file) != nullptr) {
      uint64_t value = 0;
      if (std::sscanf(line, "read_bytes: %" SCNu64, &value) == 1) {
        counters.device_read_bytes = value;
      } else if (std::sscanf(line, "write_bytes: %" SCNu64, &value) == 1) {
        counters.device_write_bytes = value;
      }
    }
    std::fclose(file);
  }
  rusage usage;
  if (getrusage(RUSAGE_SELF, &usage) == 0) {
    counters.minor_faults = static_cast<uint64_t>(usage.ru_minflt);
    counters.major_faults = static_cast<uint64_t>(usage.ru_majflt);
    const auto to_ns = [](const timeval& time) {
      return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 +
             static_cast<uint64_t>(time.tv_usec) * 1000;
    };
    counters.cpu_ns = to_ns(usage.ru_utime) + to_ns(usage.ru_stime);
  }
  return counters;
}

}  // namespace flashelm
