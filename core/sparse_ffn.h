// The FFN of those neurons alone that matter for a token.
#ifndef FLASHELM_CORE_SPARSE_FFN_H_
#define FLASHELM_CORE_SPARSE_FFN_H_

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/base/memory.h"
#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "core/batch_product.h"
#include "core/memory_plan.h"
#include "core/model_file.h"
#include "core/neuron_selector.h"
#include "core/scratch.h"
#include "core/sparsity.h"
#include "kernels/activation.h"
#include "kernels/weight_view.h"
#include "storage/bundle_store.h"
#include "storage/weight_store.h"

namespace flashelm {

// How a model's bundles are read, with so many of each layer cached.
BundleStoreOptions BundleOptions(const ModelFile& model,
                                 const SparsityOptions& options,
                                 const std::vector<uint32_t>& cached_bundles);

// After "LLM in a flash" (Alizadeh et al., arXiv 2312.11514): has the bundles
// of the neurons that a NeuronSelector keeps read, and adds them in the order
// of the neurons. In layers whose neurons the plan has streamed it passes over
// the others. Which neurons are computed depends on the weights, the
// predictor and the token alone, and a neuron that is not computed counts as
// one whose gate is 0: so a token has the same bits alone and in a batch, and
// where all neurons with another gate are kept and weights are f32 or bf16,
// those of the dense FFN. Gates that are not split off are computed from the
// bundles, those of the neurons kept alone. Down columns are multiplied with
// f32 activations, whatever their encoding; the dense FFN rounds those for q8
// and q4 to int8.
//
// Owns nothing but its buffers; all that it refers to outlives it. Used by one
// thread, which the pool's workers help. Allocates nothing after Create().
class SparseFfn {
 public:
  static uint64_t NumBytes(const ModelFile& model,
                           const SparsityOptions& options,
                           uint32_t num_threads);
  // `bundles` has the segments of the plan's residency.apart; null where there
  // are none. Errors as NeuronSelector::Create().
  static Result<std::unique_ptr<SparseFfn>> Create(
      const ModelFile& model, const MemoryPlan& plan,
      const SparsityOptions& options, WeightStore& weights,
      BundleStore* bundles, ThreadPool& pool, MemoryBudget& budget);
  // Once the store has loaded, before Begin(); as NeuronSelector has it.
  Status OpenPredictors() { return selector_->OpenPredictors(); }

  // A layer's FFN, for tokens at `position` and those after it, is Begin();
  // AddGates() for all neurons in order, where the file has gates split off;
  // and Finish(), inside a sweep of the weights that has come to the layer's
  // neurons. kUnavailable from any of them: a read failed; x is undefined, and
  // what is begun next is not affected.
  Status Begin(uint32_t layer, uint32_t position, size_t num_tokens);
  // The gates of neurons [first, first + count) are in the scratch's `gates`,
  // which this overwrites. Starts to read bundles where it is known which.
  Status AddGates(size_t first, size_t count, Scratch& scratch);
  // x += FFN(normed), for the tokens of `product`.
  Status Finish(const BatchProduct& product, Scratch& scratch);

  const SparsityStats& stats() const { return stats_; }

 private:
  SparseFfn(const ModelFile& model, const MemoryPlan& plan,
            WeightStore& weights, BundleStore* bundles, ThreadPool& pool);

  bool IsStreamed() const { return first_apart_[layer_] == kStreamed; }
  // use(bundles) for those of all ids in their order, some at a time, which
  // last until it returns.
  //   part  of LayerWeights::neuron_segments()
  template <class Use>
  Status ForBundles(uint32_t part, const Use& use);
  template <class Use>
  Status ForStreamed(uint32_t part, const Use& use);

  // Those of the neurons [first, first + count) that some token needs,
  // ascending, behind those in ids_.
  std::span<const uint32_t> CollectNeurons(size_t first, size_t count,
                                           const Scratch& scratch);
  // Adds bundles of one range, at most kFfnTile, to the scratch's `partial`.
  void AddBundles(std::span<const Bundle> bundles, const BatchProduct& product,
                  Scratch& scratch);
  void EndRange(Scratch& scratch);
  // Where a file has no bundles: the up rows of neurons are read first, and
  // their products with the tokens kept in the scratch's `ups` until the down
  // columns come.
  Status ComputeUps(const BatchProduct& product, Scratch& scratch);
  // Compares the ids with those of the token before.
  void CountOverlap();
  uint64_t StrideOf(const PartRef& part) const;

  const ModelFile& model_;
  WeightStore& weights_;
  BundleStore* const bundles_;
  ThreadPool& pool_;
  // Per layer: where its segments begin in bundles_.
  static constexpr uint32_t kStreamed = UINT32_MAX;
  std::vector<uint32_t> first_apart_;
  const Activation activation_;
  std::unique_ptr<NeuronSelector> selector_;

  AlignedBuffer buffer_;
  std::span<uint32_t> ids_;  // [max ffn_dim]: neurons that are needed.
  size_t num_ids_ = 0;
  // Per layer: which token was computed alone last, and what it kept, a bit for
  // each neuron.
  struct LastToken {
    uint32_t next_position = UINT32_MAX;
    size_t num_kept = 0;
    std::span<uint64_t> kept;
  };
  std::vector<LastToken> last_tokens_;
  SparsityStats stats_;
  std::array<Bundle, kFfnTile> tile_;  // Of ForStreamed().

  // What is begun.
  uint32_t layer_ = 0;
  uint32_t position_ = 0;
  size_t num_tokens_ = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_SPARSE_FFN_H_
