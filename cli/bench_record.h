// The record of a benchmark's row: its keys, and what follows from what was
// measured. docs/bench.schema.json says what each key means.
#ifndef FLASHELM_CLI_BENCH_RECORD_H_
#define FLASHELM_CLI_BENCH_RECORD_H_

#include <cstdint>
#include <span>
#include <string>

#include "cli/record.h"

namespace flashelm::cli {

// Counts up when a key changes its meaning or goes away.
inline constexpr int kBenchSchemaVersion = 1;

// "pp128", "tg32", "pp128+tg32".
std::string TestName(uint32_t n_prompt, uint32_t n_gen);

// Every key, null; "config" as an object of nulls, "cgroup" as null.
Json EmptyRow();
// The keys of a "cgroup" that is none, null.
Json EmptyCgroup();

// One record of several of the same row, which processes of their own
// measured: samples one after the other, sums, peaks, and means of what is per
// token. At least one part.
Json MergeParts(std::span<const Json> parts);

// Adds what follows from the samples: means, medians, percentiles, rates, and
// the names that llama-bench has for keys.
void AddDerivedKeys(Json& row);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_BENCH_RECORD_H_
