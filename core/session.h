// One sequence being decoded.
#ifndef FLASHELM_CORE_SESSION_H_
#define FLASHELM_CORE_SESSION_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/base/cancel.h"
#include "core/engine.h"
#include "core/kv_cache.h"
#include "core/scratch.h"
#include "core/transformer.h"

namespace flashelm {

// Where the time of a session's calls went, and the bytes.
struct SessionStats {
  uint64_t num_tokens = 0;  // Positions computed.
  uint64_t num_sweeps = 0;  // Times the weights were gone through.
  uint64_t total_ns = 0;    // In Run().
  // With sparsity, of the engine, since its plan was made. What was read and
  // waited for is in `store`, too.
  SparsityStats sparsity;
  BundleStats bundles;
  WeightStoreStats store;  // Of the engine, since it was loaded.
};

// Holds the KV cache and the activations. Used by one thread. The engine
// outlives the session, and none of its other sessions is in a call meanwhile.
class Session {
 public:
  // What follows from the engine's plan, and is made anew with it.
  struct Parts {
    Parts(const Engine& engine, const Engine::Parts& engine_parts,
          ThreadPool& pool, KvCache& cache, Scratch new_scratch);

    Scratch scratch;
    Transformer transformer;
    const uint32_t batch;
    std::vector<uint32_t> wanted;  // Of one batch; [batch], taken once.
  };

  // kResourceExhausted: the engine's budget has no room, as when it has as many
  // sessions as were planned.
  static Result<std::unique_ptr<Session>> Create(Engine& engine);

  // Computes `tokens` at positions position(), position() + 1, ..., in batches
  // of the planned size, and keeps the logits of those that `wanted` names:
  // ascending indices into `tokens`, at most max_logit_rows() of them.
  // Allocates nothing unless it fails.
  //
  // kInvalidArgument: an id outside the vocabulary, or more positions than the
  // context has left; nothing was computed. kUnavailable: a read failed.
  // kCancelled: as asked, also while reads are waited for. After these two,
  // position() is as before the call, and the call may be repeated.
  Status Run(std::span<const TokenId> tokens, std::span<const uint32_t> wanted,
             const CancelToken& cancel);

  // Logits of the i-th wanted token of the last Run(), [vocab_size]; until the
  // next one.
  std::span<const float> logits(size_t i) const;

  // Forgets everything from `position` on; the next Run() writes there.
  // kInvalidArgument: beyond position().
  Status Truncate(uint32_t position);

  // For Engine::Replan(), between two calls. Makes what goes with the
  // engine's parts `engine`, which may be its next ones. kResourceExhausted: no
  // memory.
  Result<std::unique_ptr<Parts>> MakeParts(const Engine::Parts& engine);
  // Goes over to them, and gives the memory of those before back. Positions and
  // logits stay, the latter where they are.
  void ReplaceParts(std::unique_ptr<Parts> parts);

  // For session files. The keys and values of positions below `position`, which
  // the caller put into kv_cache(), count as computed.
  void Restore(uint32_t position) { position_ = position; }
  KvCache& kv_cache() { return cache_; }
  const KvCache& kv_cache() const { return cache_; }
  const Engine& engine() const { return engine_; }

  // As Transformer::set_observer().
  void set_observer(FfnObserver* observer) {
    observer_ = observer;
    parts_->transformer.set_observer(observer);
  }

  uint32_t position() const { return position_; }
  uint32_t context() const { return cache_.context(); }
  uint32_t vocab_size() const { return engine_.config().vocab_size; }
  uint32_t max_logit_rows() const { return max_logit_rows_; }
  const SessionStats& stats() const { return stats_; }

 private:
  Session(Engine& engine, KvCache cache, uint32_t max_logit_rows);

  Engine& engine_;
  KvCache cache_;
  const uint32_t max_logit_rows_;
  std::unique_ptr<Parts> parts_;
  const float* logits_ = nullptr;  // Of parts_; always there.
  FfnObserver* observer_ = nullptr;
  uint32_t position_ = 0;
  SessionStats stats_;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_SESSION_H_
