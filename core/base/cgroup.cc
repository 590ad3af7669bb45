#include "core/base/cgroup.h"

#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

namespace flashelm {

std::vector<CgroupPlace> CgroupPlaces(std::string_view controller,
                                      const std::string& system_root) {
  const std::string mounts = system_root + "/sys/fs/cgroup";
  const std::string wanted = "," + std::string(controller) + ",";
  std::vector<CgroupPlace> places;
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(
      std::fopen((system_root + "/proc/self/cgroup").c_str(), "re"),
      [](std::FILE* open) { return open != nullptr ? std::fclose(open) : 0; });
  char line[4096];
  while (file != nullptr &&
         std::fgets(line, sizeof(line), file.get()) != nullptr) {
    // id:controllers:/path, where v2 has id 0 and no controllers.
    line[std::strcspn(line, "\n")] = '\0';
    const char* controllers = std::strchr(line, ':');
    if (controllers == nullptr) continue;
    const char* path = std::strchr(++controllers, ':');
    if (path == nullptr) continue;
    const std::string names(controllers, path);
    std::string group(path + 1);
    if (group == "/") group.clear();
    if (names.empty()) {
      places.push_back({2, mounts, std::move(group)});
    } else if (("," + names + ",").find(wanted) != std::string::npos) {
      places.push_back(
          {1, mounts + "/" + std::string(controller), std::move(group)});
    }
  }
  return places;
}

}  // namespace flashelm
