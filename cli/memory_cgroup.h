// A memory cgroup that holds one child to a budget.
#ifndef FLASHELM_CLI_MEMORY_CGROUP_H_
#define FLASHELM_CLI_MEMORY_CGROUP_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "core/base/status.h"

namespace flashelm::cli {

// Made below the group of this process, or above it where that one takes no
// children; removed by the destructor, when nothing runs in it any more.
// cgroup v1 and v2. Move-only.
class MemoryCgroup {
 public:
  // Without swap as far as the system counts it. kUnavailable: this system has
  // no memory cgroups, or does not let us make one; says why.
  static Result<MemoryCgroup> Create(uint64_t limit_bytes);

  ~MemoryCgroup();
  MemoryCgroup(MemoryCgroup&& other) noexcept;
  MemoryCgroup& operator=(MemoryCgroup&& other) = delete;

  // Moves a process here. What it takes from now on is charged to the group.
  Status Add(pid_t pid);

  // What the kernel counted; nothing where it does not.
  struct Usage {
    int version = 0;
    std::optional<uint64_t> limit_bytes;
    std::optional<uint64_t> peak_bytes;
    std::optional<uint64_t> limit_hits;  // Times something had to be dropped.
    std::optional<uint64_t> oom_kills;
  };
  Usage usage() const;

 private:
  MemoryCgroup(int version, std::string directory)
      : version_(version), directory_(std::move(directory)) {}
  Status Limit(uint64_t limit_bytes);

  int version_;
  std::string directory_;  // Empty once moved from.
};

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_MEMORY_CGROUP_H_
