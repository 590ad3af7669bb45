// What a model will take of RAM, before any of it is taken.
#ifndef FLASHELM_CORE_MEMORY_PLAN_H_
#define FLASHELM_CORE_MEMORY_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/model_file.h"
#include "core/sparsity.h"
#include "kernels/attention.h"
#include "storage/open_reader.h"
#include "storage/read_planner.h"
#include "storage/weight_store.h"

namespace flashelm {

// More threads than this are a slip, not a wish.
inline constexpr uint32_t kMaxThreads = 1024;

inline constexpr uint32_t kMaxSessions = 1024;

// A budget that refuses nothing.
inline constexpr uint64_t kUnlimitedBytes = UINT64_MAX;

struct PlanOptions {
  // Covers everything below, and the process around it when `whole_process`.
  uint64_t budget_bytes = kUnlimitedBytes;
  // Whether code, heap and stack of this process count, as for a command; a
  // library inside an application answers for its own share alone.
  bool whole_process = true;
  uint32_t context = 0;      // Positions; 0: as many as the model was made for.
  uint32_t max_batch = 512;  // Prompt tokens per sweep; fewer if RAM is short.
  // Whether a call may ask for the logits of every position in a batch, or of
  // one only. With all of them a batch takes vocab_size floats more per token.
  bool all_logits = false;
  KvType kv_type = KvType::kF32;
  uint32_t num_threads = 1;  // Of computation, the caller's included.
  // How weights are read. With kMmap they are the system's to keep or drop, so
  // they are no part of the plan, and no budget can be held.
  IoBackend io = IoBackend::kAuto;
  // Of a pread reader, besides; at most 4 where the budget is short.
  uint32_t num_io_threads = 8;
  // Which neurons are computed. With sparsity, layers whose neurons are read
  // one by one leave the sweep: all other weights come first, and a cache of
  // bundles takes what is left.
  SparsityOptions sparsity;
  // What reads of single neurons cost, and those of a sweep.
  ReadCost read_cost;
  // Whether weights stay in RAM that need not. Without, every token streams all
  // of them, however large the budget: a baseline to measure against.
  bool pins_weights = true;
  // What the caller will hold itself while the model runs: prompts, outputs.
  uint64_t caller_bytes = 0;
  // Sessions that there may be at a time, each with a KV cache and activations.
  uint32_t max_sessions = 1;
};

struct PlanLine {
  std::string name;
  uint64_t bytes = 0;
};

struct MemoryPlan {
  std::vector<PlanLine> lines;  // Their sum is total_bytes.
  uint64_t total_bytes = 0;     // At most the budget.
  uint64_t minimum_bytes = 0;   // The smallest budget that is feasible.

  // Parts that the engine takes one by one; the rest of the lines are taken by
  // the process and by small objects.
  uint64_t kv_cache_bytes = 0;
  uint64_t activation_bytes = 0;
  // Of the total: the lines for code, heap, directory, tokenizer, threads and
  // caller, which are bounds; and what the kernel takes for the process, which
  // VmHWM is without. The rest is taken to the byte.
  uint64_t process_bytes = 0;
  uint64_t kernel_bytes = 0;

  uint32_t num_io_threads = 0;  // Of each pread reader, should there be one.
  ResidencyPlan residency;
  // With sparsity: layers whose neurons a sweep streams, all of them, since
  // that is faster than to read some one by one; those that the selector leaves
  // out are not computed there either. Empty: none.
  std::vector<bool> streamed_layers;
  // With sparsity: bundles that the cache has room for, by segment of
  // residency.apart, as ShareCache() gives them; and what a sparse FFN and its
  // store of bundles take.
  std::vector<uint32_t> cached_bundles;
  uint64_t sparse_bytes = 0;
  uint32_t context = 0;
  uint32_t batch = 0;           // Tokens per sweep.
  uint32_t max_logit_rows = 0;  // Positions whose logits one call may ask for.
  uint64_t weight_bytes = 0;    // M: what a token needs.
  // Of M, what every token's sweep streams: what is not resident.
  uint64_t streamed_bytes_per_token = 0;

  bool streams_neurons(uint32_t layer) const {
    return !streamed_layers.empty() && streamed_layers[layer];
  }
};

// Fixed parts first, then the ring, then as many weights as the rest holds,
// spread evenly over the segments so that neither end of the cycle starves.
// Depends on its arguments and on the program alone, so that a budget once
// feasible stays so. With sparsity, ChooseStreamedLayers() says which layers'
// neurons are streamed. kBudgetInfeasible: with the smallest budget that would
// do. kInvalidArgument: a context longer than the model's, no thread or more
// than kMaxThreads, no session or more than kMaxSessions. With sparsity also as
// NeuronFrequency::Read().
Result<MemoryPlan> MakePlan(const ModelFile& model, const PlanOptions& options);

// "12.3 MiB", for people.
std::string FormatBytes(uint64_t bytes);

}  // namespace flashelm

#endif  // FLASHELM_CORE_MEMORY_PLAN_H_
