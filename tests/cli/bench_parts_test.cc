// What bench is made of and cannot be seen on every machine: energy counters,
// drives, file systems, and records put together.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "cli/bench_record.h"
#include "cli/energy.h"
#include "cli/machine.h"
#include "tests/temp_directory.h"

namespace flashelm::cli {
namespace {

namespace fs = std::filesystem;
using Files = std::map<std::string, std::string>;  // Path to content.

// A machine's /proc and /sys.
class FakeMachine {
 public:
  explicit FakeMachine(const Files& files) { Write(files); }
  void Write(const Files& files) {
    for (const auto& [path, content] : files) {
      fs::create_directories(fs::path(root() + path).parent_path());
      std::ofstream(root() + path) << content;
    }
  }
  std::string root() const { return directory_.File("root"); }

 private:
  test::TempDirectory directory_;
};

constexpr char kRapl[] = "/sys/class/powercap/intel-rapl:0";
constexpr char kBattery[] = "/sys/class/power_supply/BAT0";

Files RaplZone(const std::string& directory, const std::string& name,
               const std::string& microjoules) {
  return {{directory + "/name", name + "\n"},
          {directory + "/energy_uj", microjoules + "\n"},
          {directory + "/max_energy_range_uj", "9999999\n"}};
}

TEST(EnergyMeterTest, AddsUpPackagesOverIntervals) {
  FakeMachine machine(RaplZone(kRapl, "package-0", "1000000"));
  machine.Write(RaplZone(std::string(kRapl) + ":0", "core", "77"));
  machine.Write(RaplZone("/sys/class/powercap/intel-rapl:1", "psys", "88"));
  machine.Write(
      RaplZone("/sys/class/powercap/intel-rapl-mmio:0", "package-0", "99"));
  EnergyMeter meter(machine.root());
  EXPECT_FALSE(meter.joules().has_value()) << "nothing was measured";
  const std::string file = std::string(kRapl) + "/energy_uj";
  meter.Begin();
  machine.Write({{file, "3500000\n"}});
  meter.End();
  EXPECT_DOUBLE_EQ(meter.joules().value(), 2.5);
  machine.Write({{file, "9000000\n"}});
  meter.Begin();
  machine.Write({{file, "500000\n"}});  // Began anew.
  meter.End();
  EXPECT_DOUBLE_EQ(meter.joules().value(), 2.5 + 1.5);
  EXPECT_STREQ(meter.source(), "rapl");
}

TEST(EnergyMeterTest, ABatteryCountsWhileItIsUsed) {
  const std::string battery = kBattery;
  FakeMachine machine({{battery + "/type", "Battery\n"},
                       {battery + "/status", "Discharging\n"},
                       {battery + "/energy_now", "50000000\n"}});
  EnergyMeter meter(machine.root());
  meter.Begin();
  machine.Write({{battery + "/energy_now", "49990000\n"}});
  meter.End();
  EXPECT_NEAR(meter.joules().value(), 36, 1e-9);  // 10 mWh.
  EXPECT_STREQ(meter.source(), "battery");
  meter.Begin();
  machine.Write({{battery + "/status", "Charging\n"}});
  meter.End();
  EXPECT_FALSE(meter.joules().has_value());
  EXPECT_EQ(meter.source(), nullptr);
}

TEST(EnergyMeterTest, KnowsNothingWhereNothingCounts) {
  FakeMachine machine({{std::string(kBattery) + "/type", "Mains\n"}});
  EnergyMeter meter(machine.root());
  meter.Begin();
  meter.End();
  EXPECT_FALSE(meter.joules().has_value());
}

TEST(MachineTest, ADriveHasTheNameOfItsMaker) {
  FakeMachine machine(
      {{"/sys/devices/nvme0n1/device/model", "Fast Disk 1TB    \n"},
       {"/sys/devices/nvme0n1/nvme0n1p2/partition", "2\n"},
       {"/sys/devices/mmcblk0/device/name", "SD32G\n"},
       {"/sys/devices/vda/size", "1\n"}});
  fs::create_directories(machine.root() + "/sys/class/block");
  const auto link = [&](const std::string& from, const std::string& to) {
    fs::create_symlink(machine.root() + "/sys/devices/" + to,
                       machine.root() + "/sys/class/block/" + from);
  };
  link("nvme0n1", "nvme0n1");
  link("nvme0n1p2", "nvme0n1/nvme0n1p2");
  link("mmcblk0", "mmcblk0");
  link("vda", "vda");
  EXPECT_EQ(StorageModel("nvme0n1", machine.root()), "Fast Disk 1TB");
  EXPECT_EQ(StorageModel("nvme0n1p2", machine.root()), "Fast Disk 1TB");
  EXPECT_EQ(StorageModel("mmcblk0", machine.root()), "SD32G");
  EXPECT_FALSE(StorageModel("vda", machine.root()).has_value());
  EXPECT_FALSE(StorageModel("none", machine.root()).has_value());
}

TEST(MachineTest, AFileIsInTheLongestMountAboveIt) {
  test::TempDirectory directory;
  const std::string file = directory.File("a b");
  std::ofstream(file) << "x";
  const std::string here = fs::canonical(file).parent_path().string();
  FakeMachine machine({{"/proc/self/mountinfo",
                        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
                        "2 1 0:5 / " +
                            here +
                            " rw shared:1 master:2 - xfs /dev/sdb rw\n"
                            "3 1 0:6 / " +
                            here +
                            "x rw - tmpfs none rw\n"
                            "4 2 0:7 / " +
                            here + "/a\\040 rw - vfat /dev/sdc rw\n"}});
  EXPECT_EQ(FileSystemType(file, machine.root()), "xfs");
  EXPECT_EQ(FileSystemType("/", machine.root()), "ext4");
  EXPECT_FALSE(FileSystemType(file + "none", machine.root()).has_value());
}

TEST(BenchRecordTest, PartsAreAddedUpOrAveragedByWhatTheyMean) {
  std::vector<Json> parts(2, EmptyRow());
  for (size_t i = 0; i < parts.size(); ++i) {
    Json& part = parts[i];
    part["n_prompt"] = 0;
    part["n_gen"] = 2;
    part["n_repetitions"] = 1;
    part["cache_state"] = i == 0 ? "cold" : "cold-incomplete";
    part["peak_rss_bytes"] = 100 + i;
    part["majflt"] = 3 + i;
    part["bytes_read"] = i == 0 ? Json(5u) : Json(nullptr);
    part["compute_ms"] = 1.0 + static_cast<double>(i);
    part["samples_ns"] = {2e6 * static_cast<double>(i + 1)};
    part["samples"] = {1.0 + static_cast<double>(i), 2.0};
    part["cgroup"] = EmptyCgroup();
    part["cgroup"]["peak_bytes"] = 10 - i;
    part["cgroup"]["limit_hits"] = 1 + i;
  }
  Json row = MergeParts(parts);
  AddDerivedKeys(row);
  EXPECT_EQ(row["test"], "tg2");
  EXPECT_EQ(row["n_gen"], 2);
  EXPECT_EQ(row["n_repetitions"], 2);
  EXPECT_EQ(row["cache_state"], "cold-incomplete");
  EXPECT_EQ(row["peak_rss_bytes"], 101);
  EXPECT_EQ(row["majflt"], 7);
  EXPECT_TRUE(row["bytes_read"].is_null()) << "one of them is not known";
  EXPECT_EQ(row["compute_ms"], 1.5);
  EXPECT_EQ(row["samples"], Json({1.0, 2.0, 2.0, 2.0}));
  EXPECT_EQ(row["avg_ns"], 3000000);
  EXPECT_EQ(row["stddev_ns"], 1414214);
  EXPECT_DOUBLE_EQ(row["avg_ts"].get<double>(), 750);
  EXPECT_EQ(row["cgroup"]["peak_bytes"], 10);
  EXPECT_EQ(row["cgroup"]["limit_hits"], 3);
}

}  // namespace
}  // namespace flashelm::cli
