// Rows of a benchmark, each measured in a process of its own.
#ifndef FLASHELM_CLI_BENCH_CHILD_H_
#define FLASHELM_CLI_BENCH_CHILD_H_

#include <functional>
#include <span>

#include "cli/bench_matrix.h"
#include "cli/record.h"
#include "cli/verbs.h"
#include "core/base/cancel.h"
#include "core/base/status.h"

namespace flashelm::cli {

// A row's record, every key in it, and its error where it has one.
struct BenchRow {
  Json json;
  Status status;
};

// Measures `plan.args.repetitions` of a row in a process of its own, with the
// page cache as `args` says, and in a cgroup of the budget's size if wanted. A
// row that fails says so in its record. `repetition_done` is called in that
// process. kCancelled: as asked. kResourceExhausted: no process.
Result<BenchRow> MeasureInChild(
    const RowPlan& plan, const BenchArgs& args,
    const std::function<void(uint32_t)>& repetition_done,
    const CancelToken& cancel);

// The record of a row that was not measured, and why.
BenchRow FailedRow(const RowPlan& plan, const BenchArgs& args, Status status);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_BENCH_CHILD_H_
