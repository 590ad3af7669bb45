#include "cli/bench_row.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "cli/energy.h"
#include "cli/engine_setup.h"
#include "cli/layer_reads.h"
#include "core/base/process_counters.h"
#include "core/base/process_memory.h"
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

constexpr ProcessCounters kNoCounts = {0, 0, 0, 0, 0};

void AddCounters(const ProcessCounters& after, const ProcessCounters& before,
                 ProcessCounters& sum) {
  AddDifference(after.device_read_bytes, before.device_read_bytes,
                sum.device_read_bytes);
  AddDifference(after.minor_faults, before.minor_faults, sum.minor_faults);
  AddDifference(after.major_faults, before.major_faults, sum.major_faults);
  AddDifference(after.cpu_ns, before.cpu_ns, sum.cpu_ns);
}

EngineNeeds NeedsOf(const BenchRowArgs& args, const ModelFile& model) {
  EngineNeeds needs;
  needs.caller_bytes =
      (uint64_t{args.n_prompt} + args.n_gen + 1) * sizeof(TokenId) +
      Sampler::NumBytes(model.config().vocab_size) +
      kBytesPerSample * args.repetitions * (uint64_t{args.n_gen} + 4);
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
        sampler_(SamplerOptions{}, engine.config().vocab_size),
        layers_(engine) {
    measurement_.n_prompt = args.n_prompt;
    measurement_.n_gen = args.n_gen;
    measurement_.counts_reads = engine.plan_options().io != IoBackend::kMmap;
    measurement_.token_ms.reserve(uint64_t{args.n_gen} * args.repetitions);
    for (std::vector<double>* samples :
         {&prompt_ms_, &ttft_ms_, &gen_ms_, &total_ns_}) {
      samples->reserve(args.repetitions);
    }
  }

  // As the first of a repetition's tokens.
  Status WarmUp() {
    if (args_.n_prompt > 0) FLASHELM_RETURN_IF_ERROR(RunPrompt());
    return args_.n_gen > 0 ? RunToken(0) : OkStatus();
  }

  Status RunOnce() {
    FLASHELM_RETURN_IF_ERROR(session_.Truncate(0));
    const SessionStats stats_before = session_.stats();
    const ProcessCounters before = ReadProcessCounters();
    const auto begin = Clock::now();
    energy_.Begin();
    double total_ms = 0;
    if (args_.n_prompt > 0) {
      const auto prompt_begin = Clock::now();
      FLASHELM_RETURN_IF_ERROR(RunPrompt());
      prompt_ms_.push_back(MillisecondsSince(prompt_begin));
      sampler_.Sample(session_.logits(0));
      ttft_ms_.push_back(MillisecondsSince(prompt_begin));
      total_ms += prompt_ms_.back();
    }
    if (args_.n_gen > 0) {
      FLASHELM_RETURN_IF_ERROR(Generate());
      total_ms += gen_ms_.back();
    }
    energy_.End();
    wall_ms_ += MillisecondsSince(begin);
    total_ns_.push_back(total_ms * 1e6);
    AddCounters(ReadProcessCounters(), before, counters_);
    num_reads_ +=
        session_.stats().store.num_reads - stats_before.store.num_reads;
    return OkStatus();
  }

  // Adds everything that was measured; looks at counters first, since writing
  // a record is work, too.
  void AddKeys(const Engine& engine, Json& json) {
    const ProcessCounters end = ReadProcessCounters();
    const auto memory = ReadProcessMemory();
    AddEngineKeys(engine, json);
    AddMeasurementKeys(measurement_, json);
    json["weight_bytes_per_token"] = engine.plan().weight_bytes;
    json["layers"] = layers_.ToJson(measurement_.decode.num_tokens);
    AddCounterKeys(end, json);
    if (memory) {
      json["rss_anon_bytes"] = OrNull(memory->anonymous_bytes);
      json["rss_file_bytes"] = OrNull(memory->file_bytes);
      json["swap_bytes"] = OrNull(memory->swapped_bytes);
    }
    json["energy_j"] = OrNull(energy_.joules());
    if (const char* source = energy_.source()) json["energy_source"] = source;
    json["samples_ns"] = Json::array();
    for (const double ns : total_ns_) {
      json["samples_ns"].push_back(static_cast<uint64_t>(ns));
    }
    json["prompt_samples"] = prompt_ms_;
    json["ttft_samples"] = ttft_ms_;
    json["gen_samples"] = gen_ms_;
    json["samples"] = measurement_.token_ms;
  }

 private:
  Status RunPrompt() {
    const uint32_t last = args_.n_prompt - 1;
    return session_.Run(std::span(tokens_).first(args_.n_prompt), {&last, 1},
                        cancel_);
  }

  // The i-th after the prompt.
  Status RunToken(uint32_t i) {
    constexpr uint32_t kOnly = 0;
    return session_.Run(std::span(tokens_).subspan(args_.n_prompt + i, 1),
                        {&kOnly, 1}, cancel_);
  }

  Status Generate() {
    const SessionStats stats_before = session_.stats();
    layers_.Begin();
    const ProcessCounters before = ReadProcessCounters();
    const auto begin = Clock::now();
    for (uint32_t i = 0; i < args_.n_gen; ++i) {
      const auto token_begin = Clock::now();
      FLASHELM_RETURN_IF_ERROR(RunToken(i));
      sampler_.Sample(session_.logits(0));
      measurement_.token_ms.push_back(MillisecondsSince(token_begin));
    }
    gen_ms_.push_back(MillisecondsSince(begin));
    AddCounters(ReadProcessCounters(), before, decode_counters_);
    layers_.End();
    AddStats(Difference(session_.stats(), stats_before), measurement_.decode);
    return OkStatus();
  }

  void AddCounterKeys(const ProcessCounters& end, Json& json) const {
    const auto add_per_token = [&](const char* key,
                                   const std::optional<uint64_t>& sum) {
      if (sum) json[key] = OrNull(measurement_.PerPass(*sum));
    };
    add_per_token("kernel_read_bytes_per_token",
                  decode_counters_.device_read_bytes);
    add_per_token("minor_faults_per_token", decode_counters_.minor_faults);
    add_per_token("major_faults_per_token", decode_counters_.major_faults);
    json["kernel_write_bytes"] = OrNull(end.device_write_bytes);
    json["bytes_read"] = OrNull(counters_.device_read_bytes);
    json["read_ops"] =
        measurement_.counts_reads ? Json(num_reads_) : Json(nullptr);
    json["minflt"] = OrNull(counters_.minor_faults);
    json["majflt"] = OrNull(counters_.major_faults);
    if (counters_.cpu_ns && wall_ms_ > 0) {
      json["cpu_util"] =
          static_cast<double>(*counters_.cpu_ns) / 1e6 / wall_ms_;
    }
  }

  const BenchRowArgs& args_;
  const CancelToken& cancel_;
  Session& session_;
  const std::vector<TokenId> tokens_;  // Of the prompt, and those after it.
  Sampler sampler_;
  Measurement measurement_;
  LayerReads layers_;
  // Of each repetition.
  std::vector<double> prompt_ms_;
  std::vector<double> ttft_ms_;
  std::vector<double> gen_ms_;
  std::vector<double> total_ns_;
  // Of all repetitions, and of what follows the prompt in them.
  ProcessCounters counters_ = kNoCounts;
  ProcessCounters decode_counters_ = kNoCounts;
  uint64_t num_reads_ = 0;
  double wall_ms_ = 0;
  EnergyMeter energy_;
};

