// What a machine took of energy, where it says so.
#ifndef FLASHELM_CLI_ENERGY_H_
#define FLASHELM_CLI_ENERGY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace flashelm::cli {

// Sums up intervals by the processor's counters (RAPL), and where they cannot
// be read, by the battery, if that is what the machine runs from. Both count
// the whole machine, or the whole processor, not a process. A battery counts in
// coarse steps: intervals of less than minutes may say 0.
class EnergyMeter {
 public:
  // Finds what there is to read. `system_root` comes before "/sys".
  explicit EnergyMeter(const std::string& system_root = "");

  void Begin();
  // Adds what was taken since Begin(). RAPL counters begin anew after some
  // minutes or hours; that they did once is seen, that they did twice is not.
  void End();

  // Nothing when it was not measured, or only in part.
  std::optional<double> joules() const;
  // "rapl", "battery" or nullptr.
  const char* source() const;

 private:
  struct Counter {
    std::string directory;
    std::string file;
    double joules_per_unit;
    // With a value for those that begin anew: 1 more than the last one.
    std::optional<uint64_t> period;
    std::optional<uint64_t> begin;
  };
  void FindRapl(const std::string& directory);
  void FindBattery(const std::string& directory);

  std::vector<Counter> counters_;
  bool is_battery_ = false;
  bool has_gap_ = false;
  bool has_interval_ = false;
  double joules_ = 0;
};

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_ENERGY_H_
