// The recorded outputs of the float32 reference run (models/*/golden).
#ifndef FLASHELM_TESTS_CORE_GOLDEN_H_
#define FLASHELM_TESTS_CORE_GOLDEN_H_

#include <string>
#include <vector>

#include "core/base/types.h"

namespace flashelm::test {

struct GoldenPrompt {
  std::string text;
  std::vector<TokenId> ids;   // BOS first.
  std::vector<float> logits;  // [ids.size(), vocab_size]
  std::vector<TokenId> greedy_ids;
  std::string greedy_text;  // Prompt and continuation.
};

struct GoldenPerplexity {
  std::string file;  // In tests/data.
  uint32_t n_ctx = 0;
  uint64_t n_tokens = 0;
  double mean_nll = 0;
  double stderr_nll = 0;
  double perplexity = 0;
};

struct Golden {
  std::vector<GoldenPrompt> prompts;
  std::vector<GoldenPerplexity> perplexity;
};

// Of models/`model`; a test fails when it cannot be read.
Golden ReadGolden(const std::string& model);

// A float32 matrix in NPY format: its values and shape.
struct NpyMatrix {
  uint64_t rows = 0;
  uint64_t cols = 0;
  std::vector<float> values;
};
NpyMatrix ReadNpy(const std::string& path);

}  // namespace flashelm::test

#endif  // FLASHELM_TESTS_CORE_GOLDEN_H_
