// How well a model predicts a text.
#ifndef FLASHELM_CORE_PERPLEXITY_H_
#define FLASHELM_CORE_PERPLEXITY_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "core/base/cancel.h"
#include "core/session.h"

namespace flashelm {

// How far a model is from a reference model, over all tokens of a text.
struct Divergence {
  // Mean Kullback-Leibler divergence KL(reference || model) of what each
  // predicts for a token, in nats, and its standard error.
  double mean_kl = 0;
  double stderr_kl = 0;
  // Part of the tokens for which both find the same one likeliest.
  double same_top = 0;
  // Of the reference, as in PerplexityResult.
  double reference_mean_nll = 0;
  double reference_perplexity = 0;
};

struct PerplexityResult {
  uint64_t num_tokens = 0;  // Scored: all of the text.
  double mean_nll = 0;      // Mean negative log-likelihood, in nats.
  double stderr_nll = 0;    // Its standard error, tokens taken as independent.
  double perplexity = 0;    // exp(mean_nll)
  std::optional<Divergence> divergence;  // Where there is a reference.
};

// Cuts `tokens`, a text encoded without BOS, into windows of n_ctx - 1, puts
// BOS before each, and scores every token of every window from what stands
// before it in its window. The last window may be shorter. Overwrites the
// session's sequence. `progress`, which may be empty, gets tokens done.
// `reference`, which may be null, is a session of a model with the same
// vocabulary: it sees the same tokens, and the result compares both.
// kInvalidArgument: no tokens, an n_ctx below 2 or above a context, or
// vocabularies of different sizes.
Result<PerplexityResult> MeasurePerplexity(
    Session& session, std::span<const TokenId> tokens, TokenId bos_id,
    uint32_t n_ctx, const CancelToken& cancel,
    const std::function<void(uint64_t)>& progress,
    Session* reference = nullptr);

// -log softmax(logits)[token], in double precision. `logits` is not empty.
double NegativeLogLikelihood(std::span<const float> logits, TokenId token);

// Sum of p log(p / q) with p = softmax(reference) and q = softmax(logits), in
// nats, in double precision. Both have the same size, which is not 0.
double KlDivergence(std::span<const float> reference,
                    std::span<const float> logits);

}  // namespace flashelm

#endif  // FLASHELM_CORE_PERPLEXITY_H_
