#include "core/perplexity.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace flashelm {

double NegativeLogLikelihood(std::span<const float> logits, TokenId token) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - most);
  return most + std::log(sum) - logits[token];
}

Result<PerplexityResult> MeasurePerplexity(
    Session& session, std::span<const TokenId> tokens, TokenId bos_id,
    uint32_t n_ctx, const CancelToken& cancel,
    const std::function<void(uint64_t)>& progress) {
  if (tokens.empty()) return InvalidArgument("the text has no tokens");
  if (n_ctx < 2 || n_ctx > session.context()) {
    return InvalidArgument("windows of ", n_ctx, " positions, expected 2 to ",
                           session.context());
  }
  const size_t window = n_ctx - 1;
  std::vector<TokenId> inputs(window);
  std::vector<uint32_t> wanted(session.max_logit_rows());
  std::iota(wanted.begin(), wanted.end(), 0u);
  double sum = 0;
  double sum_of_squares = 0;
  for (size_t first = 0; first < tokens.size(); first += window) {
    const std::span<const TokenId> targets =
        tokens.subspan(first, std::min(window, tokens.size() - first));
    // Position 0 sees BOS and predicts the first token, and so on.
    inputs[0] = bos_id;
    std::copy(targets.begin(), targets.end() - 1, inputs.begin() + 1);
    FLASHELM_RETURN_IF_ERROR(session.Truncate(0));
    for (size_t at = 0; at < targets.size(); at += wanted.size()) {
      const size_t count = std::min(wanted.size(), targets.size() - at);
      FLASHELM_RETURN_IF_ERROR(
          session.Run(std::span<const TokenId>(inputs).subspan(at, count),
                      std::span<const uint32_t>(wanted).first(count), cancel));
      for (size_t i = 0; i < count; ++i) {
        const double nll =
            NegativeLogLikelihood(session.logits(i), targets[at + i]);
        sum += nll;
        sum_of_squares += nll * nll;
      }
    }
    if (progress) progress(first + targets.size());
  }
  PerplexityResult result;
  const double n = static_cast<double>(tokens.size());
  result.num_tokens = tokens.size();
  result.mean_nll = sum / n;
  const double variance =
      std::max(0.0, sum_of_squares / n - result.mean_nll * result.mean_nll);
  result.stderr_nll = std::sqrt(variance / n);
  result.perplexity = std::exp(result.mean_nll);
  return result;
}

}  // namespace flashelm
