#include "core/base/process_memory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>

#include "tests/temp_directory.h"

namespace flashelm {
namespace {

using Files = std::map<std::string, std::string>;  // Path to content.

constexpr uint64_t kMi = 1 << 20;
constexpr char kCgroupRoot[] = "/sys/fs/cgroup";

std::string Mi(uint64_t count) { return std::to_string(count * kMi) + "\n"; }

Files Machine(uint64_t available_mi, const std::string& groups) {
  return {{"/proc/self/cgroup", groups},
          {"/proc/meminfo", "MemTotal: 99999999 kB\nMemAvailable:   " +
                                std::to_string(available_mi * 1024) + " kB\n"}};
}

// What the files of one group say, in MiB.
Files V2(const std::string& group, const std::string& limit, uint64_t usage,
         uint64_t inactive_file) {
  const std::string directory = kCgroupRoot + group;
  return {{directory + "/memory.max", limit},
          {directory + "/memory.current", Mi(usage)},
          {directory + "/memory.stat",
           "anon 4096\nfile 999999999\n"
           "active_file 999999999\n"
           "inactive_file " +
               Mi(inactive_file)}};
}

Files V1(const std::string& group, const std::string& limit, uint64_t usage,
         uint64_t inactive_file) {
  const std::string directory = kCgroupRoot + ("/memory" + group);
  return {{directory + "/memory.limit_in_bytes", limit},
          {directory + "/memory.usage_in_bytes", Mi(usage)},
          // Without the groups below, then with them.
          {directory + "/memory.stat",
           "inactive_file 4096\n"
           "total_active_file 999999999\n"
           "total_inactive_file " +
               Mi(inactive_file)}};
}

void WriteFiles(std::initializer_list<Files> all,
                const test::TempDirectory& root) {
  for (const Files& files : all) {
    for (const auto& [path, content] : files) {
      const std::string file = root.path() + path;
      std::filesystem::create_directories(
          std::filesystem::path(file).parent_path());
      std::ofstream(file) << content;
    }
  }
}

std::optional<uint64_t> AvailableMi(std::initializer_list<Files> all) {
  const test::TempDirectory root;
  WriteFiles(all, root);
  const auto available = AvailableMemoryBytes(root.path());
  if (!available) return std::nullopt;
  EXPECT_EQ(*available % kMi, 0u);
  return *available / kMi;
}

TEST(AvailableMemoryTest, IsWhatTheSystemSaysWhereNoGroupLimits) {
  EXPECT_EQ(AvailableMi({Machine(700, "")}), 700u);
  EXPECT_EQ(AvailableMi({Machine(700, "0::/\n")}), 700u);
  EXPECT_EQ(AvailableMi({Machine(700, "0::/a\n"), V2("/a", "max\n", 300, 0)}),
            700u);
  EXPECT_EQ(AvailableMi({}), std::nullopt);
}

TEST(AvailableMemoryTest, AGroupLeavesItsLimitLessWhatIsUsed) {
  const Files v2 = Machine(700, "0::/a\n");
  EXPECT_EQ(AvailableMi({v2, V2("/a", Mi(500), 300, 0)}), 200u);
  EXPECT_EQ(AvailableMi({v2, V2("/a", Mi(5000), 300, 0)}), 700u);
  EXPECT_EQ(AvailableMi({v2, V2("/a", Mi(500), 501, 0)}), 0u);
  const Files v1 = Machine(700, "5:cpu:/b\n4:memory:/a\n");
  EXPECT_EQ(AvailableMi({v1, V1("/a", Mi(500), 300, 0)}), 200u);
  // What v1 says where there is no limit.
  EXPECT_EQ(AvailableMi({v1, V1("/a", "9223372036854771712\n", 300, 0)}), 700u);
}

TEST(AvailableMemoryTest, FilePagesNotUsedAgainAreFree) {
  EXPECT_EQ(AvailableMi({Machine(700, "0::/a\n"), V2("/a", Mi(500), 490, 290)}),
            300u);
  EXPECT_EQ(
      AvailableMi({Machine(700, "4:memory:/a\n"), V1("/a", Mi(500), 490, 290)}),
      300u);
  // The files are read one after the other and need not agree.
  EXPECT_EQ(AvailableMi({Machine(700, "0::/a\n"), V2("/a", Mi(500), 300, 400)}),
            500u);
}

TEST(AvailableMemoryTest, TheTightestGroupAroundTheProcessCounts) {
  EXPECT_EQ(
      AvailableMi({Machine(700, "0::/a/b/c\n"), V2("/a", Mi(500), 400, 0),
                   V2("/a/b", "max\n", 300, 0), V2("/a/b/c", Mi(400), 200, 0)}),
      100u);
  EXPECT_EQ(AvailableMi({Machine(700, "4:memory:/a/b\n0::/c\n"),
                         V1("/a", Mi(500), 400, 0), V1("/a/b", Mi(90), 40, 10),
                         V2("/c", Mi(600), 30, 0)}),
            60u);
}

TEST(ProcessMemoryTest, ResidentPagesAreOfOneKindOrTheOther) {
  const auto memory = ReadProcessMemory();
  if (!memory || !memory->anonymous_bytes || !memory->file_bytes) {
    GTEST_SKIP() << "this system does not say";
  }
  EXPECT_GT(*memory->anonymous_bytes, 0u);
  EXPECT_GT(*memory->file_bytes, 0u);
  // Read line by line, while pages come and go.
  EXPECT_NEAR(
      static_cast<double>(*memory->anonymous_bytes + *memory->file_bytes),
      static_cast<double>(memory->resident_bytes), 1 << 20);
}

TEST(ProcessMemoryTest, TheSmallestLimitOfTheGroupsAroundItCounts) {
  const auto limit = [](std::initializer_list<Files> all) {
    const test::TempDirectory root;
    WriteFiles(all, root);
    return MemoryCgroupLimitBytes(root.path());
  };
  EXPECT_EQ(limit({Machine(700, "0::/a/b\n"), V2("/a", Mi(500), 0, 0),
                   V2("/a/b", "max\n", 0, 0)}),
            500 * kMi);
  EXPECT_EQ(limit({Machine(700, "4:memory:/a/b\n"), V1("/a", Mi(500), 0, 0),
                   V1("/a/b", Mi(90), 0, 0)}),
            90 * kMi);
  EXPECT_EQ(limit({Machine(700, "4:memory:/a\n"),
                   V1("/a", "9223372036854771712\n", 0, 0)}),
            std::nullopt);
  EXPECT_EQ(limit({Machine(700, "")}), std::nullopt);
}

}  // namespace
}  // namespace flashelm
