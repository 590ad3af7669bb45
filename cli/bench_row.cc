#include "cli/bench_row.h"

#include <chrono>
#include <numeric>
#include <random>
#include <utility>

#include "cli/engine_setup.h"
#include "core/base/process_counters.h"
#include "core/sampler.h"

namespace flashelm::cli {
namespace {

using Clock = std::chrono::steady_clock;

// A sample in its vector, in a JSON tree, and in its text.
constexpr uint64_t kBytesPerSample = 64;

double MillisecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin)
      .count();
}

// BOS, then the same tokens every time. What they say does not matter: exact
// computation takes as long for any. What a model goes on with by itself would
// matter where neurons are cached, since it soon repeats itself.
std::vector<TokenId> MakeTokens(const ModelConfig& config, uint32_t count) {
  std::mt19937 random(1);
  std::vector<TokenId> tokens(count, config.bos_id);
  for (size_t i = 1; i < tokens.size(); ++i) {
    tokens[i] = static_cast<TokenId>(random() % config.vocab_size);
  }
  return tokens;
}

// A sum of differences that is nothing once one of them is.
void AddDifference(const std::optional<uint64_t>& after,
                   const std::optional<uint64_t>& before,
                   std::optional<uint64_t>& sum) {
  if (sum && after && before) {
    *sum += *after - *before;
  } else {
    sum.reset();
  }
}

EngineNeeds NeedsOf(const BenchRowArgs& args, const ModelFile& model) {
  EngineNeeds needs;
  needs.caller_bytes =
      (uint64_t{args.n_prompt} + args.n_gen + 1) * sizeof(TokenId) +
      Sampler::NumBytes(model.config().vocab_size) +
      kBytesPerSample * args.repetitions * (uint64_t{args.n_gen} + 3);
  return needs;
}

class RowMeasurer {
 public:
  RowMeasurer(const BenchRowArgs& args, const CancelToken& cancel,
              const Engine& engine, Session& session)
      : args_(args),
        cancel_(cancel),
        session_(session),
        tokens_(MakeTokens(engine.config(), args.n_prompt + args.n_gen + 1)),
        sampler_(SamplerOptions{}, engine.config().vocab_size) {
    measurement_.n_prompt = args.n_prompt;
    measurement_.n_gen = args.n_gen;
    measurement_.counts_reads = engine.plan_options().io != IoBackend::kMmap;
    measurement_.token_ms.reserve(uint64_t{args.n_gen} * args.repetitions);
    prompt_ms_.reserve(args.repetitions);
    ttft_ms_.reserve(args.repetitions);
    gen_tps_.reserve(args.repetitions);
  }

  Status RunOnce() {
    FLASHELM_RETURN_IF_ERROR(session_.Truncate(0));
    const std::span<const TokenId> tokens = tokens_;
    if (args_.n_prompt > 0) {
      const auto begin = Clock::now();
      const uint32_t last = args_.n_prompt - 1;
      FLASHELM_RETURN_IF_ERROR(
          session_.Run(tokens.first(args_.n_prompt), {&last, 1}, cancel_));
      prompt_ms_.push_back(MillisecondsSince(begin));
      sampler_.Sample(session_.logits(0));
      ttft_ms_.push_back(MillisecondsSince(begin));
    }
    if (args_.n_gen == 0) return OkStatus();
    const SessionStats stats_before = session_.stats();
    const ProcessCounters before = ReadProcessCounters();
    const auto begin = Clock::now();
    for (uint32_t i = 0; i < args_.n_gen; ++i) {
      const auto token_begin = Clock::now();
      constexpr uint32_t kOnly = 0;
      FLASHELM_RETURN_IF_ERROR(session_.Run(
          tokens.subspan(args_.n_prompt + i, 1), {&kOnly, 1}, cancel_));
      sampler_.Sample(session_.logits(0));
      measurement_.token_ms.push_back(MillisecondsSince(token_begin));
    }
    gen_tps_.push_back(args_.n_gen * 1000.0 / MillisecondsSince(begin));
    const ProcessCounters after = ReadProcessCounters();
    AddDifference(after.device_read_bytes, before.device_read_bytes,
                  decode_counters_.device_read_bytes);
    AddDifference(after.minor_faults, before.minor_faults,
                  decode_counters_.minor_faults);
    AddDifference(after.major_faults, before.major_faults,
                  decode_counters_.major_faults);
    AddStats(Difference(session_.stats(), stats_before), measurement_.decode);
    return OkStatus();
  }