// What the flags came to.
Json ConfigOf(const Engine& engine) {
  const PlanOptions& options = engine.plan_options();
  const SparsityOptions& sparsity = options.sparsity;
  const ResidencyPlan& residency = engine.plan().residency;
  Json config;
  config["selector"] = std::string(SelectorName(sparsity.selector));
  config["kept_fraction"] =
      sparsity.kept_fraction > 0 ? Json(sparsity.kept_fraction) : Json(nullptr);
  // Null: as long as there is room.
  config["window_tokens"] =
      sparsity.is_on() && sparsity.window_tokens != UINT32_MAX
          ? Json(sparsity.window_tokens)
          : Json(nullptr);
  config["pins_weights"] = options.pins_weights;
  config["merges_reads"] = sparsity.merges_reads;
  config["streamed_layers"] =
      sparsity.is_on()
          ? Json(std::ranges::count(engine.plan().streamed_layers, true))
          : Json(nullptr);
  config["n_io_threads"] = engine.plan().num_io_threads;
  config["ring_slots"] = residency.num_slots;
  config["slot_bytes"] = residency.slot_bytes;
  config["resident_bytes"] =
      residency.ResidentBytes(engine.model().weight_file().segments());
  config["caller_bytes"] = options.caller_bytes;
  return config;
}

}  // namespace

Status CheckRow(const BenchRowArgs& args) {
  FLASHELM_ASSIGN_OR_RETURN(const ModelFile model,
                            ModelFile::Open(args.engine.model));
  FLASHELM_ASSIGN_OR_RETURN(
      const EngineSetup setup,
      SetUpEngine(model, args.engine, NeedsOf(args, model)));
  const auto plan = MakePlan(model, setup.options.plan);
  return plan ? OkStatus() : plan.error();
}

Result<Json> MeasureRow(const BenchRowArgs& args,
                        const std::function<void(uint32_t)>& repetition_done,
                        const CancelToken& cancel) {
  FLASHELM_ASSIGN_OR_RETURN(ModelFile model,
                            ModelFile::Open(args.engine.model));
  EngineNeeds needs = NeedsOf(args, model);
  needs.measures = &cancel;
  const auto begin = Clock::now();
  FLASHELM_ASSIGN_OR_RETURN(EngineSetup setup,
                            SetUpEngine(model, args.engine, needs));
  FLASHELM_ASSIGN_OR_RETURN(
      const std::unique_ptr<Engine> engine,
      LoadEngine(std::move(model), std::move(setup.options), cancel));
  FLASHELM_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                            Session::Create(*engine));
  const double load_ms = MillisecondsSince(begin);
  RowMeasurer measurer(args, cancel, *engine, *session);
  if (args.warms_up) FLASHELM_RETURN_IF_ERROR(measurer.WarmUp());
  for (uint32_t i = 0; i < args.repetitions; ++i) {
    if (repetition_done) repetition_done(i);
    FLASHELM_RETURN_IF_ERROR(measurer.RunOnce());
  }
  Json json;
  measurer.AddKeys(*engine, json);
  json["n_repetitions"] = args.repetitions;
  json["load_ms"] = load_ms;
  if (setup.rate) {
    json["device_read_gbps"] =
        static_cast<double>(setup.rate->bytes_per_second) * 1e-9;
  }
  json["config"] = ConfigOf(*engine);
  return json;
}

}  // namespace flashelm::cli
