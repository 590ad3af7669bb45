// Where this process stands in the kernel's memory cgroups.
#ifndef FLASHELM_CORE_BASE_CGROUP_H_
#define FLASHELM_CORE_BASE_CGROUP_H_

#include <string>
#include <vector>

namespace flashelm {

struct MemoryCgroupPlace {
  int version = 2;    // Of the cgroup interface; file names differ.
  std::string root;   // Where the hierarchy is mounted.
  std::string group;  // Below it, "/a/b"; empty at the root.
};

// The places of this process, one for each hierarchy that could limit memory.
// Empty on a platform without cgroups.
std::vector<MemoryCgroupPlace> MemoryCgroupPlaces();

}  // namespace flashelm

#endif  // FLASHELM_CORE_BASE_CGROUP_H_
