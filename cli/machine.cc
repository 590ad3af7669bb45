#include "cli/machine.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

namespace flashelm::cli {
namespace {

namespace fs = std::filesystem;

// Blanks in paths of mountinfo are octal: "\\040".
std::string Unescape(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      result += static_cast<char>(std::stoi(text.substr(i + 1, 3), nullptr, 8));
      i += 3;
    } else {
      result += text[i];
    }
  }
  return result;
}

bool IsBelow(const std::string& path, const std::string& directory) {
  return directory == "/" ||
         (path.compare(0, directory.size(), directory) == 0 &&
          (path.size() == directory.size() || path[directory.size()] == '/'));
}

}  // namespace

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

std::optional<std::string> KernelName() {
  utsname names;
  if (uname(&names) != 0) return std::nullopt;
  return std::string(names.sysname) + " " + names.release;
}

std::optional<std::string> FileSystemType(const std::string& path,
                                          const std::string& system_root) {
  std::error_code error;
  const std::string real = fs::canonical(path, error).string();
  if (error) return std::nullopt;
  std::ifstream mounts(system_root + "/proc/self/mountinfo");
  std::string line;
  std::optional<std::string> type;
  size_t longest = 0;
  while (std::getline(mounts, line)) {
    // ID PARENT MAJOR:MINOR ROOT MOUNT_POINT OPTIONS [TAG...] - TYPE ...
    std::istringstream words(line);
    std::string word;
    std::string mount_point;
    for (int i = 0; i < 5; ++i) words >> mount_point;
    while (words >> word && word != "-") {
    }
    mount_point = Unescape(mount_point);
    // A later mount covers an earlier one at the same place.
    if (words >> word && IsBelow(real, mount_point) &&
        mount_point.size() >= longest) {
      longest = mount_point.size();
      type = word;
    }
  }
  return type;
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

std::optional<std::string> StorageModel(const std::string& block_device,
                                        const std::string& system_root) {
  std::error_code error;
  fs::path device =
      fs::canonical(system_root + "/sys/class/block/" + block_device, error);
  if (error) return std::nullopt;
  // A partition lies in the directory of its drive.
  if (fs::exists(device / "partition", error)) device = device.parent_path();
  for (const char* name : {"device/model", "device/name"}) {
    std::ifstream file(device / name);
    std::string line;
    if (!std::getline(file, line)) continue;
    const size_t end = line.find_last_not_of(" \t");
    if (end != std::string::npos) return line.substr(0, end + 1);
  }
  return std::nullopt;
}

}  // namespace flashelm::cli
