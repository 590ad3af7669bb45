#include "core/engine.h"

#include <algorithm>
#include <new>
#include <utility>
#include <vector>

#include "core/calibration.h"
#include "core/session.h"
#include "storage/open_reader.h"

namespace flashelm {
namespace {

// Raises a budget's limit while the parts of two plans exist side by side: as
// addresses, since those of the first have given back their memory and those of
// the second have none yet.
class RaisedLimit {
 public:
  explicit RaisedLimit(MemoryBudget& budget)
      : budget_(budget), limit_bytes_(budget.limit_bytes()) {
    budget_.set_limit(kUnlimitedBytes);
  }
  ~RaisedLimit() { budget_.set_limit(limit_bytes_); }
  RaisedLimit(const RaisedLimit&) = delete;
  RaisedLimit& operator=(const RaisedLimit&) = delete;

  // The limit from here on.
  void ReplaceBy(uint64_t limit_bytes) { limit_bytes_ = limit_bytes; }

 private:
  MemoryBudget& budget_;
  uint64_t limit_bytes_;
};

}  // namespace

Engine::Parts::~Parts() {
  sparse_ffn.reset();
  // They give their readers what these still write to.
  bundles.reset();
  store.reset();
  EndReader(std::move(bundle_reader), left_bytes);
  EndReader(std::move(reader), left_bytes);
}

WeightStoreStats Engine::Parts::Reads() const {
  WeightStoreStats total = store->stats();
  total.stream_bytes += reads_before.stream_bytes;
  total.num_reads += reads_before.num_reads;
  total.io_busy_ns += reads_before.io_busy_ns;
  total.io_wait_ns += reads_before.io_wait_ns;
  total.resident_bytes += reads_before.resident_bytes;
  if (bundles == nullptr) return total;
  const BundleStoreStats apart = bundles->stats();
  total.stream_bytes += apart.bundles.read_bytes;
  total.num_reads += apart.bundles.num_reads;
  // Two readers take turns but for reads ahead.
  total.io_busy_ns += apart.io_busy_ns;
  total.io_wait_ns += apart.bundles.io_wait_ns;
  return total;
}

Engine::Engine(ModelFile model, const EngineOptions& options)
    : model_(std::move(model)), options_(options), budget_(0) {
  options_.cancel = nullptr;
  options_.progress = nullptr;
}

Result<std::unique_ptr<Engine>> Engine::Create(ModelFile model,
                                               const EngineOptions& options) {
  FLASHELM_ASSIGN_OR_RETURN(MemoryPlan plan, MakePlan(model, options.plan));
  std::unique_ptr<Engine> engine(new Engine(std::move(model), options));
  engine->budget_.set_limit(plan.total_bytes);
  FLASHELM_RETURN_IF_ERROR(engine->budget_.Charge(
      engine->SpokenFor(plan), "code, directory and threads"));
  if (options.plan.sparsity.is_on()) {
    FLASHELM_RETURN_IF_ERROR(CheckCalibration(engine->model_));
  }
  if (options.max_trace_sweeps > 0) {
    engine->trace_ = std::make_unique<SweepTrace>(plan.residency.NumSteps(),
                                                  options.max_trace_sweeps);
  }
  FLASHELM_ASSIGN_OR_RETURN(engine->pool_,
                            ThreadPool::Create(options.plan.num_threads));
  FLASHELM_ASSIGN_OR_RETURN(engine->parts_,
                            engine->MakeParts(std::move(plan), nullptr));
  engine->RegisterBuffers();
  const CancelToken never;
  FLASHELM_RETURN_IF_ERROR(engine->store().Load(
      options.cancel != nullptr ? *options.cancel : never, options.progress));
  if (engine->sparse_ffn() != nullptr) {
    FLASHELM_RETURN_IF_ERROR(engine->sparse_ffn()->OpenPredictors());
  }
  return engine;
}

uint64_t Engine::SpokenFor(const MemoryPlan& plan) const {
  const WeightFile& file = model_.weight_file();
  const uint64_t spoken_for =
      plan.total_bytes - plan.kv_cache_bytes - plan.activation_bytes -
      WeightStoreOverheadBytes(file, plan.residency) - plan.sparse_bytes;
  if (!budget_enforced()) return spoken_for;
  return spoken_for - plan.residency.RingBytes() -
         plan.residency.ResidentBytes(file.segments());
}

Result<std::unique_ptr<AsyncReader>> Engine::MakeReader(
    const MemoryPlan& plan, uint32_t depth, const ReadShape& shape) {
  const auto& file = model_.weight_file().shared_file();
  if (options_.make_reader) return options_.make_reader(file, depth);
  return OpenReader(file, {options_.plan.io, depth, plan.num_io_threads,
                           shape.queue_depth, shape.request_bytes});
}

Result<std::unique_ptr<Engine::Parts>> Engine::MakeParts(MemoryPlan plan,
                                                         const Parts* before) {
  auto parts = std::make_unique<Parts>();
  parts->plan = std::move(plan);
  parts->left_bytes = left_bytes_;
  const WeightFile& file = model_.weight_file();
  const ResidencyPlan& residency = parts->plan.residency;
  const ReadShape& shape = options_.read_shape;
  WeightStoreOptions store_options;
  store_options.read_timeout = options_.read_timeout;
  // What the caller wants to have in flight, as far as the ring goes.
  store_options.window_bytes =
      std::max(WeightStore::UsualWindowBytes(residency),
               shape.request_bytes * shape.queue_depth);
  store_options.trace = trace_.get();
  if (before != nullptr) store_options.before = before->store.get();
  if (!budget_enforced()) {
    FLASHELM_ASSIGN_OR_RETURN(
        parts->store,
        WeightStore::CreateMapped(file, residency, budget_, store_options));
  } else {
    FLASHELM_ASSIGN_OR_RETURN(
        parts->reader,
        MakeReader(parts->plan, WeightStore::MaxReadsInFlight(residency),
                   shape));
    FLASHELM_ASSIGN_OR_RETURN(
        parts->store, WeightStore::Create(file, residency, *parts->reader,
                                          budget_, store_options));
  }
  if (options_.plan.sparsity.is_on()) {
    FLASHELM_RETURN_IF_ERROR(AddSparseFfn(*parts));
  }
  return parts;
}

// Reads of single bundles have a reader of their own, so that they do not wait
// behind the ring's.
Status Engine::AddBundleStore(Parts& parts) {
  // As many as devices need to be busy with small reads.
  constexpr uint32_t kDepth = 64;
  FLASHELM_ASSIGN_OR_RETURN(
      parts.bundle_reader,
      MakeReader(parts.plan, kDepth, {.queue_depth = kDepth}));
  BundleStoreOptions bundle_options =
      BundleOptions(model_, options_.plan.sparsity, parts.plan.cached_bundles);
  bundle_options.read_timeout = options_.read_timeout;
  bundle_options.cost = options_.plan.read_cost;
  FLASHELM_ASSIGN_OR_RETURN(
      parts.bundles,
      BundleStore::Create(model_.weight_file(), parts.plan.residency.apart,
                          bundle_options, *parts.bundle_reader,
                          parts.store->verifier(), budget_));
  return OkStatus();
}

Status Engine::AddSparseFfn(Parts& parts) {
  if (!parts.plan.cached_bundles.empty()) {
    FLASHELM_RETURN_IF_ERROR(AddBundleStore(parts));
  }
  FLASHELM_ASSIGN_OR_RETURN(
      parts.sparse_ffn,
      SparseFfn::Create(model_, parts.plan, options_.plan.sparsity,
                        *parts.store, parts.bundles.get(), *pool_, budget_));
  return OkStatus();
}

Result<MemoryPlan> Engine::PlanFor(uint64_t budget_bytes) const {
  if (!budget_enforced() || trace_ != nullptr || options_.plan.all_logits) {
    return InvalidArgument(model_.path(),
                           ": the budget of weights that are mapped, of a "
                           "timeline or of logits of all positions is fixed");
  }
  PlanOptions plan_options = options_.plan;
  plan_options.budget_bytes = budget_bytes;
  return MakePlan(model_, plan_options);
}

Status Engine::Replan(MemoryPlan plan, uint64_t budget_bytes,
                      std::span<Session* const> sessions) {
  FLASHELM_RETURN_IF_ERROR(store().DropResident());
  RaisedLimit limit(budget_);
  FLASHELM_ASSIGN_OR_RETURN(std::unique_ptr<Parts> parts,
                            MakeParts(std::move(plan), parts_.get()));
  if (parts->sparse_ffn != nullptr) {
    FLASHELM_RETURN_IF_ERROR(parts->sparse_ffn->OpenPredictors());
  }
  std::vector<std::unique_ptr<Session::Parts>> session_parts;
  session_parts.reserve(sessions.size());
  for (Session* session : sessions) {
    FLASHELM_ASSIGN_OR_RETURN(session_parts.emplace_back(),
                              session->MakeParts(*parts));
  }
  parts->reads_before = parts_->Reads();
  // Nothing fails from here on.
  budget_.Release(SpokenFor(parts_->plan));
  limit.ReplaceBy(parts->plan.total_bytes);
  FLASHELM_RETURN_IF_ERROR(
      budget_.Charge(SpokenFor(parts->plan), "code, directory and threads"));
  for (size_t i = 0; i < sessions.size(); ++i) {
    sessions[i]->ReplaceParts(std::move(session_parts[i]));
  }
  parts_ = std::move(parts);
  options_.plan.budget_bytes = budget_bytes;
  RegisterBuffers();
  return OkStatus();
}

void Engine::RegisterBuffers() {
  try {
    store().RegisterBuffers();
    if (parts_->bundles != nullptr) parts_->bundles->RegisterBuffers();
  } catch (const std::bad_alloc&) {
    // Then reads pin their pages one by one.
  }
}

}  // namespace flashelm
