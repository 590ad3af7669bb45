// A model that decodes one step after the other, for decode_bench.
#ifndef FLASHELM_BENCH_DECODER_H_
#define FLASHELM_BENCH_DECODER_H_

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "cli/verbs.h"
#include "core/base/cancel.h"
#include "core/engine.h"
#include "core/session.h"

namespace flashelm {

// An engine with its session. Used by one thread; stays where it was made.
class Decoder {
 public:
  // A budget that refuses nothing, as args.mem_budget.
  static constexpr std::string_view kNoBudget = "all";

  // Loads the model, computes a prompt of up to 16 tokens and a first step,
  // which does what only first ones do, such as to compare checksums. The
  // budget is for the engine alone, not for this process. Errors as
  // cli::SetUpEngine(), Engine::Create() and Session::Run(). kInvalidArgument
  // also: a context without room for a prompt and a token.
  static Result<std::unique_ptr<Decoder>> Create(const cli::EngineArgs& args);

  // One token at the next position; after the last one, again at the first
  // after the prompt. Errors as Session::Run(). Allocates nothing.
  Status Step();

  const Engine& engine() const { return *engine_; }
  const SessionStats& stats() const { return session_->stats(); }
  // Bytes of the weights that a token is computed with, where `kept_fraction`
  // of its neurons are.
  double WeightBytes(double kept_fraction) const;

 private:
  Decoder() = default;
  Status Begin();

  const CancelToken cancel_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Session> session_;
  uint32_t num_prompt_ = 0;
  // For every position. What they are matters where neurons are selected: the
  // same one over and over would find all of them in the cache.
  std::vector<TokenId> tokens_;
};

}  // namespace flashelm

#endif  // FLASHELM_BENCH_DECODER_H_
