// Compares the library's sources with a table of what only Linux has, so that
// whoever brings it to another platform finds all of that in the same few
// files. The command is for Linux, and so are tests and benchmarks.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <string>

namespace {

namespace fs = std::filesystem;

struct LinuxOnly {
  const char* what;             // A regular expression.
  std::set<std::string> files;  // That may have it.
};

const LinuxOnly kLinuxOnly[] = {
    // The machine, and what the process takes of it.
    {R"("/proc/self/fd)", {"storage/file.cc"}},
    {R"("/proc/(?!self/fd))",
     {"core/base/cgroup.cc", "core/base/process_counters.cc",
      "core/base/process_memory.cc"}},
    {R"("/sys/)", {"core/base/cgroup.cc", "core/base/processors.cc"}},
    {R"(\b(sched_[gs]etaffinity|cpu_set_t|CPU_\w+)\b)",
     {"core/base/processors.cc"}},
    {R"(\bgetauxval\()", {"kernels/cpu.cc"}},
    {R"(\bMADV_HUGEPAGE\b)",
     {"core/base/memory.cc", "storage/async_reader.cc"}},
    // Elsewhere it need not give pages back, nor zero them.
    {R"(\bMADV_DONTNEED\b)", {"core/base/memory.cc"}},
    // Files and how they are read.
    {R"(\bO_DIRECT\b)", {"storage/file.cc"}},
    {R"(\bposix_fadvise\b)", {"storage/file.cc"}},
    {R"(\bfallocate\b)", {"storage/output_file.cc"}},
    {R"(\bio_uring_\w+|<liburing)", {"storage/uring_reader.cc"}},
    {R"(\b__linux__\b)", {"kernels/cpu.cc", "storage/output_file.cc"}},
    // Nothing needs these so far.
    {R"(<(linux/|malloc\.h|sys/(epoll|eventfd|inotify|prctl|sendfile|syscall|)"
     R"(sysinfo|timerfd)\.h))",
     {}},
    {R"(\b(gettid|mallopt|malloc_trim|memfd_create|mincore|mremap|)"
     R"(prctl|preadv2|pthread_set(affinity|name)_np|splice|statx|)"
     R"(sync_file_range|syscall)\()",
     {}},
    {R"(\b(MAP_POPULATE|O_TMPFILE|O_PATH|MADV_COLD|MADV_PAGEOUT|RWF_\w+)\b)",
     {}},
};

// A file without its comments.
std::string CodeOf(const fs::path& path) {
  std::ifstream file(path);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  std::string code;
  for (size_t at = 0; at < text.size();) {
    const size_t comment = std::min(text.find("//", at), text.find("/*", at));
    code += text.substr(at, comment - at);
    if (comment == std::string::npos) break;
    at = text[comment + 1] == '/' ? text.find('\n', comment)
                                  : text.find("*/", comment) + 2;
    if (at == std::string::npos) break;
  }
  return code;
}

TEST(PlatformRulesTest, WhatOnlyLinuxHasStandsInFewFiles) {
  const fs::path root(FLASHELM_SOURCE_DIR);
  std::map<std::string, std::string> sources;
  for (const char* top :
       {"core", "include", "kernels", "predictor", "storage"}) {
    for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
      const std::string extension = entry.path().extension();
      if (extension == ".cc" || extension == ".h" || extension == ".hpp") {
        sources[fs::relative(entry.path(), root).string()] =
            CodeOf(entry.path());
      }
    }
  }
  EXPECT_GT(sources.size(), 100u) << "the sources were not found";
  for (const LinuxOnly& only : kLinuxOnly) {
    const std::regex pattern(only.what);
    std::set<std::string> found;
    for (const auto& [path, code] : sources) {
      std::smatch match;
      if (!std::regex_search(code, match, pattern)) continue;
      found.insert(path);
      EXPECT_TRUE(only.files.count(path)) << path << " has " << match[0];
    }
    // What the table allows is there, or the table is out of date.
    EXPECT_EQ(found, only.files) << only.what;
  }
}

}  // namespace
