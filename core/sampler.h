// From logits to a token.
#ifndef FLASHELM_CORE_SAMPLER_H_
#define FLASHELM_CORE_SAMPLER_H_

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "core/base/status.h"
#include "core/base/types.h"

namespace flashelm {

struct SamplerOptions {
  float temperature = 0.0f;  // 0: the most likely token, always.
  uint32_t top_k = 40;       // The k most likely; 0: all.
  float top_p = 0.95f;       // The fewest that reach this probability; 1: all.
  float min_p = 0.05f;       // At least this part of the best's; 0: all.
  // Divides positive logits, multiplies negative ones, of every token that
  // stands in the context; 1: off. As in the reference (CTRL, Keskar et al.,
  // arXiv 1909.05858), over the whole context.
  float repeat_penalty = 1.0f;
  uint64_t seed = 0;
};

// kInvalidArgument: a value outside its range, by name.
Status CheckSamplerOptions(const SamplerOptions& options);

// Penalty, top-k, top-p, min-p, temperature, in that order. The same options,
// logits and history give the same token on every platform. One thread.
class Sampler {
 public:
  // What the constructor takes: a bit and, unless the temperature is 0, two
  // 8-byte numbers per entry of the vocabulary.
  static uint64_t NumBytes(uint32_t vocab_size);
  // Options as CheckSamplerOptions() accepts them.
  Sampler(const SamplerOptions& options, uint32_t vocab_size);

  // Adds a token of the context: prompt and generated ones alike.
  void Accept(TokenId token);

  // `logits`, [vocab_size]. Ties go to the lower id. Allocates nothing.
  TokenId Sample(std::span<const float> logits);

 private:
  struct Candidate {
    float logit;
    TokenId id;
  };
  float Penalised(float logit, TokenId id) const;
  TokenId Best(std::span<const float> logits) const;

  const SamplerOptions options_;
  std::vector<bool> seen_;
  std::vector<Candidate> candidates_;
  std::vector<double> weights_;
  std::mt19937_64 random_;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_SAMPLER_H_
