#include "core/engine.h"

#include <utility>

#include "core/calibration.h"
#include "storage/open_reader.h"

namespace flashelm {

Engine::Engine(ModelFile model, MemoryPlan plan,
               const PlanOptions& plan_options)
    : model_(std::move(model)),
      plan_(std::move(plan)),
      plan_options_(plan_options),
      budget_(plan_.total_bytes) {}

Result<std::unique_ptr<Engine>> Engine::Create(ModelFile model,
                                               const EngineOptions& options) {
  FLASHELM_ASSIGN_OR_RETURN(MemoryPlan plan, MakePlan(model, options.plan));
  const bool is_mapped = options.plan.io == IoBackend::kMmap;
  // Parts of the plan that no buffer of ours holds are spoken for at once.
  uint64_t spoken_for =
      plan.total_bytes - plan.kv_cache_bytes - plan.activation_bytes -
      WeightStoreOverheadBytes(model.weight_file(), plan.residency) -
      plan.sparse_bytes;
  if (!is_mapped) {
    spoken_for -= plan.residency.RingBytes() +
                  plan.residency.ResidentBytes(model.weight_file().segments());
  }
  std::unique_ptr<Engine> engine(
      new Engine(std::move(model), std::move(plan), options.plan));
  FLASHELM_RETURN_IF_ERROR(
      engine->budget_.Charge(spoken_for, "code, directory and threads"));

  const WeightFile& file = engine->model_.weight_file();
  const ResidencyPlan& residency = engine->plan_.residency;
  WeightStoreOptions store_options;
  store_options.read_timeout = options.read_timeout;
  // What the caller wants to have in flight, as far as the ring goes.
  store_options.window_bytes =
      std::max(store_options.window_bytes, options.read_shape.request_bytes *
                                               options.read_shape.queue_depth);
  if (options.max_trace_sweeps > 0) {
    engine->trace_ = std::make_unique<SweepTrace>(residency.NumSteps(),
                                                  options.max_trace_sweeps);
    store_options.trace = engine->trace_.get();
  }
  if (is_mapped) {
    FLASHELM_ASSIGN_OR_RETURN(
        engine->store_, WeightStore::CreateMapped(
                            file, residency, engine->budget_, store_options));
  } else {
    const uint32_t depth = WeightStore::MaxReadsInFlight(residency);
    FLASHELM_ASSIGN_OR_RETURN(
        engine->reader_,
        options.make_reader
            ? options.make_reader(file.shared_file(), depth)
            : OpenReader(file.shared_file(),
                         {options.plan.io, depth, options.plan.num_io_threads,
                          options.read_shape.queue_depth,
                          options.read_shape.request_bytes}));
    FLASHELM_ASSIGN_OR_RETURN(
        engine->store_, WeightStore::Create(file, residency, *engine->reader_,
                                            engine->budget_, store_options));
  }
  FLASHELM_ASSIGN_OR_RETURN(engine->pool_,
                            ThreadPool::Create(options.plan.num_threads));
  if (options.plan.sparsity.is_on()) {
    FLASHELM_RETURN_IF_ERROR(engine->CreateSparseFfn(options));
  }
  const CancelToken never;
  FLASHELM_RETURN_IF_ERROR(engine->store_->Load(
      options.cancel != nullptr ? *options.cancel : never, options.progress));
  if (engine->sparse_ffn_ != nullptr) {
    FLASHELM_RETURN_IF_ERROR(engine->sparse_ffn_->OpenPredictors());
  }
  return engine;
}

// Reads of single bundles have a reader of their own, so that they do not wait
// behind the ring's.
Status Engine::CreateBundleStore(const EngineOptions& options) {
  const WeightFile& file = model_.weight_file();
  // As many as devices need to be busy with small reads.
  constexpr uint32_t kDepth = 64;
  FLASHELM_ASSIGN_OR_RETURN(
      bundle_reader_,
      options.make_reader
          ? options.make_reader(file.shared_file(), kDepth)
          : OpenReader(file.shared_file(),
                       {options.plan.io, kDepth, options.plan.num_io_threads,
                        /*queue_depth=*/kDepth, /*request_bytes=*/0}));
  BundleStoreOptions bundle_options =
      BundleOptions(model_, options.plan.sparsity, plan_.cached_bundles);
  bundle_options.read_timeout = options.read_timeout;
  bundle_options.cost = options.plan.read_cost;
  FLASHELM_ASSIGN_OR_RETURN(
      bundles_,
      BundleStore::Create(file, plan_.residency.apart, bundle_options,
                          *bundle_reader_, store_->verifier(), budget_));
  return OkStatus();
}

Status Engine::CreateSparseFfn(const EngineOptions& options) {
  FLASHELM_RETURN_IF_ERROR(CheckCalibration(model_));
  if (!plan_.cached_bundles.empty()) {
    FLASHELM_RETURN_IF_ERROR(CreateBundleStore(options));
  }
  FLASHELM_ASSIGN_OR_RETURN(
      sparse_ffn_, SparseFfn::Create(model_, plan_, options.plan.sparsity,
                                     *store_, bundles_.get(), *pool_, budget_));
  return OkStatus();
}

}  // namespace flashelm
