// What a run took, for people and for machines.
#ifndef FLASHELM_CLI_RUN_STATS_H_
#define FLASHELM_CLI_RUN_STATS_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

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

  // One line: RAM against budget and model, flash and time per token.
  std::string Summary() const;
  // The JSON object of --stats.
  std::string ToJson(std::optional<uint64_t> seed,
                     const std::string& stop_reason) const;

 private:
  using Clock = std::chrono::steady_clock;

  std::optional<double> GenTokensPerSecond() const;
  // `total - before` per position computed after the prompt.
  std::optional<double> PerPass(uint64_t total, uint64_t before) const;
  std::optional<uint64_t> PeakBytes() const;

  const Engine& engine_;
  const Session& session_;
  const uint64_t n_prompt_;
  Clock::time_point begin_;
  Clock::time_point last_;
  SessionStats after_prompt_;
  double prompt_ms_ = 0;
  std::optional<double> first_token_ms_;
  std::vector<double> token_ms_;  // From the token before; from the second on.
};

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_RUN_STATS_H_
