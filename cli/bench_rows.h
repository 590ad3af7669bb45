// The rows of a benchmark, in their order.
#ifndef FLASHELM_CLI_BENCH_ROWS_H_
#define FLASHELM_CLI_BENCH_ROWS_H_

#include <span>
#include <string>
#include <vector>

#include "cli/bench_matrix.h"
#include "cli/markdown_table.h"
#include "cli/verbs.h"
#include "core/base/status.h"

namespace flashelm::cli {

// "flashelm 0.1.0 (e692707), AVX2, Intel ...": who measures.
std::string WhoMeasures();

// Measures the rows and writes them as `args.outputs` says, tables with
// `columns` and `title` and what is below --cgroup. Repetitions of a row follow
// each other in one process, or in turn with other rows' (--interleave), each
// in its own, as with --cache-state cold. A row that fails says so on standard
// error and in its record; the rest goes on. The error of the first that
// failed, or kCancelled as asked.
Status MeasureRows(const BenchArgs& args, std::vector<RowPlan> plans,
                   std::string title,
                   std::vector<MarkdownTable::Column> columns);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_BENCH_ROWS_H_
