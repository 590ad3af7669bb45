#include "cli/energy.h"

#include <filesystem>
#include <fstream>
#include <system_error>

namespace flashelm::cli {
namespace {

namespace fs = std::filesystem;

std::string ReadLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::optional<uint64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

}  // namespace

EnergyMeter::EnergyMeter(const std::string& system_root) {
  FindRapl(system_root + "/sys/class/powercap");
  if (counters_.empty()) FindBattery(system_root + "/sys/class/power_supply");
}

void EnergyMeter::FindRapl(const std::string& directory) {
  std::error_code error;
  for (fs::directory_iterator at(directory, error), end; !error && at != end;
       at.increment(error)) {
    const std::string zone = at->path().string();
    const std::string name = ReadLine(zone + "/name");
    // The same package again.
    if (at->path().filename().string().rfind("intel-rapl-mmio", 0) == 0)
      continue;
    // Zones within packages ("core", "uncore") are counted in these; "psys"
    // has the packages in it.
    const bool is_whole = name.rfind("package", 0) == 0 || name == "dram";
    // Root alone may read them on many systems.
    if (!is_whole || !ReadNumber(zone + "/energy_uj")) continue;
    auto period = ReadNumber(zone + "/max_energy_range_uj");
    if (period) ++*period;
    counters_.push_back({zone, "/energy_uj", 1e-6, period, std::nullopt});
  }
}

void EnergyMeter::FindBattery(const std::string& directory) {
  std::error_code error;
  for (fs::directory_iterator at(directory, error), end; !error && at != end;
       at.increment(error)) {
    const std::string supply = at->path().string();
    if (ReadLine(supply + "/type") != "Battery" ||
        ReadLine(supply + "/status") != "Discharging") {
      continue;
    }
    constexpr double kJoulesPerMicrowattHour = 3.6e-3;
    const auto microvolts = ReadNumber(supply + "/voltage_now");
    if (ReadNumber(supply + "/energy_now")) {
      counters_.push_back({supply, "/energy_now", -kJoulesPerMicrowattHour,
                           std::nullopt, std::nullopt});
    } else if (ReadNumber(supply + "/charge_now") && microvolts) {
      counters_.push_back(
          {supply, "/charge_now",
           -kJoulesPerMicrowattHour * 1e-6 * static_cast<double>(*microvolts),
           std::nullopt, std::nullopt});
    }
  }
  is_battery_ = !counters_.empty();
}

void EnergyMeter::Begin() {
  for (Counter& counter : counters_) {
    counter.begin = ReadNumber(counter.directory + counter.file);
  }
}

void EnergyMeter::End() {
  has_interval_ = true;
  for (const Counter& counter : counters_) {
    const auto end = ReadNumber(counter.directory + counter.file);
    // Plugged in meanwhile: the battery tells nothing.
    const bool is_valid = !is_battery_ || ReadLine(counter.directory +
                                                   "/status") == "Discharging";
    if (!counter.begin || !end || !is_valid) {
      has_gap_ = true;
      continue;
    }
    double units =
        static_cast<double>(*end) - static_cast<double>(*counter.begin);
    if (units < 0 && counter.joules_per_unit > 0) {
      if (!counter.period) {
        has_gap_ = true;
        continue;
      }
      units += static_cast<double>(*counter.period);
    }
    joules_ += units * counter.joules_per_unit;
  }
}

std::optional<double> EnergyMeter::joules() const {
  if (counters_.empty() || has_gap_ || !has_interval_) return std::nullopt;
  return joules_;
}

const char* EnergyMeter::source() const {
  if (!joules()) return nullptr;
  return is_battery_ ? "battery" : "rapl";
}

}  // namespace flashelm::cli
