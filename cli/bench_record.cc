#include "cli/bench_record.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <optional>
#include <string_view>
#include <vector>

#include "cli/layer_reads.h"
#include "core/base/format.h"

namespace flashelm::cli {
namespace {

constexpr const char* kKeys[] = {
    // What was measured, by whom and when.
    "schema_version", "test", "model_path", "model_filename", "model_type",
    "model_size_bytes", "model_size", "n_params", "model_n_params", "weights",
    "n_threads", "mem_budget_bytes", "budget_enforced", "planned_bytes",
    "io_backend", "direct_io", "n_ctx", "n_batch", "kv_type", "simd",
    "n_prompt", "n_gen", "n_repetitions", "test_time", "version",
    "build_commit", "command", "ablation", "error",
    // Speed.
    "avg_ns", "stddev_ns", "avg_ts", "stddev_ts", "prompt_tps", "gen_tps",
    "ttft_ms", "itl_p50_ms", "itl_p90_ms", "itl_p95_ms", "itl_p99_ms",
    "load_ms", "ms_per_token", "compute_ms", "io_busy_ms", "io_wait_ms",
    "memory_ms", "overhead_ms", "cpu_util",
    // Memory.
    "peak_rss_bytes", "rss_anon_bytes", "rss_file_bytes", "swap_bytes",
    "majflt", "minflt", "minor_faults_per_token", "major_faults_per_token",
    "mem_available_bytes", "cgroup_limit_bytes", "cgroup",
    // Reading.
    "weight_bytes_per_token", "bytes_read", "read_ops", "flash_bytes_per_token",
    "flash_bytes_bound_per_token", "flash_bytes_over_bound",
    "kernel_read_bytes_per_token", "kernel_write_bytes", "flash_read_gbps",
    "device_read_gbps", "reads_per_token", "cache_state", "cached_bytes",
    "layers",
    // Sparse decoding.
    "cache_hit_rate", "kept_fraction", "max_skipped", "recall", "precision",
    "overlap", "fresh_bytes_per_token", "bundle_misses_per_token",
    "bundle_reads_per_token", "dense_fetches",
    // Energy.
    "energy_j", "energy_j_per_token", "energy_source",
    // The machine.
    "cpu", "cpu_info", "kernel", "fs_type", "block_device", "storage_model",
    "config",
    // One number for each repetition, and for each token.
    "samples_ns", "samples_ts", "prompt_samples", "ttft_samples", "gen_samples",
    "samples"};

constexpr const char* kConfigKeys[] = {
    // As asked for.
    "mem_budget", "io", "ctx_size", "threads", "batch_size", "kv_type", "simd",
    "sparsity", "max_skipped", "window", "neuron_reads", "device_profile",
    "allow_unenforced", "cgroup", "cache_state", "warmup", "interleave",
    "repetitions",
    // As it was understood.
    "selector", "kept_fraction", "window_tokens", "pins_weights",
    "merges_reads", "streamed_layers", "n_io_threads", "ring_slots",
    "slot_bytes", "resident_bytes", "caller_bytes"};

constexpr std::string_view kPeaks[] = {"peak_rss_bytes", "rss_anon_bytes",
                                       "rss_file_bytes", "swap_bytes",
                                       "max_skipped",    "cached_bytes"};
constexpr std::string_view kSums[] = {
    "n_repetitions", "majflt",   "minflt",        "bytes_read",
    "read_ops",      "energy_j", "dense_fetches", "kernel_write_bytes"};
// Of the machine and not of the row, which may differ between its parts.
constexpr std::string_view kOfTheFirst[] = {"mem_available_bytes"};

bool IsIn(std::span<const std::string_view> keys, const std::string& key) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

double Sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

std::optional<double> Mean(const std::vector<double>& values) {
  if (values.empty()) return std::nullopt;
  return Sum(values) / static_cast<double>(values.size());
}

// Of the population that the values are a sample of; one value says nothing.
std::optional<double> StandardDeviation(const std::vector<double>& values) {
  if (values.size() < 2) return std::nullopt;
  const double mean = *Mean(values);
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

std::vector<double> Numbers(const Json& row, const char* key) {
  const Json& values = row[key];
  return values.is_array() ? values.get<std::vector<double>>()
                           : std::vector<double>();
}

std::optional<double> Number(const Json& row, const char* key) {
  const Json& value = row[key];
  if (!value.is_number()) return std::nullopt;
  return value.get<double>();
}

Json Rounded(const std::optional<double>& value) {
  return value ? Json(static_cast<uint64_t>(std::llround(*value)))
               : Json(nullptr);
}

// The value of one key of several records; `values` are never arrays.
Json MergeValues(const std::string& key, const std::vector<const Json*>& all) {
  const Json& first = *all.front();
  const auto is_first = [&](const Json* value) { return *value == first; };
  const auto is_number = [](const Json* value) { return value->is_number(); };
  if (!std::all_of(all.begin(), all.end(), is_number)) {
    if (key == "cache_state" && !first.is_null()) {
      // One part that is not as it was asked for, and the row is not.
      for (const Json* value : all) {
        if (*value != first && value->get<std::string>().size() >
                                   first.get<std::string>().size()) {
          return *value;
        }
      }
      return first;
    }
    return std::all_of(all.begin(), all.end(),
                       [](const Json* value) { return !value->is_null(); })
               ? first
               : Json(nullptr);
  }
  const auto is_less = [](const Json* a, const Json* b) { return *a < *b; };
  if (IsIn(kPeaks, key)) {
    return **std::max_element(all.begin(), all.end(), is_less);
  }
  const bool is_whole = std::all_of(
      all.begin(), all.end(),
      [](const Json* value) { return value->is_number_unsigned(); });
  if (IsIn(kSums, key) && is_whole) {
    uint64_t sum = 0;
    for (const Json* value : all) sum += value->get<uint64_t>();
    return sum;
  }
  double sum = 0;
  for (const Json* value : all) sum += value->get<double>();
  if (IsIn(kSums, key)) return sum;
  if (IsIn(kOfTheFirst, key) || std::all_of(all.begin(), all.end(), is_first)) {
    return first;
  }
  return sum / static_cast<double>(all.size());
}

Json MergeCgroups(const std::vector<const Json*>& all) {
  Json merged = *all.front();
  for (const Json* cgroup : all) {
    if (!cgroup->is_object()) return nullptr;
    if (cgroup == all.front()) continue;
    if ((*cgroup)["peak_bytes"] > merged["peak_bytes"]) {
      merged["peak_bytes"] = (*cgroup)["peak_bytes"];
    }
    for (const char* key : {"limit_hits", "oom_kills"}) {
      if (!merged[key].is_number() || !(*cgroup)[key].is_number()) continue;
      merged[key] =
          merged[key].get<uint64_t>() + (*cgroup)[key].get<uint64_t>();
    }
  }
  return merged;
}

// Means of what is per token; the same in all parts where it is planned.
Json MergeLayers(const std::vector<const Json*>& all) {
  Json merged = *all.front();
  for (auto& [key, value] : merged.items()) {
    if (!value.is_array()) continue;
    for (size_t i = 0; i < value.size(); ++i) {
      std::vector<const Json*> elements;
      for (const Json* layers : all) elements.push_back(&layers->at(key).at(i));
      value[i] = MergeValues(key, elements);
    }
  }
  return merged;
}

// "OpenELM 3.04B bf16".
std::string ModelType(uint64_t num_params, const std::string& weights) {
  const auto params = static_cast<double>(num_params);
  return params >= 1e9
             ? fmt::format("OpenELM {:.2f}B {}", params / 1e9, weights)
             : fmt::format("OpenELM {:.2f}M {}", params / 1e6, weights);
}

// llama-bench's names for what we know by others.
void AddAliases(Json& row) {
  row["model_filename"] = row["model_path"];
  row["model_size"] = row["model_size_bytes"];
  row["model_n_params"] = row["n_params"];
  row["cpu_info"] = row["cpu"];
  if (row["n_params"].is_number() && row["weights"].is_string()) {
    row["model_type"] = ModelType(row["n_params"].get<uint64_t>(),
                                  row["weights"].get<std::string>());
  }
}

void AddRates(uint64_t num_tokens, Json& row) {
  const std::vector<double> ns = Numbers(row, "samples_ns");
  std::vector<double> rates;
  for (const double value : ns) {
    rates.push_back(static_cast<double>(num_tokens) * 1e9 / value);
  }
  row["avg_ns"] = Rounded(Mean(ns));
  row["stddev_ns"] = Rounded(StandardDeviation(ns));
  row["avg_ts"] = OrNull(Mean(rates));
  row["stddev_ts"] = OrNull(StandardDeviation(rates));
  if (!rates.empty()) row["samples_ts"] = rates;
}

// Of the passes after the prompt.
void AddTokenKeys(Json& row) {
  const std::vector<double> token_ms = Numbers(row, "samples");
  row["itl_p50_ms"] = OrNull(Percentile(token_ms, 0.50));
  row["itl_p90_ms"] = OrNull(Percentile(token_ms, 0.90));
  row["itl_p95_ms"] = OrNull(Percentile(token_ms, 0.95));
  row["itl_p99_ms"] = OrNull(Percentile(token_ms, 0.99));
  const auto mean = Mean(token_ms);
  const auto inside = Number(row, "ms_per_token");
  if (mean && inside) row["overhead_ms"] = *mean - *inside;
  const auto flash = Number(row, "flash_bytes_per_token");
  const auto bound = Number(row, "flash_bytes_bound_per_token");
  if (flash && bound && *bound > 0) {
    row["flash_bytes_over_bound"] = *flash / *bound;
  }
}

}  // namespace

std::string TestName(uint32_t n_prompt, uint32_t n_gen) {
  if (n_gen == 0) return fmt::format("pp{}", n_prompt);
  if (n_prompt == 0) return fmt::format("tg{}", n_gen);
  return fmt::format("pp{}+tg{}", n_prompt, n_gen);
}

Json EmptyRow() {
  Json row;
  for (const char* key : kKeys) row[key] = nullptr;
  Json config;
  for (const char* key : kConfigKeys) config[key] = nullptr;
  row["config"] = std::move(config);
  row["layers"] = EmptyLayers();
  row["schema_version"] = kBenchSchemaVersion;
  return row;
}

Json EmptyCgroup() {
  Json cgroup;
  for (const char* key :
       {"version", "limit_bytes", "peak_bytes", "limit_hits", "oom_kills"}) {
    cgroup[key] = nullptr;
  }
  return cgroup;
}

Json MergeParts(std::span<const Json> parts) {
  Json merged = parts.front();
  if (parts.size() == 1) return merged;
  for (auto& [key, value] : merged.items()) {
    std::vector<const Json*> all;
    for (const Json& part : parts) all.push_back(&part.at(key));
    if (value.is_array()) {
      for (const Json& part : parts.subspan(1)) {
        const Json& more = part.at(key);
        value.insert(value.end(), more.begin(), more.end());
      }
    } else if (key == "cgroup") {
      value = MergeCgroups(all);
    } else if (key == "layers") {
      value = MergeLayers(all);
    } else if (key != "config") {
      value = MergeValues(key, all);
    }
  }
  const auto flash = Number(merged, "flash_bytes_per_token");
  const auto busy_ms = Number(merged, "io_busy_ms");
  if (flash && busy_ms && *busy_ms > 0) {
    merged["flash_read_gbps"] = *flash / *busy_ms / 1e6;
  }
  return merged;
}

void AddDerivedKeys(Json& row) {
  const auto n_prompt = row["n_prompt"].get<uint32_t>();
  const auto n_gen = row["n_gen"].get<uint32_t>();
  const uint64_t num_tokens = uint64_t{n_prompt} + n_gen;
  row["test"] = TestName(n_prompt, n_gen);
  AddAliases(row);
  AddRates(num_tokens, row);
  if (const auto ms = Median(Numbers(row, "prompt_samples"))) {
    row["prompt_tps"] = n_prompt * 1000.0 / *ms;
  }
  if (const auto ms = Median(Numbers(row, "gen_samples"))) {
    row["gen_tps"] = n_gen * 1000.0 / *ms;
  }
  row["ttft_ms"] = OrNull(Median(Numbers(row, "ttft_samples")));
  AddTokenKeys(row);
  const auto joules = Number(row, "energy_j");
  const auto repetitions = Number(row, "n_repetitions");
  if (joules && repetitions) {
    row["energy_j_per_token"] =
        *joules / (*repetitions * static_cast<double>(num_tokens));
  }
}

}  // namespace flashelm::cli
