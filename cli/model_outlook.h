// What the published models would do on this machine.
#ifndef FLASHELM_CLI_MODEL_OUTLOOK_H_
#define FLASHELM_CLI_MODEL_OUTLOOK_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/plan_forecast.h"
#include "cli/verbs.h"
#include "core/base/status.h"

namespace flashelm::cli {

// A published shape in one encoding, before anything of it is there, in the
// budget that --mem-budget auto stands for.
struct ModelOutlook {
  std::string shape;    // "3B"
  std::string weights;  // "q4"
  std::string name;     // As a file has it: "q4+q8".
  uint64_t num_params = 0;
  uint64_t file_bytes = 0;
  uint64_t whole_bytes = 0;    // RAM to hold all of it.
  uint64_t minimum_bytes = 0;  // The smallest budget in which it runs.
  uint64_t budget_bytes = 0;
  // Within the budget; nothing: that is too small.
  std::optional<uint64_t> planned_bytes;
  std::optional<uint64_t> flash_bytes_per_token;
  // Nothing also: it reads, and there is no rate of reading.
  std::optional<double> gen_tps;

  bool fits_whole() const { return flash_bytes_per_token == 0; }
};

// All shapes in bf16, q8 and q4, by plans and forecasts as those of plan.
// Measures computing for two seconds. Errors as MakePlan() and
// MeasureComputeRate().
Result<std::vector<ModelOutlook>> LookAtModels(
    const EngineArgs& args, const std::optional<ReadRate>& read);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_MODEL_OUTLOOK_H_
