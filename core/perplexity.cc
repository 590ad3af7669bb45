#include "core/perplexity.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace flashelm {

namespace {

// log(sum of exp(logit)).
double LogSumExp(std::span<const float> logits) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - most);
  return most + std::log(sum);
}

// Sums up one figure per token.
struct Mean {
  double sum = 0;
  double sum_of_squares = 0;

  void Add(double value) {
    sum += value;
    sum_of_squares += value * value;
  }
  double Of(double n) const { return sum / n; }
  double StandardError(double n) const {
    const double mean = sum / n;
    return std::sqrt(std::max(0.0, sum_of_squares / n - mean * mean) / n);
  }
};

ptrdiff_t Likeliest(std::span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

}  // namespace

double NegativeLogLikelihood(std::span<const float> logits, TokenId token) {
  return LogSumExp(logits) - logits[token];
}

double KlDivergence(std::span<const float> reference,
                    std::span<const float> logits) {
  const double log_p_sum = LogSumExp(reference);
  const double log_q_sum = LogSumExp(logits);
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double log_p = reference[i] - log_p_sum;
    sum += std::exp(log_p) * (log_p - (logits[i] - log_q_sum));
  }
  return sum;
}

Result<PerplexityResult> MeasurePerplexity(
    Session& session, std::span<const TokenId> tokens, TokenId bos_id,
    uint32_t n_ctx, const CancelToken& cancel,
    const std::function<void(uint64_t)>& progress, Session* reference) {
  if (tokens.empty()) return InvalidArgument("the text has no tokens");
  const uint32_t context =
      reference == nullptr ? session.context()
                           : std::min(session.context(), reference->context());
  if (n_ctx < 2 || n_ctx > context) {
    return InvalidArgument("windows of ", n_ctx, " positions, expected 2 to ",
                           context);
  }
  if (reference != nullptr && reference->vocab_size() != session.vocab_size()) {
    return InvalidArgument("a vocabulary of ", session.vocab_size(),
                           " tokens cannot be compared with one of ",
                           reference->vocab_size());
  }
  const size_t window = n_ctx - 1;
  std::vector<TokenId> inputs(window);
  std::vector<uint32_t> wanted(
      reference == nullptr
          ? session.max_logit_rows()
          : std::min(session.max_logit_rows(), reference->max_logit_rows()));
  std::iota(wanted.begin(), wanted.end(), 0u);
  Mean nll;
  Mean reference_nll;
  Mean kl;
  uint64_t num_same_top = 0;
  for (size_t first = 0; first < tokens.size(); first += window) {
    const std::span<const TokenId> targets =
        tokens.subspan(first, std::min(window, tokens.size() - first));
    // Position 0 sees BOS and predicts the first token, and so on.
    inputs[0] = bos_id;
    std::copy(targets.begin(), targets.end() - 1, inputs.begin() + 1);
    for (Session* each : {&session, reference}) {
      if (each != nullptr) FLASHELM_RETURN_IF_ERROR(each->Truncate(0));
    }
    for (size_t at = 0; at < targets.size(); at += wanted.size()) {
      const size_t count = std::min(wanted.size(), targets.size() - at);
      for (Session* each : {&session, reference}) {
        if (each == nullptr) continue;
        FLASHELM_RETURN_IF_ERROR(
            each->Run(std::span<const TokenId>(inputs).subspan(at, count),
                      std::span<const uint32_t>(wanted).first(count), cancel));
      }
      for (size_t i = 0; i < count; ++i) {
        const std::span<const float> logits = session.logits(i);
        nll.Add(NegativeLogLikelihood(logits, targets[at + i]));
        if (reference == nullptr) continue;
        reference_nll.Add(
            NegativeLogLikelihood(reference->logits(i), targets[at + i]));
        kl.Add(KlDivergence(reference->logits(i), logits));
        num_same_top += Likeliest(reference->logits(i)) == Likeliest(logits);
      }
    }
    if (progress) progress(first + targets.size());
  }
  PerplexityResult result;
  const auto n = static_cast<double>(tokens.size());
  result.num_tokens = tokens.size();
  result.mean_nll = nll.Of(n);
  result.stderr_nll = nll.StandardError(n);
  result.perplexity = std::exp(result.mean_nll);
  if (reference != nullptr) {
    result.divergence = {kl.Of(n), kl.StandardError(n),
                         static_cast<double>(num_same_top) / n,
                         reference_nll.Of(n), std::exp(reference_nll.Of(n))};
  }
  return result;
}

}  // namespace flashelm
