// OpenELM's forward pass once more, written from the paper's equations alone,
// in double precision with Eigen: no cache, no batches, no blocks.
#ifndef FLASHELM_TESTS_CORE_REFERENCE_FORWARD_H_
#define FLASHELM_TESTS_CORE_REFERENCE_FORWARD_H_

#include <Eigen/Dense>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "storage/json.h"
#include "tests/core/checkpoint_builder.h"

namespace flashelm::test {

// Sees a layer's gate values, before the activation, for one token.
using GateObserver = std::function<void(uint32_t layer, uint32_t token,
                                        const Eigen::VectorXd& gates)>;

// Logits of every token, [tokens, vocab]. `config` is a Hugging Face config;
// `tensors` hold F32. `observe` may be empty.
Eigen::MatrixXd ReferenceLogits(const Json& config,
                                std::span<const RawTensor> tensors,
                                std::span<const uint32_t> tokens,
                                const GateObserver& observe = {});

}  // namespace flashelm::test

#endif  // FLASHELM_TESTS_CORE_REFERENCE_FORWARD_H_
