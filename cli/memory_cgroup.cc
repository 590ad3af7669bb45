#include "cli/memory_cgroup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <string_view>
#include <thread>
#include <utility>

#include "core/base/cgroup.h"
#include "core/text_file.h"

namespace flashelm::cli {
namespace {

// Kernel files: they are no regular files to replace, but take one write.
Status WriteValue(const std::string& path, std::string_view value) {
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  const bool written = fd >= 0 && write(fd, value.data(), value.size()) ==
                                      static_cast<ssize_t>(value.size());
  const int error = errno;
  if (fd >= 0) close(fd);
  if (written) return OkStatus();
  return Unavailable("cannot write ", value, " to ", path, ": ",
                     std::strerror(error));
}

std::string ReadValue(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  char buffer[4096];
  const ssize_t got = read(fd, buffer, sizeof(buffer));
  close(fd);
  return got > 0 ? std::string(buffer, static_cast<size_t>(got)) : "";
}

std::optional<uint64_t> LeadingCount(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  return value;
}

std::optional<uint64_t> ReadCount(const std::string& path) {
  return LeadingCount(ReadValue(path));
}

// The number in the line "key NUMBER".
std::optional<uint64_t> ReadCount(const std::string& path,
                                  std::string_view key) {
  const std::string text = "\n" + ReadValue(path);
  const std::string wanted = "\n" + std::string(key) + " ";
  const size_t at = text.find(wanted);
  if (at == std::string::npos) return std::nullopt;
  return LeadingCount(std::string_view(text).substr(at + wanted.size()));
}

}  // namespace

Result<MemoryCgroup> MemoryCgroup::Create(uint64_t limit_bytes) {
  std::string reason = "this system has no memory cgroups";
  for (const CgroupPlace& place : CgroupPlaces("memory")) {
    // In v2 a group with processes in it passes no controllers on, so its
    // parent may have to do; in a container, our own path may not be visible.
    std::string group = place.group;
    while (true) {
      const std::string directory =
          place.root + group + "/flashelm-bench-" + std::to_string(getpid());
      if (mkdir(directory.c_str(), 0755) == 0) {
        MemoryCgroup cgroup(place.version, directory);
        const Status limited = cgroup.Limit(limit_bytes);
        if (limited.ok()) return cgroup;
        reason = limited.message();
      } else {
        const int error = errno;
        reason = StatusMessage::Join("cannot make ", directory, ": ",
                                     std::strerror(error));
      }
      const size_t slash = group.rfind('/');
      if (slash == std::string::npos) break;
      group.resize(slash);
    }
  }
  return Unavailable(reason);
}

Status MemoryCgroup::Limit(uint64_t limit_bytes) {
  const std::string limit = std::to_string(limit_bytes);
  const auto exists = [&](const char* file) {
    return access((directory_ + file).c_str(), F_OK) == 0;
  };
  if (version_ == 1) {
    FLASHELM_RETURN_IF_ERROR(
        WriteValue(directory_ + "/memory.limit_in_bytes", limit));
    // RAM and swap together; where swap is not counted, at least none is
    // sought.
    if (exists("/memory.memsw.limit_in_bytes")) {
      return WriteValue(directory_ + "/memory.memsw.limit_in_bytes", limit);
    }
    return WriteValue(directory_ + "/memory.swappiness", "0");
  }
  FLASHELM_RETURN_IF_ERROR(WriteValue(directory_ + "/memory.max", limit));
  if (!exists("/memory.swap.max")) return OkStatus();
  return WriteValue(directory_ + "/memory.swap.max", "0");
}

MemoryCgroup::MemoryCgroup(MemoryCgroup&& other) noexcept
    : version_(other.version_),
      directory_(std::exchange(other.directory_, "")) {}

MemoryCgroup::~MemoryCgroup() {
  if (directory_.empty()) return;
  // The kernel takes a moment to see that a process that ended has left.
  for (int i = 0; i < 50 && rmdir(directory_.c_str()) != 0; ++i) {
    if (errno != EBUSY) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

Status MemoryCgroup::Add(pid_t pid) {
  return WriteValue(directory_ + "/cgroup.procs", std::to_string(pid));
}

MemoryCgroup::Usage MemoryCgroup::usage() const {
  Usage usage;
  usage.version = version_;
  if (version_ == 1) {
    usage.limit_bytes = ReadCount(directory_ + "/memory.limit_in_bytes");
    usage.peak_bytes = ReadCount(directory_ + "/memory.max_usage_in_bytes");
    usage.limit_hits = ReadCount(directory_ + "/memory.failcnt");
    usage.oom_kills = ReadCount(directory_ + "/memory.oom_control", "oom_kill");
  } else {
    usage.limit_bytes = ReadCount(directory_ + "/memory.max");
    usage.peak_bytes = ReadCount(directory_ + "/memory.peak");
    usage.limit_hits = ReadCount(directory_ + "/memory.events", "max");
    usage.oom_kills = ReadCount(directory_ + "/memory.events", "oom_kill");
  }
  return usage;
}

}  // namespace flashelm::cli
