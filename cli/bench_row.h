// One measurement of a benchmark, in this process.
#ifndef FLASHELM_CLI_BENCH_ROW_H_
#define FLASHELM_CLI_BENCH_ROW_H_

#include <cstdint>
#include <functional>

#include "cli/record.h"
#include "cli/verbs.h"
#include "core/base/cancel.h"

namespace flashelm::cli {

struct BenchRowArgs {
  EngineArgs engine;
  uint32_t n_prompt = 0;
  uint32_t n_gen = 0;
  uint32_t repetitions = 1;
  bool warms_up = true;
};

// Whether there is a plan for this row; errors as MakePlan(). Costs opening the
// model.
Status CheckRow(const BenchRowArgs& args);

// Loads the model and, to warm up, computes the prompt and one token. Then
// `repetitions` times: forgets the sequence, computes a prompt of pseudo-random
// tokens, and takes the likeliest token `n_gen` times, whatever it is, going on
// with other pseudo-random tokens. Calls `repetition_done` with how many there
// were, from 0 on; may be empty.
//
// The record has what was measured; AddDerivedKeys() adds what follows. Errors
// as Engine::Create() and Session::Run().
Result<Json> MeasureRow(const BenchRowArgs& args,
                        const std::function<void(uint32_t)>& repetition_done,
                        const CancelToken& cancel);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_BENCH_ROW_H_
