// Which neurons of an FFN are computed for a token.
#ifndef FLASHELM_CORE_NEURON_SELECTOR_H_
#define FLASHELM_CORE_NEURON_SELECTOR_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/base/memory.h"
#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "core/model_file.h"
#include "core/scratch.h"
#include "core/sparsity.h"
#include "kernels/activation.h"
#include "predictor/predictor.h"
#include "storage/weight_store.h"

namespace flashelm {

// Decides by the weights, the predictor, the token and its position alone: the
// same for any threads, batches and budgets.
//
//   gate       all gates are known: those above 0 (ReLU), or of the largest
//              |act(gate)| importance, a part of the neurons or as few as keep
//              to a bound
//   low-bit    scores of the file's predictor above its threshold (ReLU), or of
//              the largest |act(score)| importance
//   low-rank   scores of the file's predictor above its threshold (ReLU), or
//              the largest
//   random     by a hash of layer, position and neuron
//   magnitude  of the largest importance
//
// Owns its buffers and views of predictors; all that it refers to outlives it.
// Used by one thread, which the pool's workers help. Allocates nothing after
// OpenPredictors().
class NeuronSelector {
 public:
  static uint64_t NumBytes(const ModelFile& model,
                           const SparsityOptions& options,
                           uint32_t num_threads);
  // kInvalidArgument: a selector that the file has no data for, a fraction that
  // is none, or none where the selector or the model needs one. Reads the head
  // of a predictor. kDataLoss, kUnavailable: that cannot be read.
  static Status Check(const ModelFile& model, const SparsityOptions& options);

  // As Check(). kResourceExhausted: the budget has less.
  static Result<std::unique_ptr<NeuronSelector>> Create(
      const ModelFile& model, const SparsityOptions& options,
      const WeightStore& weights, ThreadPool& pool, MemoryBudget& budget);

  // Once the store has loaded, before anything is selected. kDataLoss: a
  // predictor is none, or not of the kind of the first layer's.
  Status OpenPredictors();

  // Selects for tokens at `position`, position + 1, ..., whose normed inputs
  // are in the scratch. Its `gates`, where the file has them split off, have
  // all gates of the layer and keep those of neurons that are selected; others
  // become 0, and a selected neuron whose activation is 0 counts as another.
  // Elsewhere `gates` become 1 for the selected neurons and 0 for others.
  // Adds to `stats`, but for num_kept_active.
  void Select(uint32_t layer, uint32_t position, size_t num_tokens,
              Scratch& scratch, SparsityStats& stats);

  // As SparsityOptions.
  bool takes_gates_one_by_one() const {
    return options_.takes_gates_one_by_one();
  }
  // Then, in place of Select(): the same for neurons [first, first + count).
  void SelectByGates(size_t first, size_t count, size_t num_tokens,
                     Scratch& scratch, SparsityStats& stats) const;

 private:
  // What a thread works in.
  struct Workspace {
    float* scores;    // [max ffn_dim]
    float* sorted;    // [2 * max ffn_dim]
    uint32_t* ids;    // [max ffn_dim]
    float* prepared;  // [max prepared floats]
    SparsityStats* stats;
  };
  // Where what lies in it, in bytes; the scores come first.
  struct WorkspaceLayout {
    uint64_t max_ffn_dim = 0;
    uint64_t sorted = 0;
    uint64_t ids = 0;
    uint64_t prepared = 0;
    uint64_t stats = 0;
    uint64_t total = 0;
  };
  static WorkspaceLayout LayoutOf(const ModelFile& model,
                                  const SparsityOptions& options);

  NeuronSelector(const ModelFile& model, const SparsityOptions& options,
                 const WeightStore& weights, ThreadPool& pool);

  Workspace WorkspaceOf(uint32_t part) const;
  const std::byte* ResidentPart(const PartRef& part) const;
  const float* ImportanceOf(uint32_t layer) const;
  // What all neurons of a token share.
  void Prepare(uint32_t layer, const float* normed, const Workspace& in) const;
  // The scores of neurons [begin, end), where the selector has any.
  void Score(uint32_t layer, uint32_t position, size_t begin, size_t end,
             const Workspace& in) const;
  // Bytes that scoring a neuron reads, about.
  uint64_t ScoreBytes(uint32_t layer) const;
  // Ids of those selected, ascending; returns how many.
  size_t Choose(uint32_t layer, const float* gates, const Workspace& in) const;
  // With the scores of the token.
  void SelectOfToken(uint32_t layer, float* gates, const Workspace& in) const;

  const ModelFile& model_;
  const SparsityOptions options_;
  const WeightStore& weights_;
  ThreadPool& pool_;
  const Activation activation_;
  std::vector<std::unique_ptr<Predictor>> predictors_;  // Per layer, or none.
  const WorkspaceLayout layout_;
  AlignedBuffer buffer_;  // A workspace for each thread.
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_NEURON_SELECTOR_H_
