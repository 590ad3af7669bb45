// How well a model predicts a text.
#ifndef FLASHELM_CORE_PERPLEXITY_H_
#define FLASHELM_CORE_PERPLEXITY_H_

#include <cstdint>
#include <functional>
#include <span>

#include "core/base/cancel.h"
#include "core/session.h"

namespace flashelm {

struct PerplexityResult {
  uint64_t num_tokens = 0;  // Scored: all of the text.
  double mean_nll = 0;      // Mean negative log-likelihood, in nats.
  double stderr_nll = 0;    // Its standard error, tokens taken as independent.
  double perplexity = 0;    // exp(mean_nll)
};

// Cuts `tokens`, a text encoded without BOS, into windows of n_ctx - 1, puts
// BOS before each, and scores every token of every window from what stands
// before it in its window. The last window may be shorter. Overwrites the
// session's sequence. `progress`, which may be empty, gets tokens done.
// kInvalidArgument: no tokens, or an n_ctx below 2 or above the context.
Result<PerplexityResult> MeasurePerplexity(
    Session& session, std::span<const TokenId> tokens, TokenId bos_id,
    uint32_t n_ctx, const CancelToken& cancel,
    const std::function<void(uint64_t)>& progress);

// -log softmax(logits)[token], in double precision. `logits` is not empty.
double NegativeLogLikelihood(std::span<const float> logits, TokenId token);

}  // namespace flashelm

#endif  // FLASHELM_CORE_PERPLEXITY_H_
