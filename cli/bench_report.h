// The report of a benchmark: one page of HTML, whole by itself.
#ifndef FLASHELM_CLI_BENCH_REPORT_H_
#define FLASHELM_CLI_BENCH_REPORT_H_

#include <span>
#include <string>

#include "cli/record.h"

namespace flashelm::cli {

// Records as in docs/bench.schema.json, any number of them; what one lacks is
// not shown.
std::string RenderBenchReport(std::span<const Json> records);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_BENCH_REPORT_H_
