#include "cli/machine.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <system_error>

namespace flashelm::cli {

std::optional<std::string> CpuName() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return std::nullopt;
}

std::optional<std::string> BlockDeviceOf(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return std::nullopt;
  std::error_code error;
  const auto device = std::filesystem::canonical(
      "/sys/dev/block/" + std::to_string(major(info.st_dev)) + ":" +
          std::to_string(minor(info.st_dev)),
      error);
  if (error) return std::nullopt;
  return device.filename().string();
}

bool DropPageCache(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool dropped = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0;
  close(fd);
  return dropped;
}

}  // namespace flashelm::cli
