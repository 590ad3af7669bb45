// Records of earlier benchmarks.
#ifndef FLASHELM_CLI_BENCH_FROM_H_
#define FLASHELM_CLI_BENCH_FROM_H_

#include <string>
#include <vector>

#include "cli/record.h"
#include "core/base/status.h"

namespace flashelm::cli {

// What `bench -o json` or `-o jsonl` wrote to that file, each record with every
// key of today's, null where it has none. kNotFound. kInvalidArgument: too
// large. kDataLoss: no such records. kUnimplemented: of another version.
Result<std::vector<Json>> ReadRecords(const std::string& path);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_BENCH_FROM_H_