  // Adds everything that was measured; looks at counters first, since writing
  // a record is work, too.
  void AddKeys(const Engine& engine, Json& json) {
    const ProcessCounters end = ReadProcessCounters();
    AddEngineKeys(engine, json);
    if (const auto prompt_ms = Median(prompt_ms_)) {
      measurement_.prompt_tps = args_.n_prompt * 1000.0 / *prompt_ms;
    }
    measurement_.ttft_ms = Median(ttft_ms_);
    measurement_.gen_tps = Median(gen_tps_);
    AddMeasurementKeys(measurement_, json);
    const auto flash = measurement_.FlashBytesPerToken();
    const uint64_t bound = engine.plan().streamed_bytes_per_token;
    if (flash && bound > 0 && !engine.plan_options().sparsity.is_on()) {
      json["flash_bytes_over_bound"] = *flash / static_cast<double>(bound);
    }
    const auto add_per_token = [&](const char* key,
                                   const std::optional<uint64_t>& sum) {
      if (sum) json[key] = OrNull(measurement_.PerPass(*sum));
    };
    add_per_token("kernel_read_bytes_per_token",
                  decode_counters_.device_read_bytes);
    add_per_token("minor_faults_per_token", decode_counters_.minor_faults);
    add_per_token("major_faults_per_token", decode_counters_.major_faults);
    json["kernel_write_bytes"] = OrNull(end.device_write_bytes);
    json["samples"] = measurement_.token_ms;
    json["prompt_samples"] = prompt_ms_;
  }

 private:
  const BenchRowArgs& args_;
  const CancelToken& cancel_;
  Session& session_;
  const std::vector<TokenId> tokens_;  // Of the prompt, and those after it.
  Sampler sampler_;
  Measurement measurement_;
  std::vector<double> prompt_ms_;
  std::vector<double> ttft_ms_;
  std::vector<double> gen_tps_;
  ProcessCounters decode_counters_ = {0, 0, 0, 0};
};

}  // namespace

Json EmptyRow() {
  Json json;
  for (const char* key : {"model_path",
                          "model_size_bytes",
                          "n_params",
                          "weights",
                          "n_threads",
                          "mem_budget_bytes",
                          "budget_enforced",
                          "planned_bytes",
                          "peak_rss_bytes",
                          "io_backend",
                          "direct_io",
                          "n_ctx",
                          "n_batch",
                          "kv_type",
                          "n_prompt",
                          "n_gen",
                          "n_repetitions",
                          "prompt_tps",
                          "gen_tps",
                          "ttft_ms",
                          "itl_p50_ms",
                          "itl_p95_ms",
                          "load_ms",
                          "flash_bytes_per_token",
                          "flash_bytes_bound_per_token",
                          "flash_bytes_over_bound",
                          "kernel_read_bytes_per_token",
                          "kernel_write_bytes",
                          "minor_faults_per_token",
                          "major_faults_per_token",
                          "flash_read_gbps",
                          "io_busy_ms",
                          "io_wait_ms",
                          "compute_ms",
                          "memory_ms",
                          "ms_per_token",
                          "reads_per_token",
                          "cache_hit_rate",
                          "kept_fraction",
                          "max_skipped",
                          "recall",
                          "precision",
                          "overlap",
                          "fresh_bytes_per_token",
                          "bundle_misses_per_token",
                          "bundle_reads_per_token",
                          "dense_fetches",
                          "simd",
                          "samples",
                          "prompt_samples"}) {
    json[key] = nullptr;
  }
  return json;
}

Status CheckRow(const BenchRowArgs& args) {
  FLASHELM_ASSIGN_OR_RETURN(const ModelFile model,
                            ModelFile::Open(args.engine.model));
  FLASHELM_ASSIGN_OR_RETURN(
      const EngineSetup setup,
      SetUpEngine(model, args.engine, NeedsOf(args, model)));
  const auto plan = MakePlan(model, setup.options.plan);
  return plan ? OkStatus() : plan.error();
}

Result<Json> MeasureRow(const BenchRowArgs& args, const CancelToken& cancel) {
  FLASHELM_ASSIGN_OR_RETURN(ModelFile model,
                            ModelFile::Open(args.engine.model));
  const EngineNeeds needs = NeedsOf(args, model);
  const auto begin = Clock::now();
  FLASHELM_ASSIGN_OR_RETURN(
      const std::unique_ptr<Engine> engine,
      LoadEngine(std::move(model), args.engine, needs, cancel));
  FLASHELM_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                            Session::Create(*engine));
  const double load_ms = MillisecondsSince(begin);
  RowMeasurer measurer(args, cancel, *engine, *session);
  for (uint32_t i = 0; i < args.repetitions; ++i) {
    FLASHELM_RETURN_IF_ERROR(measurer.RunOnce());
  }
  Json json = EmptyRow();
  measurer.AddKeys(*engine, json);
  json["n_repetitions"] = args.repetitions;
  json["load_ms"] = load_ms;
  return json;
}

}  // namespace flashelm::cli
