#include "core/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace flashelm {
namespace {

// A number in [0, 1); the standard's distributions differ between libraries.
double Uniform(std::mt19937_64& random) {
  return static_cast<double>(random() >> 11) * 0x1p-53;
}

}  // namespace

Status CheckSamplerOptions(const SamplerOptions& options) {
  const auto check = [](const char* name, float value, float least, float most,
                        const char* range) -> Status {
    if (std::isfinite(value) && value >= least && value <= most) {
      return OkStatus();
    }
    return InvalidArgument(name, " is ", value, ", expected ", range);
  };
  FLASHELM_RETURN_IF_ERROR(check("temperature", options.temperature, 0.0f,
                                 100.0f, "a number from 0 to 100"));
  FLASHELM_RETURN_IF_ERROR(
      check("top-p", options.top_p, 0.0f, 1.0f, "a number from 0 to 1"));
  FLASHELM_RETURN_IF_ERROR(
      check("min-p", options.min_p, 0.0f, 1.0f, "a number from 0 to 1"));
  return check("repeat penalty", options.repeat_penalty, 1e-3f, 1e3f,
               "a number from 0.001 to 1000");
}

uint64_t Sampler::NumBytes(uint32_t vocab_size) {
  return uint64_t{vocab_size} * (sizeof(Candidate) + sizeof(double)) +
         vocab_size / 8 + sizeof(Sampler);
}

Sampler::Sampler(const SamplerOptions& options, uint32_t vocab_size)
    : options_(options), seen_(vocab_size, false), random_(options.seed) {
  if (options_.temperature > 0) {
    candidates_.reserve(vocab_size);
    weights_.reserve(vocab_size);
  }
}

void Sampler::Accept(TokenId token) { seen_[token] = true; }

float Sampler::Penalised(float logit, TokenId id) const {
  // A model converted with non-finite weights may say NaN, which has no order.
  if (std::isnan(logit)) return -std::numeric_limits<float>::infinity();
  if (!seen_[id]) return logit;
  return logit > 0 ? logit / options_.repeat_penalty
                   : logit * options_.repeat_penalty;
}

TokenId Sampler::Best(std::span<const float> logits) const {
  TokenId best = 0;
  float best_logit = Penalised(logits[0], 0);
  for (TokenId id = 1; id < logits.size(); ++id) {
    const float logit = Penalised(logits[id], id);
    if (logit > best_logit) {
      best = id;
      best_logit = logit;
    }
  }
  return best;
}

TokenId Sampler::Sample(std::span<const float> logits) {
  if (options_.temperature <= 0) return Best(logits);
  candidates_.clear();
  for (TokenId id = 0; id < logits.size(); ++id) {
    candidates_.push_back({Penalised(logits[id], id), id});
  }
  const auto more_likely = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  if (options_.top_k > 0 && options_.top_k < candidates_.size()) {
    std::nth_element(candidates_.begin(), candidates_.begin() + options_.top_k,
                     candidates_.end(), more_likely);
    candidates_.resize(options_.top_k);
  }
  std::sort(candidates_.begin(), candidates_.end(), more_likely);

  // Probabilities up to a common factor, before the temperature.
  const double best_logit = candidates_[0].logit;
  const auto fill_weights = [&](double temperature) {
    weights_.clear();
    double total = 0;
    for (const Candidate& candidate : candidates_) {
      weights_.push_back(
          std::exp((candidate.logit - best_logit) / temperature));
      total += weights_.back();
    }
    return total;
  };
  if (options_.top_p < 1.0f || options_.min_p > 0.0f) {
    const double total = fill_weights(1.0);
    size_t keep = 0;
    double sum = 0;
    while (keep < candidates_.size() &&
           (keep == 0 || (sum < options_.top_p * total &&
                          weights_[keep] >= options_.min_p))) {
      sum += weights_[keep++];
    }
    candidates_.resize(keep);
  }
  const double total = fill_weights(options_.temperature);
  double left = Uniform(random_) * total;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    left -= weights_[i];
    if (left < 0) return candidates_[i].id;
  }
  return candidates_.back().id;
}

}  // namespace flashelm
