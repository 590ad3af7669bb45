// A loaded model.
#ifndef FLASHELM_CORE_ENGINE_H_
#define FLASHELM_CORE_ENGINE_H_

#include <chrono>
#include <functional>
#include <memory>
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

// The model, its plan, and what all sequences share: resident weights, reader,
// threads. It has as many sessions as were planned, of which one at a time is
// in a call, on any thread. Stays where it was made.
class Engine {
 public:
  // Plans, then takes memory, then reads the resident weights, which takes
  // seconds for a large model. kBudgetInfeasible, kInvalidArgument: as
  // MakePlan(). kUnavailable: a read failed or brought wrong bytes.
  // kResourceExhausted: the system has less than was planned.
  static Result<std::unique_ptr<Engine>> Create(ModelFile model,
                                                const EngineOptions& options);

  const ModelFile& model() const { return model_; }
  const ModelConfig& config() const { return model_.config(); }
  const Tokenizer& tokenizer() const { return model_.tokenizer(); }
  const MemoryPlan& plan() const { return plan_; }
  const PlanOptions& plan_options() const { return plan_options_; }
  std::string_view io_backend() const {
    return reader_ != nullptr ? reader_->name() : "mmap";
  }
  // Whether the plan's total is held: not when weights are mapped.
  bool budget_enforced() const { return plan_options_.io != IoBackend::kMmap; }

  // What was read and computed when; null unless asked for.
  const SweepTrace* trace() const { return trace_.get(); }

  // For Session.
  MemoryBudget& budget() { return budget_; }
  WeightStore& store() { return *store_; }
  SparseFfn* sparse_ffn() { return sparse_ffn_.get(); }  // Null: dense.
  // Null also where the neurons of all layers are streamed.
  const BundleStore* bundles() const { return bundles_.get(); }
  ThreadPool& pool() { return *pool_; }
  // As WeightStore::set_cancel(), for all that waits for the device.
  void set_cancel(const CancelToken* cancel) {
    store_->set_cancel(cancel);
    if (bundles_ != nullptr) bundles_->set_cancel(cancel);
  }

 private:
  Engine(ModelFile model, MemoryPlan plan, const PlanOptions& plan_options);
  Status CreateBundleStore(const EngineOptions& options);
  Status CreateSparseFfn(const EngineOptions& options);

  ModelFile model_;
  const MemoryPlan plan_;
  const PlanOptions plan_options_;
  MemoryBudget budget_;
  std::unique_ptr<SweepTrace> trace_;
  // In this order: the store uses the reader, both use the file.
  std::unique_ptr<AsyncReader> reader_;
  std::unique_ptr<WeightStore> store_;
  std::unique_ptr<ThreadPool> pool_;
  // With sparsity; the reader before what uses it.
  std::unique_ptr<AsyncReader> bundle_reader_;
  std::unique_ptr<BundleStore> bundles_;
  std::unique_ptr<SparseFfn> sparse_ffn_;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_ENGINE_H_
