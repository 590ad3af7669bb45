// OpenELM's forward pass once more, written from the paper's equations alone,
// in double precision with Eigen: no cache, no batches, no blocks.
#ifndef FLASHELM_TESTS_CORE_REFERENCE_FORWARD_H_
#define FLASHELM_TESTS_CORE_REFERENCE_FORWARD_H_

#include <Eigen/Dense>
#include <cstdint>
#include <span>
#include <vector>

#include "storage/json.h"
#include "tests/core/checkpoint_builder.h"

namespace flashelm::test {

// Logits of every token, [tokens, vocab]. `config` is a Hugging Face config;
// `tensors` hold F32.
Eigen::MatrixXd ReferenceLogits(const Json& config,
                                std::span<const RawTensor> tensors,
                                std::span<const uint32_t> tokens);

}  // namespace flashelm::test

#endif  // FLASHELM_TESTS_CORE_REFERENCE_FORWARD_H_
