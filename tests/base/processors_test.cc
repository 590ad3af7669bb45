#include "core/base/processors.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "tests/temp_directory.h"

namespace flashelm {
namespace {

using Files = std::map<std::string, std::string>;  // Path to content.

constexpr char kCpu[] = "/sys/devices/system/cpu/cpu";
constexpr char kCgroup[] = "/sys/fs/cgroup";

Files operator+(Files a, const Files& b) {
  a.insert(b.begin(), b.end());
  return a;
}

// One file for each processor from `first` on.
Files PerProcessor(const std::string& name, uint32_t first,
                   const std::vector<std::string>& contents) {
  Files files;
  for (const std::string& content : contents) {
    files[kCpu + std::to_string(first++) + "/" + name] = content + "\n";
  }
  return files;
}

Files V2(const std::string& group, const std::string& cpu_max) {
  return {{"/proc/self/cgroup", "0::" + group + "\n"},
          {kCgroup + group + "/cpu.max", cpu_max + "\n"}};
}

Files V1(const std::string& group, const std::string& quota,
         const std::string& period) {
  const std::string directory = std::string(kCgroup) + "/cpu" + group;
  return {{"/proc/self/cgroup",
           "5:memory:/elsewhere\n4:cpu,cpuacct:" + group + "\n0::/\n"},
          {directory + "/cpu.cfs_quota_us", quota + "\n"},
          {directory + "/cpu.cfs_period_us", period + "\n"}};
}

struct Case {
  const char* name;
  std::vector<uint32_t> affinity;
  Files files;
  uint32_t num_processors;
  uint32_t num_cores;
};

std::vector<Case> Cases() {
  const std::vector<uint32_t> two = {0, 1};
  const std::vector<uint32_t> four = {0, 1, 2, 3};
  const std::vector<uint32_t> eight = {0, 1, 2, 3, 4, 5, 6, 7};
  const Files neighbours = PerProcessor("topology/thread_siblings_list", 0,
                                        {"0-1", "0-1", "2-3", "2-3"});
  const Files halves =
      PerProcessor("topology/core_cpus_list", 0, {"0,2", "1,3", "0,2", "1,3"});
  const Files big_little =
      PerProcessor("cpu_capacity", 0,
                   {"446", "446", "446", "446", "1024", "1024", "1024", "871"});
  return {
      {"no files", four, {}, 4, 4},
      {"no processors", {}, {}, 1, 1},
      {"siblings side by side", four, neighbours, 4, 2},
      {"siblings half the machine apart", four, halves, 4, 2},
      {"one sibling of each core", {0, 2}, neighbours, 2, 2},
      {"both siblings of one core", {2, 3}, neighbours, 2, 1},
      {"core_cpus_list is the newer name", two,
       PerProcessor("topology/core_cpus_list", 0, {"0", "1"}) +
           PerProcessor("topology/thread_siblings_list", 0, {"0-1", "0-1"}),
       2, 2},
      {"siblings of a processor that is not named", two,
       PerProcessor("topology/core_cpus_list", 0, {"4-5", "4-5"}), 2, 2},
      {"garbage for siblings", four,
       PerProcessor("topology/core_cpus_list", 0, {"", "x", "1-0", "3,,3"}), 4,
       4},

      {"four big and four little", eight, big_little, 8, 4},
      {"little ones alone", {0, 1, 2}, big_little, 3, 3},
      {"exactly 80 %", two, PerProcessor("cpu_capacity", 0, {"800", "1000"}), 2,
       2},
      {"less than 80 %", two, PerProcessor("cpu_capacity", 0, {"799", "1000"}),
       2, 1},
      {"frequencies where there are no capacities", two,
       PerProcessor("cpufreq/cpuinfo_max_freq", 0, {"1800000", "2800000"}), 2,
       1},
      {"frequencies where a capacity is missing", two,
       PerProcessor("cpu_capacity", 0, {"400"}) +
           PerProcessor("cpufreq/cpuinfo_max_freq", 0, {"2000000", "2000000"}),
       2, 2},
      {"capacities come before frequencies", two,
       PerProcessor("cpu_capacity", 0, {"1024", "1024"}) +
           PerProcessor("cpufreq/cpuinfo_max_freq", 0, {"1000000", "2000000"}),
       2, 2},
      {"garbage for capacities", two,
       PerProcessor("cpu_capacity", 0, {"fast", "-1"}), 2, 2},
      {"a capacity of zero", two, PerProcessor("cpu_capacity", 0, {"0", "1"}),
       2, 2},
      {"big cores with siblings, little ones without",
       {0, 1, 2, 3, 4},
       PerProcessor("topology/core_cpus_list", 0,
                    {"0-1", "0-1", "2", "3", "4"}) +
           PerProcessor("cpu_capacity", 0,
                        {"1024", "1024", "600", "600", "600"}),
       5,
       1},

      {"v2, one and a half", four, V2("/a/b", "150000 100000"), 2, 2},
      {"v2, half a processor", four, V2("/a/b", "50000 100000"), 1, 1},
      {"v2, exactly two", four, V2("/a/b", "200000 100000"), 2, 2},
      {"v2, more than there are", four, V2("/a/b", "900000 100000"), 4, 4},
      {"v2, no quota", four, V2("/a/b", "max 100000"), 4, 4},
      {"v2, of a group around it", four,
       V2("/a/b", "max 100000") +
           Files{{std::string(kCgroup) + "/a/cpu.max", "100000 100000\n"}},
       1, 1},
      {"v2, the least counts", four,
       V2("/a/b", "300000 100000") +
           Files{{std::string(kCgroup) + "/a/cpu.max", "400000 100000\n"}},
       3, 3},
      {"v2, a path that a container does not see",
       four,
       {{"/proc/self/cgroup", "0::/docker/abc\n"},
        {std::string(kCgroup) + "/cpu.max", "250000 100000\n"}},
       3,
       3},
      {"v2, garbage", four, V2("/a", "150000 apples"), 4, 4},
      {"v2, a number alone", four, V2("/a", "150000"), 4, 4},
      {"v2, an empty line", four, V2("/a", ""), 4, 4},
      {"v2, a period of nothing", four, V2("/a", "100000 0"), 4, 4},
      {"v1, one and a half", four, V1("/c", "150000", "100000"), 2, 2},
      {"v1, at the root", four, V1("", "100000", "100000"), 1, 1},
      {"v1, no quota", four, V1("/c", "-1", "100000"), 4, 4},
      {"v1, garbage", four, V1("/c", "lots", "100000"), 4, 4},
      {"v1, a quota of the memory group alone",
       four,
       {{"/proc/self/cgroup", "5:memory:/c\n"},
        {std::string(kCgroup) + "/cpu/c/cpu.cfs_quota_us", "100000\n"},
        {std::string(kCgroup) + "/cpu/c/cpu.cfs_period_us", "100000\n"}},
       4,
       4},
      {"garbage for cgroups", four, {{"/proc/self/cgroup", "::\nx\n\n"}}, 4, 4},

      {"a quota between cores and hardware threads", four,
       neighbours + V2("/a", "300000 100000"), 3, 2},
  };
}

void WriteAll(const Files& files, const std::string& root) {
  for (const auto& [path, content] : files) {
    const std::filesystem::path file = root + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << content;
  }
}

TEST(ProcessorsTest, CountsWhatTheSystemSays) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(c.name);
    const test::TempDirectory root;
    WriteAll(c.files, root.path());
    const UsableProcessors found =
        FindUsableProcessors(c.affinity, root.path());
    EXPECT_EQ(found.num_processors, c.num_processors);
    EXPECT_EQ(found.num_cores, c.num_cores);
  }
}

