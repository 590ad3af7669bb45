// What a run took, for people and for machines.
#ifndef FLASHELM_CLI_RUN_STATS_H_
#define FLASHELM_CLI_RUN_STATS_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "cli/record.h"
#include "core/engine.h"
#include "core/session.h"

namespace flashelm::cli {

// Collects the times of one run. A token is timed from the one before it; the
// first counts as time to first token, with the prompt.
class RunStats {
 public:
  // `max_tokens`: room for that many generated tokens is taken at once.
  RunStats(const Engine& engine, const Session& session, uint64_t n_prompt,
           uint64_t max_tokens);

  // Room that the constructor takes, for the plan.
  static uint64_t NumBytes(uint64_t max_tokens) { return max_tokens * 8; }

  void PromptDone();
  void TokenShown();
  // After the last token, before what follows.
  void Finish();

  // One line: RAM against budget and model, flash and time per token.
  std::string Summary() const;
  // The JSON object of --stats.
  std::string ToJson(std::optional<uint64_t> seed,
                     const std::string& stop_reason) const;

 private:
  using Clock = std::chrono::steady_clock;

  const Engine& engine_;
  const Session& session_;
  Clock::time_point begin_;
  Clock::time_point last_;
  SessionStats after_prompt_;
  Measurement measurement_;
};

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_RUN_STATS_H_
