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
  // `max_tokens`: room for the times of so many generated tokens is taken at
  // once; of more, those of the first are kept.
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
  // The same while tokens still come: also where the time goes.
  std::string Progress() const;
  // The JSON object of --stats. `reused`: tokens of the prompt that a
  // --prompt-cache had; nothing without one.
  std::string ToJson(std::optional<uint64_t> seed,
                     const std::string& stop_reason,
                     std::optional<uint64_t> reused = std::nullopt) const;

 private:
  using Clock = std::chrono::steady_clock;
  // Of what was shown so far; nothing before the second token.
  std::optional<double> TokensPerSecond() const;

  const Engine& engine_;
  const Session& session_;
  Clock::time_point begin_;
  Clock::time_point first_;
  Clock::time_point last_;
  const uint64_t num_tokens_before_;  // That the session had computed.
  SessionStats after_prompt_;
  Measurement measurement_;
};

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_RUN_STATS_H_
