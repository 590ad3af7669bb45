// The FFN of those neurons alone that matter for a token.
#ifndef FLASHELM_CORE_SPARSE_FFN_H_
#define FLASHELM_CORE_SPARSE_FFN_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/base/memory.h"
#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "core/batch_product.h"
#include "core/model_file.h"
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

// After "LLM in a flash" (Alizadeh et al., arXiv 2312.11514): selects neurons
// token by token, has their bundles read, and adds them in the order of the
// neurons. Which neurons are computed depends on the weights and the token
// alone, and a neuron that is not computed counts as one whose gate is 0: so a
// token has the same bits alone and in a batch, and a ReLU model with f32 or
// bf16 weights, whose other gates are 0, those of the dense FFN. Down columns
// are multiplied with f32 activations, whatever their encoding; the dense FFN
// rounds those for q8 and q4 to int8.
//
// Owns nothing but its buffers; all that it refers to outlives it. Used by one
// thread, which the pool's workers help. Allocates nothing after Create().
class SparseFfn {
 public:
  static uint64_t NumBytes(const ModelFile& model);
  // kInvalidArgument: a selector that the file has no data for, a fraction that
  // is none, or lossless selection of a model that is not ReLU.
  // kResourceExhausted: the budget has less.
  static Result<std::unique_ptr<SparseFfn>> Create(
      const ModelFile& model, const SparsityOptions& options,
      const WeightStore& weights, BundleStore& bundles, ThreadPool& pool,
      MemoryBudget& budget);
  static Status Check(const ModelFile& model, const SparsityOptions& options);

  // x += FFN(normed), for the tokens of `product`, whose gates are in the
  // scratch's `gates`; those of neurons that are left out become 0.
  // kUnavailable: a read failed; x is undefined, and the next call is not
  // affected.
  Status Run(uint32_t layer, size_t num_tokens, const BatchProduct& product,
             Scratch& scratch);

  const SparsityStats& stats() const { return stats_; }

 private:
  SparseFfn(const ModelFile& model, const SparsityOptions& options,
            const WeightStore& weights, BundleStore& bundles, ThreadPool& pool);

  // Zeroes the gates of neurons that are left out; returns how many are kept.
  size_t SelectOfToken(uint32_t layer, float* gates);
  // Neurons that some token needs, ascending, into ids_.
  size_t CollectNeurons(uint32_t layer, size_t num_tokens,
                        const Scratch& scratch);
  // Adds the group's neurons to the scratch's `partial`.
  void AddGroup(uint32_t layer, size_t num_tokens, const BatchProduct& product,
                Scratch& scratch);
  void EndRange(size_t num_tokens, Scratch& scratch);
  // Where a file has no bundles: the up rows of neurons are read first, and
  // their products with the tokens kept in the scratch's `ups` until the down
  // columns come.
  Status ComputeUps(uint32_t layer, std::span<const uint32_t> ids,
                    size_t num_tokens, const BatchProduct& product,
                    Scratch& scratch);
  void MultiplyUps(uint32_t layer, size_t num_tokens,
                   const BatchProduct& product, Scratch& scratch);
  // Those of the group's neurons [begin, end), into the scratch's `up`.
  void GatherUps(size_t begin, size_t end, size_t num_tokens,
                 Scratch& scratch) const;
  uint64_t StrideOf(const PartRef& part) const;
  // Which of the store's segments has the layer's bundles or down columns.
  uint32_t StoreOf(uint32_t layer) const;

  const ModelFile& model_;
  const SparsityOptions options_;
  const WeightStore& weights_;
  BundleStore& bundles_;
  ThreadPool& pool_;
  const Activation activation_;

  AlignedBuffer buffer_;
  std::byte* rows_ = nullptr;  // Bundles of a group, one after the other.
  std::span<uint32_t> ids_;    // [max ffn_dim]
  std::span<float> scores_;    // [2 * max ffn_dim] of SelectTop()
  std::span<uint32_t> group_;  // [kFfnTile] neurons of the group
  size_t group_size_ = 0;
  SparsityStats stats_;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_SPARSE_FFN_H_
