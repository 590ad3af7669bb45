// From what is known of a machine to what its owner may do.
#ifndef FLASHELM_CLI_DOCTOR_ADVICE_H_
#define FLASHELM_CLI_DOCTOR_ADVICE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/machine_facts.h"
#include "cli/model_outlook.h"
#include "core/device.h"

namespace flashelm::cli {

// All that doctor found out.
struct Examination {
  std::string path;
  MemoryFacts memory;
  LimitFacts limits;
  ClockFacts clock;
  StorageFacts storage;
  std::optional<DeviceProfile> profile;
  std::string storage_error;    // Why there is no profile.
  uint32_t num_processors = 1;  // That this process may use,
  uint32_t num_cores = 1;       // and the fast cores among them.
  uint32_t num_online = 1;      // That the machine has.
  std::string simd;
  std::vector<ModelOutlook> models;
};

struct Advice {
  const char* key;  // For programs: "governor".
  std::string text;
};

// What to change, what gains most first. Empty: nothing stands in the way.
std::vector<Advice> Advise(const Examination& found);

// What the models of one shape come to, in a sentence or two.
std::string DescribeShape(const std::vector<ModelOutlook>& models,
                          std::string_view shape);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_DOCTOR_ADVICE_H_
