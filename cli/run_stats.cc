#include "cli/run_stats.h"

#include "cli/record.h"
#include "core/base/format.h"
#include "core/memory_plan.h"

namespace flashelm::cli {
namespace {

double Milliseconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

}  // namespace

RunStats::RunStats(const Engine& engine, const Session& session,
                   uint64_t n_prompt, uint64_t max_tokens)
    : engine_(engine),
      session_(session),
      begin_(Clock::now()),
      last_(begin_),
      num_tokens_before_(session.stats().num_tokens) {
  measurement_.n_prompt = n_prompt;
  measurement_.token_ms.reserve(max_tokens);
  measurement_.counts_reads = engine.plan_options().io != IoBackend::kMmap;
}

void RunStats::PromptDone() {
  last_ = Clock::now();
  const double prompt_ms = Milliseconds(last_ - begin_);
  after_prompt_ = session_.stats();
  // Those that were computed: others were there already.
  const uint64_t num_tokens = after_prompt_.num_tokens - num_tokens_before_;
  if (prompt_ms > 0) {
    measurement_.prompt_tps =
        static_cast<double>(num_tokens) * 1000 / prompt_ms;
  }
}

void RunStats::TokenShown() {
  const auto now = Clock::now();
  std::vector<double>& token_ms = measurement_.token_ms;
  if (!measurement_.ttft_ms) {
    measurement_.ttft_ms = Milliseconds(now - begin_);
    first_ = now;
  } else if (token_ms.size() < token_ms.capacity()) {
    token_ms.push_back(Milliseconds(now - last_));
  }
  ++measurement_.n_gen;
  last_ = now;
}

void RunStats::Finish() {
  measurement_.decode = Difference(session_.stats(), after_prompt_);
  measurement_.gen_tps = TokensPerSecond();
}

std::optional<double> RunStats::TokensPerSecond() const {
  if (measurement_.n_gen < 2) return std::nullopt;
  return static_cast<double>(measurement_.n_gen - 1) * 1000 /
         Milliseconds(last_ - first_);
}

std::string RunStats::Progress() const {
  const uint64_t budget = engine_.plan_options().budget_bytes;
  const SessionStats decode = Difference(session_.stats(), after_prompt_);
  const auto share = [](uint64_t part, uint64_t whole) {
    return 100 * static_cast<double>(part) / static_cast<double>(whole);
  };
  std::string line;
  if (const auto rate = TokensPerSecond()) {
    line = fmt::format("{:.2f} tok/s | ", *rate);
  }
  const auto peak = PeakBytes();
  line += fmt::format(
      "RAM {} of {}", peak ? FormatBytes(*peak) : "unknown",
      budget == kUnlimitedBytes ? "unlimited" : FormatBytes(budget));
  if (decode.num_sweeps > 0 && measurement_.counts_reads) {
    line +=
        fmt::format(" | flash {}/token",
                    FormatBytes(decode.store.stream_bytes / decode.num_sweeps));
  }
  if (decode.bundles.num_wanted > 0) {
    line += fmt::format(" | cache {:.0f} %", share(decode.bundles.num_hits,
                                                   decode.bundles.num_wanted));
  }
  if (decode.total_ns > 0 && measurement_.counts_reads) {
    const double waiting = share(decode.store.io_wait_ns, decode.total_ns);
    line += fmt::format(" | computing {:.0f} %, waiting {:.0f} %",
                        100 - waiting, waiting);
  }
  return line;
}

std::string RunStats::Summary() const {
  const uint64_t budget = engine_.plan_options().budget_bytes;
  const auto flash = measurement_.FlashBytesPerToken();
  const auto rate = measurement_.gen_tps;
  const auto peak = PeakBytes();
  std::string line =
      fmt::format("RAM peak {} of {} budget{} (model {})",
                  peak ? FormatBytes(*peak) : "unknown",
                  budget == kUnlimitedBytes ? "unlimited" : FormatBytes(budget),
                  engine_.budget_enforced() ? "" : ", not enforced",
                  FormatBytes(engine_.model().file_bytes()));
  if (flash && rate) {
    line += fmt::format(", flash {} per token",
                        FormatBytes(static_cast<uint64_t>(*flash)));
  }
  const SessionStats& decode = measurement_.decode;
  if (decode.sparsity.num_neurons > 0) {
    line += fmt::format(", {:.1f} % of the neurons",
                        100 * static_cast<double>(decode.sparsity.num_kept) /
                            static_cast<double>(decode.sparsity.num_neurons));
  }
  if (decode.bundles.num_wanted > 0) {
    line += fmt::format(", {:.0f} % of those from RAM",
                        100 * static_cast<double>(decode.bundles.num_hits) /
                            static_cast<double>(decode.bundles.num_wanted));
  }
  if (rate) {
    line += fmt::format(", {:.2f} tokens/s ({:.1f} ms)", *rate, 1000 / *rate);
  }
  return line;
}

namespace {

// What reading the neurons of each layer came to, the prompt included; null
// without sparsity. A layer without bundles has its up rows and down columns.
// Of layers that are streamed nothing is known.
Json LayersOf(const Engine& engine) {
  if (!engine.plan_options().sparsity.is_on()) return nullptr;
  Json streamed = Json::array();
  Json hit_rate = Json::array();
  Json fresh_bytes = Json::array();
  uint32_t num_apart = 0;
  for (uint32_t i = 0; i < engine.config().num_layers(); ++i) {
    const bool is_streamed = engine.plan().streams_neurons(i);
    streamed.push_back(is_streamed);
    for (uint32_t part = 0; part < (engine.model().has_rows() ? 2u : 1u);
         ++part) {
      if (is_streamed) {
        hit_rate.push_back(nullptr);
        fresh_bytes.push_back(nullptr);
        continue;
      }
      const BundleStats stats = engine.bundles()->layer_stats(num_apart++);
      hit_rate.push_back(stats.num_wanted == 0
                             ? Json(nullptr)
                             : Json(static_cast<double>(stats.num_hits) /
                                    static_cast<double>(stats.num_wanted)));
      fresh_bytes.push_back(stats.fresh_bytes);
    }
  }
  return {{"streamed", streamed},
          {"cache_hit_rate", hit_rate},
          {"fresh_bytes", fresh_bytes}};
}

}  // namespace

std::string RunStats::ToJson(std::optional<uint64_t> seed,
                             const std::string& stop_reason,
                             std::optional<uint64_t> reused) const {
  Json json;
  AddEngineKeys(engine_, json);
  AddMeasurementKeys(measurement_, json);
  json["layers"] = LayersOf(engine_);
  json["n_prompt_reused"] = OrNull(reused);
  json["seed"] = OrNull(seed);
  json["stop_reason"] = stop_reason;
  return Dump(json, 2) + "\n";
}

}  // namespace flashelm::cli
