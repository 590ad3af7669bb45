// A selector at work on inputs of a test's own.
#ifndef FLASHELM_TESTS_CORE_SELECTING_H_
#define FLASHELM_TESTS_CORE_SELECTING_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "core/neuron_selector.h"
#include "core/scratch.h"
#include "tests/core/predicted_model.h"

namespace flashelm::test {

inline EngineOptions WithSelector(Selector selector, double kept_fraction,
                                  uint32_t threads) {
  EngineOptions options;
  options.plan.num_threads = threads;
  options.plan.whole_process = false;
  options.plan.sparsity = {selector, kept_fraction};
  return options;
}

// Runs a selector over random inputs.
class Selecting {
 public:
  // Of the inputs, and the position of the first.
  static constexpr uint32_t kTokens = 9;
  static constexpr uint32_t kPosition = 100;

  Selecting(const PredictedModel& model, Selector selector,
            double kept_fraction, uint32_t threads = 1)
      : running_(Start(model.path(),
                       WithSelector(selector, kept_fraction, threads))) {
    auto created = NeuronSelector::Create(
        running_.engine->model(), {selector, kept_fraction},
        running_.engine->store(), running_.engine->pool(), budget_);
    EXPECT_TRUE(created) << created.error().message();
    selector_ = std::move(*created);
    EXPECT_TRUE(selector_->OpenPredictors().ok());
    ScratchShape shape;
    shape.batch = kTokens;
    shape.has_gates = true;
    auto scratch = Scratch::Create(config(), shape, budget_);
    EXPECT_TRUE(scratch);
    scratch_ = std::move(*scratch);
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    inputs_.resize(size_t{kTokens} * config().model_dim);
    for (float& x : inputs_) x = normal(random);
  }

  const ModelConfig& config() const { return running_.engine->config(); }
  const float* input(uint32_t t) const {
    return inputs_.data() + t * config().model_dim;
  }
  uint32_t ffn_dim(uint32_t layer) const {
    return config().layers[layer].ffn_dim;
  }
  const SparsityStats& stats() const { return stats_; }

  std::vector<float> Importance(uint32_t layer) const {
    const PartRef& part =
        *running_.engine->model().weights().layers[layer].importance;
    const auto* values = reinterpret_cast<const float*>(
        running_.engine->store().ResidentRecord(part.segment, 0) +
        part.offset_bytes);
    return {values, values + ffn_dim(layer)};
  }

  // What is kept of tokens [first, first + count), at kPosition + first and the
  // positions after it.
  std::vector<std::vector<uint32_t>> Kept(uint32_t layer, uint32_t first,
                                          uint32_t count) {
    std::copy_n(input(first), count * config().model_dim, scratch_.normed);
    selector_->Select(layer, kPosition + first, count, scratch_, stats_);
    std::vector<std::vector<uint32_t>> kept(count);
    for (uint32_t t = 0; t < count; ++t) {
      for (uint32_t i = 0; i < ffn_dim(layer); ++i) {
        const float mark = scratch_.gates[t * scratch_.gates_stride + i];
        EXPECT_TRUE(mark == 0 || mark == 1);
        if (mark != 0) kept[t].push_back(i);
      }
    }
    return kept;
  }

 private:
  Running running_;
  MemoryBudget budget_{UINT64_MAX};
  std::unique_ptr<NeuronSelector> selector_;
  Scratch scratch_;
  std::vector<float> inputs_;
  SparsityStats stats_;
};

}  // namespace flashelm::test

#endif  // FLASHELM_TESTS_CORE_SELECTING_H_
