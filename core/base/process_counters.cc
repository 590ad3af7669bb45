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
  }
  return counters;
}

}  // namespace flashelm
