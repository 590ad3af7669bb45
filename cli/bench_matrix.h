// From the lists of bench's flags to rows.
#ifndef FLASHELM_CLI_BENCH_MATRIX_H_
#define FLASHELM_CLI_BENCH_MATRIX_H_

#include <cstdint>
#include <string>
#include <vector>

#include "cli/bench_row.h"
#include "cli/record.h"
#include "cli/verbs.h"
#include "core/base/status.h"
#include "core/memory_plan.h"
#include "core/model_config.h"

namespace flashelm::cli {

// "auto", or tokens.
std::string WindowText(uint32_t window);

// One row to come.
struct RowPlan {
  BenchRowArgs args;
  std::string name;         // In messages.
  std::string budget_text;  // As it was asked for.
  uint64_t budget_bytes = kUnlimitedBytes;
  // Of an ablation: the record's "ablation"; may be empty.
  std::string ablation;
  // The record's keys about the model; null where it could not be opened.
  Json model_facts;
  // Why this combination cannot run, as far as that is known before.
  Status refused;
};

// Tokens of a prompt and after it, one of which may be 0.
struct BenchTest {
  uint32_t n_prompt = 0;
  uint32_t n_gen = 0;
};

// Every combination of the lists of parameters, for each model in turn.
// kInvalidArgument, naming the flag: what is no list, or has something in it
// that no model and no machine could take.
Result<std::vector<EngineArgs>> CrossEngines(const BenchArgs& args);

// -p, -n and --pg: prompts, generations, and both in one. kInvalidArgument: no
// numbers, or nothing to measure.
Result<std::vector<BenchTest>> BenchTests(const BenchArgs& args);

// Positions that a row holds: those asked for, or else of prompt and
// generation. kInvalidArgument: it does not fit.
Result<uint32_t> BenchContext(const BenchTest& test, uint32_t context,
                              const ModelConfig& config);

// A row for every combination and test. One that cannot run, while others can,
// is `refused`; when none can, that is the error.
Result<std::vector<RowPlan>> PlanRows(const BenchArgs& args);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_BENCH_MATRIX_H_
