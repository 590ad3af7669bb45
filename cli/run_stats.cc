#include "cli/run_stats.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/base/format.h"
#include "core/base/process_memory.h"
#include "core/memory_plan.h"
#include "core/simd.h"

namespace flashelm::cli {
namespace {

using Json = nlohmann::ordered_json;

double Milliseconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

// The value below which `part` of the values lie; null when there are none.
Json Percentile(std::vector<double> values, double part) {
  if (values.empty()) return nullptr;
  const size_t rank =
      std::min(values.size() - 1,
               static_cast<size_t>(part * static_cast<double>(values.size())));
  std::nth_element(values.begin(), values.begin() + rank, values.end());
  return values[rank];
}

template <class T>
Json OrNull(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

}  // namespace

RunStats::RunStats(const Engine& engine, const Session& session,
                   uint64_t n_prompt, uint64_t max_tokens)
    : engine_(engine),
      session_(session),
      n_prompt_(n_prompt),
      begin_(Clock::now()),
      last_(begin_) {
  token_ms_.reserve(max_tokens);
}

void RunStats::PromptDone() {
  last_ = Clock::now();
  prompt_ms_ = Milliseconds(last_ - begin_);
  after_prompt_ = session_.stats();
}

void RunStats::TokenShown() {
  const auto now = Clock::now();
  if (first_token_ms_) {
    token_ms_.push_back(Milliseconds(now - last_));
  } else {
    first_token_ms_ = Milliseconds(now - begin_);
  }
  last_ = now;
}

std::optional<double> RunStats::GenTokensPerSecond() const {
  if (token_ms_.empty()) return std::nullopt;
  const double total = std::accumulate(token_ms_.begin(), token_ms_.end(), 0.0);
  return static_cast<double>(token_ms_.size()) * 1000 / total;
}

std::optional<double> RunStats::PerPass(uint64_t total, uint64_t before) const {
  const uint64_t passes =
      session_.stats().num_tokens - after_prompt_.num_tokens;
  if (passes == 0) return std::nullopt;
  return static_cast<double>(total - before) / static_cast<double>(passes);
}

std::optional<uint64_t> RunStats::PeakBytes() const {
  const auto memory = ReadProcessMemory();
  if (!memory) return std::nullopt;
  return memory->peak_resident_bytes;
}

std::string RunStats::Summary() const {
  const uint64_t budget = engine_.plan_options().budget_bytes;
  const auto flash = PerPass(session_.stats().store.stream_bytes,
                             after_prompt_.store.stream_bytes);
  const auto rate = GenTokensPerSecond();
  const auto peak = PeakBytes();
  std::string line =
      fmt::format("RAM peak {} of {} budget (model {})",
                  peak ? FormatBytes(*peak) : "unknown",
                  budget == kUnlimitedBytes ? "unlimited" : FormatBytes(budget),
                  FormatBytes(engine_.model().file_bytes()));
  if (flash && rate) {
    line += fmt::format(", flash {} per token, {:.2f} tokens/s ({:.1f} ms)",
                        FormatBytes(static_cast<uint64_t>(*flash)), *rate,
                        1000 / *rate);
  }
  return line;
}

std::string RunStats::ToJson(std::optional<uint64_t> seed,
                             const std::string& stop_reason) const {
  const MemoryPlan& plan = engine_.plan();
  const PlanOptions& options = engine_.plan_options();
  const SessionStats& now = session_.stats();
  constexpr double kMillion = 1e6;  // Nanoseconds per millisecond.
  const auto io_busy =
      PerPass(now.store.io_busy_ns, after_prompt_.store.io_busy_ns);
  const auto io_wait =
      PerPass(now.store.io_wait_ns, after_prompt_.store.io_wait_ns);
  const auto total = PerPass(now.total_ns, after_prompt_.total_ns);
  const auto flash =
      PerPass(now.store.stream_bytes, after_prompt_.store.stream_bytes);

  Json json;
  json["model_path"] = engine_.model().path();
  json["model_size_bytes"] = engine_.model().file_bytes();
  json["n_params"] = engine_.config().num_params();
  json["weights"] = engine_.model().weights_name();
  json["n_threads"] = options.num_threads;
  json["mem_budget_bytes"] = options.budget_bytes == kUnlimitedBytes
                                 ? Json(nullptr)
                                 : Json(options.budget_bytes);
  json["planned_bytes"] = plan.total_bytes;
  json["peak_rss_bytes"] = OrNull(PeakBytes());
  json["io_backend"] = std::string(engine_.io_backend());
  json["direct_io"] = engine_.model().weight_file().file().direct_io();
  json["n_ctx"] = plan.context;
  json["n_batch"] = plan.batch;
  json["kv_type"] = options.kv_type == KvType::kF32 ? "f32" : "bf16";
  json["n_prompt"] = n_prompt_;
  json["n_gen"] = first_token_ms_ ? token_ms_.size() + 1 : 0;
  json["prompt_tps"] =
      prompt_ms_ > 0 ? Json(static_cast<double>(n_prompt_) * 1000 / prompt_ms_)
                     : Json(nullptr);
  json["gen_tps"] = OrNull(GenTokensPerSecond());
  json["ttft_ms"] = OrNull(first_token_ms_);
  json["itl_p50_ms"] = Percentile(token_ms_, 0.50);
  json["itl_p95_ms"] = Percentile(token_ms_, 0.95);
  json["flash_bytes_per_token"] = OrNull(flash);
  json["flash_bytes_bound_per_token"] = plan.streamed_bytes_per_token;
  // Bytes per nanosecond are GB per second.
  json["flash_read_gbps"] = flash && io_busy && *io_busy > 0
                                ? Json(*flash / *io_busy)
                                : Json(nullptr);
  json["io_busy_ms"] = io_busy ? Json(*io_busy / kMillion) : Json(nullptr);
  json["io_wait_ms"] = io_wait ? Json(*io_wait / kMillion) : Json(nullptr);
  json["compute_ms"] =
      total && io_wait ? Json((*total - *io_wait) / kMillion) : Json(nullptr);
  json["cache_hit_rate"] = nullptr;
  json["simd"] = std::string(SimdTargetName());
  json["seed"] = OrNull(seed);
  json["stop_reason"] = stop_reason;
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace flashelm::cli
