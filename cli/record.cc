#include "cli/record.h"

#include <algorithm>

#include "core/base/process_memory.h"
#include "core/simd.h"

namespace flashelm::cli {
namespace {

constexpr double kNanosecondsPerMs = 1e6;

}  // namespace

std::optional<double> Percentile(std::vector<double> values, double part) {
  if (values.empty()) return std::nullopt;
  const size_t rank =
      std::min(values.size() - 1,
               static_cast<size_t>(part * static_cast<double>(values.size())));
  std::nth_element(values.begin(), values.begin() + rank, values.end());
  return values[rank];
}

std::optional<double> Median(std::vector<double> values) {
  return Percentile(std::move(values), 0.5);
}

namespace {

// visit(to, from) for everything that adds up.
template <class Visit>
void ForEachSum(SessionStats& to, const SessionStats& from,
                const Visit& visit) {
  visit(to.num_tokens, from.num_tokens);
  visit(to.num_sweeps, from.num_sweeps);
  visit(to.total_ns, from.total_ns);
  visit(to.store.stream_bytes, from.store.stream_bytes);
  visit(to.store.num_reads, from.store.num_reads);
  visit(to.store.io_busy_ns, from.store.io_busy_ns);
  visit(to.store.io_wait_ns, from.store.io_wait_ns);
  visit(to.sparsity.num_neurons, from.sparsity.num_neurons);
  visit(to.sparsity.num_kept, from.sparsity.num_kept);
  visit(to.sparsity.num_active, from.sparsity.num_active);
  visit(to.sparsity.num_kept_active, from.sparsity.num_kept_active);
  visit(to.sparsity.num_in_both, from.sparsity.num_in_both);
  visit(to.sparsity.num_in_either, from.sparsity.num_in_either);
  visit(to.bundles.num_wanted, from.bundles.num_wanted);
  visit(to.bundles.num_hits, from.bundles.num_hits);
  visit(to.bundles.num_misses, from.bundles.num_misses);
  visit(to.bundles.num_reads, from.bundles.num_reads);
  visit(to.bundles.read_bytes, from.bundles.read_bytes);
  visit(to.bundles.fresh_bytes, from.bundles.fresh_bytes);
  visit(to.bundles.num_dense_fetches, from.bundles.num_dense_fetches);
  visit(to.bundles.memory_ns, from.bundles.memory_ns);
}

}  // namespace

SessionStats Difference(const SessionStats& after, const SessionStats& before) {
  SessionStats result = after;
  ForEachSum(result, before, [](uint64_t& to, uint64_t from) { to -= from; });
  return result;
}

void AddStats(const SessionStats& run, SessionStats& sum) {
  ForEachSum(sum, run, [](uint64_t& to, uint64_t from) { to += from; });
  sum.sparsity.max_skipped =
      std::max(sum.sparsity.max_skipped, run.sparsity.max_skipped);
  // All runs are of one engine.
  sum.sparsity.knows_active = run.sparsity.knows_active;
  sum.sparsity.knows_kept_active = run.sparsity.knows_kept_active;
  sum.sparsity.knows_skipped = run.sparsity.knows_skipped;
}

std::optional<uint64_t> PeakBytes() {
  const auto memory = ReadProcessMemory();
  if (!memory) return std::nullopt;
  return memory->peak_resident_bytes;
}

std::optional<double> Measurement::PerPass(uint64_t total) const {
  if (decode.num_tokens == 0) return std::nullopt;
  return static_cast<double>(total) / static_cast<double>(decode.num_tokens);
}

void AddModelKeys(const ModelFile& model, Json& json) {
  json["model_path"] = model.path();
  json["model_size_bytes"] = model.file_bytes();
  json["n_params"] = model.config().num_params();
  json["weights"] = model.weights_name();
}

void AddPlanKeys(const PlanOptions& options, const MemoryPlan& plan,
                 Json& json) {
  json["n_threads"] = options.num_threads;
  json["mem_budget_bytes"] = options.budget_bytes == kUnlimitedBytes
                                 ? Json(nullptr)
                                 : Json(options.budget_bytes);
  json["budget_enforced"] = options.io != IoBackend::kMmap;
  json["planned_bytes"] = plan.total_bytes;
  json["n_ctx"] = plan.context;
  json["n_batch"] = plan.batch;
  json["kv_type"] = options.kv_type == KvType::kF32 ? "f32" : "bf16";
  json["flash_bytes_bound_per_token"] =
      options.io == IoBackend::kMmap || options.sparsity.is_on()
          ? Json(nullptr)
          : Json(plan.streamed_bytes_per_token);
}

void AddEngineKeys(const Engine& engine, Json& json) {
  AddModelKeys(engine.model(), json);
  AddPlanKeys(engine.plan_options(), engine.plan(), json);
  json["budget_enforced"] = engine.budget_enforced();
  json["peak_rss_bytes"] = OrNull(PeakBytes());
  json["io_backend"] = std::string(engine.io_backend());
  json["direct_io"] = engine.plan_options().io != IoBackend::kMmap &&
                      engine.model().weight_file().file().direct_io();
  json["simd"] = std::string(SimdTargetName());
}

namespace {

Json Ratio(uint64_t part, uint64_t whole) {
  return whole == 0
             ? Json(nullptr)
             : Json(static_cast<double>(part) / static_cast<double>(whole));
}

// Null, all of them, where every neuron was computed.
void AddBundleKeys(const Measurement& measurement, Json& json) {
  const SparsityStats& sparsity = measurement.decode.sparsity;
  const BundleStats& bundles = measurement.decode.bundles;
  const auto per_pass = [&](uint64_t total) {
    const auto value = measurement.PerPass(total);
    return value && sparsity.num_neurons > 0 ? Json(*value) : Json(nullptr);
  };
  json["cache_hit_rate"] = Ratio(bundles.num_hits, bundles.num_wanted);
  json["fresh_bytes_per_token"] = per_pass(bundles.fresh_bytes);
  json["bundle_misses_per_token"] = per_pass(bundles.num_misses);
  json["bundle_reads_per_token"] = per_pass(bundles.num_reads);
  json["dense_fetches"] = sparsity.num_neurons > 0
                              ? Json(bundles.num_dense_fetches)
                              : Json(nullptr);
}

}  // namespace

void AddSparsityKeys(const SparsityStats& sparsity, Json& json) {
  json["kept_fraction"] = Ratio(sparsity.num_kept, sparsity.num_neurons);
  json["max_skipped"] = sparsity.knows_skipped && sparsity.num_neurons > 0
                            ? Json(sparsity.max_skipped)
                            : Json(nullptr);
  json["recall"] = sparsity.knows_active
                       ? Ratio(sparsity.num_kept_active, sparsity.num_active)
                       : Json(nullptr);
  json["precision"] = sparsity.knows_kept_active
                          ? Ratio(sparsity.num_kept_active, sparsity.num_kept)
                          : Json(nullptr);
  json["overlap"] = Ratio(sparsity.num_in_both, sparsity.num_in_either);
}

void AddMeasurementKeys(const Measurement& measurement, Json& json) {
  const SessionStats& decode = measurement.decode;
  const auto per_pass_ms = [&](uint64_t ns) {
    const auto value = measurement.PerPass(ns);
    return value && measurement.counts_reads ? Json(*value / kNanosecondsPerMs)
                                             : Json(nullptr);
  };
  json["n_prompt"] = measurement.n_prompt;
  json["n_gen"] = measurement.n_gen;
  json["prompt_tps"] = OrNull(measurement.prompt_tps);
  json["gen_tps"] = OrNull(measurement.gen_tps);
  json["ttft_ms"] = OrNull(measurement.ttft_ms);
  json["itl_p50_ms"] = OrNull(Percentile(measurement.token_ms, 0.50));
  json["itl_p95_ms"] = OrNull(Percentile(measurement.token_ms, 0.95));
  json["flash_bytes_per_token"] = OrNull(measurement.FlashBytesPerToken());
  // Two readers that were busy at once are counted twice, but none was for
  // longer than it all took.
  const uint64_t busy_ns = std::min(decode.store.io_busy_ns, decode.total_ns);
  // Bytes per nanosecond are GB per second.
  json["flash_read_gbps"] =
      busy_ns > 0 ? Json(static_cast<double>(decode.store.stream_bytes) /
                         static_cast<double>(busy_ns))
                  : Json(nullptr);
  json["io_busy_ms"] = per_pass_ms(busy_ns);
  json["io_wait_ms"] = per_pass_ms(decode.store.io_wait_ns);
  json["memory_ms"] = per_pass_ms(decode.bundles.memory_ns);
  json["compute_ms"] = per_pass_ms(decode.total_ns - decode.store.io_wait_ns -
                                   decode.bundles.memory_ns);
  const auto total_ns = measurement.PerPass(decode.total_ns);
  json["ms_per_token"] =
      total_ns ? Json(*total_ns / kNanosecondsPerMs) : Json(nullptr);
  json["reads_per_token"] =
      measurement.counts_reads
          ? OrNull(measurement.PerPass(decode.store.num_reads))
          : Json(nullptr);
  AddSparsityKeys(decode.sparsity, json);
  AddBundleKeys(measurement, json);
}

std::string Dump(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace flashelm::cli
