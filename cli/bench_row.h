// One measurement of a benchmark, in this process.
#ifndef FLASHELM_CLI_BENCH_ROW_H_
#define FLASHELM_CLI_BENCH_ROW_H_

#include <cstdint>

#include "cli/record.h"
#include "cli/verbs.h"
#include "core/base/cancel.h"

namespace flashelm::cli {

struct BenchRowArgs {
  EngineArgs engine;
  uint32_t n_prompt = 0;
  uint32_t n_gen = 0;
  uint32_t repetitions = 1;
};

// Whether there is a plan for this row; errors as MakePlan(). Costs opening the
// model.
Status CheckRow(const BenchRowArgs& args);

// Loads the model, then `repetitions` times: forgets the sequence, computes a
// prompt of pseudo-random tokens, and takes the likeliest token `n_gen` times,
// the end-of-text token like any other. Medians over the repetitions, samples
// of all. Errors as LoadEngine(), Session::Run().
Result<Json> MeasureRow(const BenchRowArgs& args, const CancelToken& cancel);

// The keys that MeasureRow() adds to those of record.h, and with these all null
// for a row that failed.
Json EmptyRow();

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_BENCH_ROW_H_
