// What doctor reads of a machine, and what it makes of that.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "cli/doctor_advice.h"
#include "cli/machine_facts.h"
#include "tests/temp_directory.h"

namespace flashelm::cli {
namespace {

namespace fs = std::filesystem;

// Files of /proc and /sys of a machine that there is not.
class MachineFactsTest : public testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text) {
    const fs::path file = root() + path;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  std::string root() const { return directory_.path(); }

 private:
  test::TempDirectory directory_;
};

TEST_F(MachineFactsTest, WhatIsNotThereIsNotKnown) {
  const MemoryFacts memory = ReadMemoryFacts(root());
  EXPECT_FALSE(memory.total_bytes || memory.available_bytes ||
               memory.swap_bytes || memory.cgroup_limit_bytes ||
               memory.cgroup_version || memory.free_bytes);
  const LimitFacts limits = ReadLimitFacts(root());
  EXPECT_FALSE(limits.address_space_bytes || limits.locked_bytes ||
               limits.open_files || limits.may_lock);
  const ClockFacts clock = ReadClockFacts(root());
  EXPECT_FALSE(clock.governor || clock.driver || clock.current_khz ||
               clock.max_khz || clock.num_throttled || clock.celsius);
}

TEST_F(MachineFactsTest, MemoryAndItsCgroup) {
  Write("/proc/meminfo",
        "MemTotal:        4000000 kB\nMemFree:          100000 kB\n"
        "MemAvailable:    3000000 kB\nSwapTotal:       1000000 kB\n"
        "SwapFree:         900000 kB\n");
  Write("/proc/self/cgroup", "0::/app\n");
  Write("/proc/self/mountinfo",
        "30 20 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  Write("/sys/fs/cgroup/app/memory.max", "1073741824\n");
  Write("/sys/fs/cgroup/app/memory.current", "73741824\n");
  const MemoryFacts memory = ReadMemoryFacts(root());
  EXPECT_EQ(memory.total_bytes, 4000000u * 1024);
  EXPECT_EQ(memory.available_bytes, 3000000ull * 1024);
  EXPECT_EQ(memory.swap_bytes, 1000000u * 1024);
  EXPECT_EQ(memory.swap_free_bytes, 900000u * 1024);
  EXPECT_EQ(memory.cgroup_limit_bytes, 1073741824u);
  EXPECT_EQ(memory.cgroup_version, 2u);
  EXPECT_EQ(memory.free_bytes, 1000000000u);
}

// Both versions are mounted, and the older one has the controller.
TEST_F(MachineFactsTest, AMemoryCgroupOfTheFirstVersionBesideTheSecond) {
  Write("/proc/self/cgroup", "4:memory:/app\n0::/\n");
  Write("/sys/fs/cgroup/memory/app/memory.limit_in_bytes", "1073741824\n");
  Write("/sys/fs/cgroup/memory/app/memory.usage_in_bytes", "73741824\n");
  const MemoryFacts memory = ReadMemoryFacts(root());
  EXPECT_EQ(memory.cgroup_limit_bytes, 1073741824u);
  EXPECT_EQ(memory.cgroup_version, 1u);
}

TEST_F(MachineFactsTest, Limits) {
  Write("/proc/self/limits",
        "Limit                     Soft Limit           Hard Limit  Units\n"
        "Max open files            1024                 4096        files\n"
        "Max locked memory         65536                65536       bytes\n"
        "Max address space         unlimited            unlimited   bytes\n");
  Write("/proc/self/status", "Name:\tx\nCapEff:\t0000000000004000\n");
  const LimitFacts limits = ReadLimitFacts(root());
  EXPECT_EQ(limits.open_files, 1024u);
  EXPECT_EQ(limits.locked_bytes, 65536u);
  EXPECT_EQ(limits.address_space_bytes, kNoLimit);
  EXPECT_TRUE(limits.may_lock);
}

TEST_F(MachineFactsTest, ClockAndHeat) {
  const std::string cpu = "/sys/devices/system/cpu/cpu";
  Write(cpu + "0/cpufreq/scaling_governor", "powersave\n");
  Write(cpu + "0/cpufreq/scaling_driver", "acpi-cpufreq\n");
  Write(cpu + "0/cpufreq/scaling_cur_freq", "800000\n");
  Write(cpu + "1/cpufreq/scaling_cur_freq", "900000\n");
  Write(cpu + "1/cpufreq/cpuinfo_max_freq", "3000000\n");
  Write(cpu + "0/thermal_throttle/core_throttle_count", "3\n");
  Write(cpu + "1/thermal_throttle/core_throttle_count", "4\n");
  Write("/sys/class/thermal/thermal_zone0/temp", "41000\n");
  Write("/sys/class/thermal/thermal_zone1/temp", "92500\n");
  ClockFacts clock = ReadClockFacts(root());
  EXPECT_EQ(clock.governor, "powersave");
  EXPECT_EQ(clock.driver, "acpi-cpufreq");
  EXPECT_EQ(clock.current_khz, 900000u);
  EXPECT_EQ(clock.max_khz, 3000000u);
  EXPECT_EQ(clock.num_throttled, 7u);
  EXPECT_EQ(clock.celsius, 92.5);
  Write(cpu + "1/cpufreq/scaling_governor", "performance\n");
  EXPECT_EQ(ReadClockFacts(root()).governor, "mixed");
}

TEST_F(MachineFactsTest, KindsOfStorage) {
  const auto kind = [&](const std::string& device, const std::string& place,
                        const std::string& file, const std::string& text) {
    const std::string at = "/sys/devices" + place + "/" + device;
    Write(at + "/size", "1\n");
    if (!file.empty()) Write(at + "/" + file, text);
    fs::create_directories(root() + "/sys/class/block");
    fs::remove(root() + "/sys/class/block/" + device);
    fs::create_symlink(root() + at, root() + "/sys/class/block/" + device);
    StorageFacts facts;
    facts.device = device;
    AddDeviceFacts(facts, root());
    return facts.kind;
  };
  EXPECT_EQ(kind("nvme0n1", "/pci", "queue/rotational", "0\n"), "NVMe");
  EXPECT_EQ(kind("mmcblk0", "/mmc", "device/type", "SD\n"), "SD card");
  EXPECT_EQ(kind("mmcblk1", "/mmc", "device/type", "MMC\n"), "eMMC");
  EXPECT_EQ(kind("sda", "/pci/usb1/1-1", "", ""), "USB drive");
  EXPECT_EQ(kind("sdb", "/soc/1d84000.ufshc", "", ""), "UFS");
  EXPECT_EQ(kind("sdc", "/pci/ata1", "queue/rotational", "1\n"), "hard disk");
  EXPECT_EQ(kind("sdd", "/pci/ata1", "queue/rotational", "0\n"), "SSD");
  EXPECT_EQ(kind("vda", "/virtio", "queue/rotational", "1\n"), "virtual disk");
  EXPECT_EQ(kind("dm-0", "/virtual", "", ""), "dm-0");
  for (const auto& [type, expected] :
       std::vector<std::pair<std::string, std::string>>{
           {"tmpfs", "RAM"}, {"nfs4", "network"}, {"overlay", "unknown"}}) {
    StorageFacts facts;
    facts.fs_type = type;
    AddDeviceFacts(facts, root());
    EXPECT_EQ(facts.kind, expected);
  }
}

ModelOutlook Outlook(const char* shape, const char* weights, uint64_t flash) {
  ModelOutlook model;
  model.shape = shape;
  model.weights = weights;
  model.file_bytes = uint64_t{6} << 30;
  model.whole_bytes = uint64_t{7} << 30;
  model.minimum_bytes = uint64_t{99} << 20;
  model.planned_bytes = 1;
  model.flash_bytes_per_token = flash;
  model.gen_tps = flash == 0 ? 20 : 0.5;
  return model;
}

class AdviceTest : public testing::Test {
 protected:
  AdviceTest() {
    found_.path = "here";
    found_.simd = "AVX2";
    found_.profile.emplace();
    found_.profile->direct_io = true;
    found_.profile->rates = {{IoBackend::kUring,
                              ReadOrder::kSequential,
                              {1 << 20, 4},
                              2'000'000'000}};
  }
  std::vector<std::string> Keys() const {
    std::vector<std::string> keys;
    for (const Advice& each : Advise(found_)) {
      EXPECT_FALSE(each.text.empty());
      keys.push_back(each.key);
    }
    return keys;
  }
  using Expected = std::vector<std::string>;
  Examination found_;
};

TEST_F(AdviceTest, AGoodMachineNeedsNone) {
  found_.memory.total_bytes = 8000;
  found_.memory.available_bytes = 7000;
  found_.limits.locked_bytes = kNoLimit;
  found_.models = {Outlook("3B", "bf16", 0), Outlook("3B", "q4", 0)};
  EXPECT_EQ(Keys(), Expected{});
}

TEST_F(AdviceTest, Memory) {
  found_.memory.total_bytes = uint64_t{8} << 30;
  found_.memory.available_bytes = uint64_t{3} << 30;
  found_.memory.cgroup_limit_bytes = uint64_t{1} << 30;
  found_.memory.swap_bytes = uint64_t{1} << 30;
  found_.memory.swap_free_bytes = uint64_t{1} << 20;
  found_.models = {Outlook("3B", "bf16", 100), Outlook("3B", "q4", 0)};
  EXPECT_EQ(Keys(),
            Expected({"use-q4", "cgroup-limit", "close-programs", "swap"}));
}

TEST_F(AdviceTest, Storage) {
  found_.profile->direct_io = false;
  found_.profile->rates[0].bytes_per_second = 40'000'000;
  found_.profile->uring_refusal = "not permitted";
  found_.storage.kind = "network";
  EXPECT_EQ(Keys(),
            Expected({"move-model", "slow-storage", "direct-io", "io-uring"}));
  found_.storage.uring_disabled = 2;
  found_.storage.kind = "RAM";
  EXPECT_EQ(Keys(), Expected({"model-in-ram", "slow-storage", "io-uring"}));
  found_.profile.reset();
  found_.storage.kind = "hard disk";
  found_.storage_error = "read-only";
  const auto advice = Advise(found_);
  ASSERT_EQ(advice.size(), 1u + 2);
  EXPECT_NE(advice[1].text.find("read-only"), std::string::npos);
}

TEST_F(AdviceTest, ProcessorAndLimits) {
  found_.clock.governor = "powersave";
  found_.clock.num_throttled = 3;
  found_.num_online = 8;
  found_.num_processors = 2;
  found_.simd = "SCALAR";
  found_.limits = {uint64_t{1} << 30, 65536, 32, false};
  EXPECT_EQ(Keys(), Expected({"governor", "cooling", "cpu-quota", "simd",
                              "address-space", "memlock", "open-files"}));
  found_.clock.driver = "intel_pstate";  // Goes with the load all the same.
  found_.clock.celsius = 95;
  found_.limits.may_lock = true;
  EXPECT_EQ(Keys(), Expected({"cooling", "cpu-quota", "simd", "address-space",
                              "open-files"}));
}

TEST(DescribeShapeTest, SaysWhatFitsAndWhatIsRead) {
  std::vector<ModelOutlook> models = {Outlook("3B", "bf16", 3u << 30),
                                      Outlook("3B", "q8", 1u << 30),
                                      Outlook("3B", "q4", 0)};
  EXPECT_EQ(DescribeShape(models, "3B"),
            "fits in RAM whole with q4 weights, at best 20 tokens/s; with q8 "
            "weights 1.00 GiB of 6.00 GiB come from flash for each token, at "
            "best 0.5 tokens/s");
  models.pop_back();
  models.back().gen_tps.reset();
  EXPECT_EQ(DescribeShape(models, "3B"),
            "does not fit in RAM whole: with q8 weights 1.00 GiB of 6.00 GiB "
            "come from flash for each token");
  for (ModelOutlook& model : models) {
    model.planned_bytes.reset();
    model.flash_bytes_per_token.reset();
  }
  EXPECT_EQ(DescribeShape(models, "3B"),
            "does not run: it needs 99.00 MiB of RAM at least");
}

}  // namespace
}  // namespace flashelm::cli
