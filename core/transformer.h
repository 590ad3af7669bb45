// OpenELM's forward pass.
#ifndef FLASHELM_CORE_TRANSFORMER_H_
#define FLASHELM_CORE_TRANSFORMER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/batch_product.h"
#include "core/dense_ffn.h"
#include "core/ffn_observer.h"
#include "core/kv_cache.h"
#include "core/model_file.h"
#include "core/scratch.h"
#include "core/sparse_ffn.h"
#include "storage/weight_store.h"

namespace flashelm {

// Computes tokens through all layers of OpenELM (Mehta et al., "OpenELM: An
// Efficient Language Model Family with Open Training and Inference Framework",
// arXiv 2404.14619). Owns nothing; all that it refers to outlives it. Used by
// one thread, which the pool's workers help.
//
// Logits depend on the weights and the tokens before alone: every output is
// accumulated in one fixed order, for one token and for many, for any number of
// threads, and wherever the weights come from.
class Transformer {
 public:
  Transformer(const ModelFile& model, WeightStore& store, ThreadPool& pool,
              KvCache& cache, Scratch& scratch, SparseFfn* sparse = nullptr);

  // Computes `tokens`, 1 to the scratch's batch of them, at positions
  // `position`, position + 1, ... of the cache, which holds all positions
  // before. `wanted`, ascending indices into `tokens`, says whose logits to
  // compute; they go to `logits`, [wanted.size(), vocab_size].
  // Reads every layer once. kUnavailable: a read failed. kCancelled: as the
  // store's token asked.
  // After an error the cache's positions from `position` on are undefined.
  Status Forward(std::span<const TokenId> tokens, uint32_t position,
                 std::span<const uint32_t> wanted, float* logits);

  // Whom to tell what the FFN of each layer does; may be null. Outlives the
  // next calls. A sparse FFN tells nothing.
  void set_observer(FfnObserver* observer) { observer_ = observer; }

 private:
  Status Embed(std::span<const TokenId> tokens);
  Status AttentionBlock(uint32_t layer, size_t num_tokens, uint32_t position);
  Status FfnBlock(uint32_t layer, size_t num_tokens, uint32_t position);
  Status DenseFfnBlock(uint32_t layer, size_t num_tokens);
  Status SparseFfnBlock(uint32_t layer, size_t num_tokens, uint32_t position);
  Status OutputHead(std::span<const uint32_t> wanted, float* logits);

  void RotateAndStoreKeys(uint32_t layer, size_t num_tokens, uint32_t position);
  void AttendToCache(uint32_t layer, size_t num_tokens, uint32_t position);
  void AttendOfOneToken(uint32_t layer, uint32_t position, float scale);
  template <class Run>
  void ForTokens(size_t num_tokens, const Run& run);
  void SetNeuronTokens(const LayerWeights& weights, size_t num_tokens);
  void NormTokens(const PartRef& weights, size_t num_tokens);
  void AddPartialToResidual(size_t num_tokens);

  // out[t, r] = row r of the matrix times x[t], for all rows.
  Status MatMulAll(const PartRef& matrix, uint64_t num_rows, uint64_t num_cols,
                   const float* x, uint64_t x_stride, size_t num_tokens,
                   float* out, uint64_t out_stride);
  // The same, and done(first, count) after every run of rows, which are
  // `max_rows` at most; ends with the first Status of it that is an error.
  template <class Done>
  Status MatMulRuns(const PartRef& matrix, uint64_t num_rows, uint64_t num_cols,
                    const float* x, uint64_t x_stride, size_t num_tokens,
                    float* out, uint64_t out_stride, uint64_t max_rows,
                    const Done& done);
  // What the loop after the next one goes through: nothing that is known, the
  // rows of a matrix, or the FFN of a layer. Sets first_ where there is one
  // token, and they are all in DRAM. To be called before each loop over weights
  // that fetches first_, and before each that does not expect it to be fetched.
  void SetNext();
  void SetNextMatrix(const PartRef& matrix, uint64_t num_rows,
                     size_t num_tokens);
  void SetNextFfn(uint32_t layer, size_t num_tokens);
  const float* Norm(const PartRef& part) const;

  const ModelConfig& config_;
  const ModelWeights& weights_;
  const std::vector<Segment>& segments_;
  WeightStore& store_;
  ThreadPool& pool_;
  KvCache& cache_;
  Scratch& s_;
  SparseFfn* const sparse_;  // Computes the FFN where it is not null.
  FfnObserver* observer_ = nullptr;
  BatchProduct product_;
  DenseFfn dense_;
  // FirstWeights of the next loop over weights, which the one before has
  // fetched, and of the one after it. Part 0's is empty where unknown, or when
  // another loop was expected.
  std::vector<std::span<const std::byte>> fetched_;
  std::vector<std::span<const std::byte>> first_;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_TRANSFORMER_H_
