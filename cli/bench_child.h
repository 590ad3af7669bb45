// Rows of a benchmark, each measured in a process of its own.
#ifndef FLASHELM_CLI_BENCH_CHILD_H_
#define FLASHELM_CLI_BENCH_CHILD_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "cli/bench_row.h"
#include "cli/record.h"
#include "cli/verbs.h"
#include "core/base/cancel.h"
#include "core/base/status.h"
#include "core/memory_plan.h"
#include "core/model_config.h"

namespace flashelm::cli {

// Positions that rows hold: those asked for, or else of prompt and generation.
// kInvalidArgument: there is nothing to measure, or it does not fit.
Result<uint32_t> BenchContext(const BenchArgs& args, const ModelConfig& config);

// One row to come.
struct RowPlan {
  BenchRowArgs args;
  std::string name;         // In messages.
  std::string budget_text;  // As it was asked for.
  uint64_t budget_bytes = kUnlimitedBytes;
  // Of an ablation: the record's "ablation"; may be empty.
  std::string ablation;
};

struct BenchOutput {
  // Whether records are printed, as an array in JSON.
  bool is_json = false;
  // Otherwise shows a row and its record.
  std::function<void(const RowPlan& plan, const Json& row)> show;
};

// Measures the rows one after the other, in a cgroup of the budget's size where
// `wants_cgroup`, and shows each at once: what this process keeps would count
// in the next row's memory. A row that fails says so on standard error and in
// its record; the rest goes on. The error of the first that failed, or
// kCancelled as asked.
Status MeasureRows(std::span<const RowPlan> plans, bool wants_cgroup,
                   const BenchOutput& output, const CancelToken& cancel);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_BENCH_CHILD_H_
