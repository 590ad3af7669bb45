// Where this process stands in the kernel's control groups.
#ifndef FLASHELM_CORE_BASE_CGROUP_H_
#define FLASHELM_CORE_BASE_CGROUP_H_

#include <string>
#include <string_view>
#include <vector>

namespace flashelm {

struct CgroupPlace {
  int version = 2;    // Of the cgroup interface; file names differ.
  std::string root;   // Where the hierarchy is mounted.
  std::string group;  // Below it, "/a/b"; empty at the root.
};

// The places of this process, one for each hierarchy in which a controller,
// such as "memory", could limit it. `system_root` comes before "/proc" and
// "/sys". Empty on a platform without cgroups.
std::vector<CgroupPlace> CgroupPlaces(std::string_view controller,
                                      const std::string& system_root = "");

}  // namespace flashelm

#endif  // FLASHELM_CORE_BASE_CGROUP_H_
