// A loaded model.
#ifndef FLASHELM_CORE_ENGINE_H_
#define FLASHELM_CORE_ENGINE_H_

#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "core/base/cancel.h"
#include "core/base/memory.h"
#include "core/base/thread_pool.h"
#include "core/memory_plan.h"
#include "core/model_file.h"
#include "core/sparse_ffn.h"
#include "storage/bundle_store.h"
#include "storage/open_reader.h"
#include "storage/read_tuner.h"
#include "storage/weight_store.h"

namespace flashelm {

struct EngineOptions {
  PlanOptions plan;
  // Stops loading; may be null. Outlives Create().
  const CancelToken* cancel = nullptr;
  // Bytes of resident weights read so far, and in all; may be empty.
  WeightStore::ProgressFunction progress;
  // How long a read may take before the call fails with kUnavailable.
  std::chrono::nanoseconds read_timeout = std::chrono::seconds(30);
  // Room for a timeline of so many sweeps, charged by the caller to
  // plan.caller_bytes: SweepTrace::NumBytes() for NumSteps() steps. 0: none.
  uint64_t max_trace_sweeps = 0;
  // What the device gets at a time; zeros: the reader finds out.
  ReadShape read_shape;
  // Makes the reader, given the file and the depth it needs; empty for what
  // `plan.io` says. Tests put faults in here.
  std::function<Result<std::unique_ptr<AsyncReader>>(
      std::shared_ptr<const RandomAccessFile>, uint32_t depth)>
      make_reader;
};

class Session;

// The model, its plan, and what all sequences share: resident weights, reader,
// threads. It has as many sessions as were planned, of which one at a time is
// in a call, on any thread. Stays where it was made.
class Engine {
 public:
  // What follows from a plan, and is made anew with it.
  struct Parts {
    Parts() = default;
    ~Parts();
    Parts(const Parts&) = delete;
    Parts& operator=(const Parts&) = delete;

    MemoryPlan plan;
    // In this order: the store uses the reader.
    std::unique_ptr<AsyncReader> reader;
    std::unique_ptr<WeightStore> store;
    // With sparsity.
    std::unique_ptr<AsyncReader> bundle_reader;
    std::unique_ptr<BundleStore> bundles;
    std::unique_ptr<SparseFfn> sparse_ffn;
    WeightStoreStats reads_before;  // By parts before these.
    SharedByteCount left_bytes;

    // Of weights and of bundles, by these and by those before.
    WeightStoreStats Reads() const;
  };

  // Plans, then takes memory, then reads the resident weights, which takes
  // seconds for a large model. kBudgetInfeasible, kInvalidArgument: as
  // MakePlan(). kUnavailable: a read failed or brought wrong bytes.
  // kResourceExhausted: the system has less than was planned.
  static Result<std::unique_ptr<Engine>> Create(ModelFile model,
                                                const EngineOptions& options);

  // A plan for another budget. With sparsity, what it needs is read from the
  // file. Errors as MakePlan(). kInvalidArgument also: weights are mapped, a
  // timeline is recorded, or calls may ask for the logits of all positions.
  Result<MemoryPlan> PlanFor(uint64_t budget_bytes) const;

  // Makes what follows from the plan anew, for another one of PlanFor(), or for
  // a copy of the same: the memory of all weights in RAM and of activations
  // goes back to the system at once; what the plan has resident is read when a
  // token needs it. Logits stay as they are, and do not depend on it. Meanwhile
  // both plans have addresses, but only one of them memory, but for what a
  // cache of bundles keeps of each of them.
  //
  // Waits for reads in flight, at most two seconds for each of the two readers;
  // the buffers of those that are not answered come on top of the budget, until
  // they are: EndReader() has them. `sessions` are all that there are; none is
  // in a call. kResourceExhausted: the system has no memory, or does not take
  // it back. kUnavailable, kUnimplemented: no reader could be made. After an
  // error the plan is what it was.
  Status Replan(MemoryPlan plan, uint64_t budget_bytes,
                std::span<Session* const> sessions);

  const ModelFile& model() const { return model_; }
  const ModelConfig& config() const { return model_.config(); }
  const Tokenizer& tokenizer() const { return model_.tokenizer(); }
  const MemoryPlan& plan() const { return parts_->plan; }
  const PlanOptions& plan_options() const { return options_.plan; }
  std::string_view io_backend() const {
    return parts_->reader != nullptr ? parts_->reader->name() : "mmap";
  }
  // Whether the plan's total is held: not when weights are mapped.
  bool budget_enforced() const { return options_.plan.io != IoBackend::kMmap; }

  // What was read and computed when; null unless asked for.
  const SweepTrace* trace() const { return trace_.get(); }

  // For Session. But for the budget and the pool, these are others after
  // Replan().
  MemoryBudget& budget() { return budget_; }
  ThreadPool& pool() { return *pool_; }
  const Parts& parts() const { return *parts_; }
  WeightStore& store() { return *parts_->store; }
  // Of buffers that a device may still write to, of parts that are gone.
  // Shared, as it may not have answered when the engine is gone, too.
  const SharedByteCount& left_bytes() const { return left_bytes_; }
  // Null: dense.
  SparseFfn* sparse_ffn() { return parts_->sparse_ffn.get(); }
  // Null also where the neurons of all layers are streamed.
  const BundleStore* bundles() const { return parts_->bundles.get(); }
  // Since the model was loaded.
  WeightStoreStats read_stats() const { return parts_->Reads(); }
  // As WeightStore::set_cancel(), for all that waits for the device.
  void set_cancel(const CancelToken* cancel) {
    parts_->store->set_cancel(cancel);
    if (parts_->bundles != nullptr) parts_->bundles->set_cancel(cancel);
  }

 private:
  Engine(ModelFile model, const EngineOptions& options);

  // Bytes of a plan that no buffer of ours holds.
  uint64_t SpokenFor(const MemoryPlan& plan) const;
  // `before`: those that the new ones follow, or null.
  Result<std::unique_ptr<Parts>> MakeParts(MemoryPlan plan,
                                           const Parts* before);
  Result<std::unique_ptr<AsyncReader>> MakeReader(const MemoryPlan& plan,
                                                  uint32_t depth,
                                                  const ReadShape& shape);
  // Of parts_, where nothing else is registered.
  void RegisterBuffers();
  Status AddBundleStore(Parts& parts);
  Status AddSparseFfn(Parts& parts);

  ModelFile model_;
  EngineOptions options_;  // Without what Create() alone needs.
  MemoryBudget budget_;
  const SharedByteCount left_bytes_ =
      std::make_shared<std::atomic<uint64_t>>(0);
  std::unique_ptr<SweepTrace> trace_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<Parts> parts_;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_ENGINE_H_