TEST(ProcessorsTest, FindsTheLargestCache) {
  const auto cache_bytes = [](const std::vector<std::string>& sizes) {
    Files files;
    for (size_t i = 0; i < sizes.size(); ++i) {
      files[std::string(kCpu) + "0/cache/index" + std::to_string(i) + "/size"] =
          sizes[i] + "\n";
    }
    const test::TempDirectory root;
    WriteAll(files, root.path());
    return LastLevelCacheBytes(root.path());
  };
  EXPECT_EQ(cache_bytes({}), 0u);
  EXPECT_EQ(cache_bytes({"32K", "48K", "1024K", "32768K"}), uint64_t{32} << 20);
  EXPECT_EQ(cache_bytes({"32K", "512K", "lots", "-1K"}), uint64_t{512} << 10);
}

TEST(ProcessorsTest, StaysWithinTheAffinityMask) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  const UsableProcessors all = FindUsableProcessors();
  EXPECT_GE(all.num_cores, 1u);
  EXPECT_LE(all.num_cores, all.num_processors);
  EXPECT_LE(all.num_processors, static_cast<uint32_t>(CPU_COUNT(&before)));

  cpu_set_t one;
  CPU_ZERO(&one);
  int processor = 0;
  while (!CPU_ISSET(processor, &before)) ++processor;
  CPU_SET(processor, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  const UsableProcessors found = FindUsableProcessors();
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
  EXPECT_EQ(found.num_processors, 1u);
  EXPECT_EQ(found.num_cores, 1u);
}

}  // namespace
}  // namespace flashelm
