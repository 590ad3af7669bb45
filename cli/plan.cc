#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "cli/engine_setup.h"
#include "cli/record.h"
#include "cli/run_stats.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "core/base/format.h"
#include "core/compute_rate.h"
#include "core/forecast.h"
#include "core/sampler.h"
#include "core/simd.h"
#include "core/sparse_forecast.h"

namespace flashelm::cli {
namespace {

// What `run` holds for a prompt that fills the context, at the usual four bytes
// of text per token, so that the smallest budget named here is one for `run`.
EngineNeeds RunNeeds(const ModelFile& model, uint32_t context) {
  std::string text;
  while (text.size() < uint64_t{4} * context) text += "day ";
  EngineNeeds needs;
  needs.caller_bytes = kArgumentCopies * text.size() +
                       model.tokenizer().EncodeScratchBytes(text) +
                       uint64_t{context} * sizeof(TokenId) +
                       Sampler::NumBytes(model.config().vocab_size) +
                       RunStats::NumBytes(context);
  return needs;
}

struct Rates {
  std::optional<DeviceRate> read;  // Nothing: there is nothing to read.
  bool from_profile = false;
  ComputeRate compute;
};

// Of reading, a profile says it; the rest is measured.
Result<Rates> Measure(const ModelFile& model, const EngineSetup& setup,
                      const MemoryPlan& plan, const CancelToken& cancel) {
  const PlanOptions& options = setup.options.plan;
  Rates rates;
  if (setup.rate) {
    rates.from_profile = true;
    rates.read = setup.rate;
  } else if (plan.streamed_bytes_per_token > 0 || options.sparsity.is_on()) {
    FLASHELM_ASSIGN_OR_RETURN(const DeviceProfile profile,
                              MeasureModelFile(model, options.io, cancel));
    rates.read = FastestRate(profile, IoBackend::kAuto, UINT64_MAX);
  }
  ComputeRateOptions compute;
  compute.num_threads = options.num_threads;
  compute.batch = plan.batch;
  FLASHELM_ASSIGN_OR_RETURN(rates.compute, MeasureComputeRate(model, compute));
  return rates;
}

Forecast ForecastOf(const ModelFile& model, const MemoryPlan& plan,
                    const std::optional<SparseForecast>& sparse,
                    const Rates& rates) {
  ForecastInput input;
  input.weight_bytes = plan.weight_bytes;
  input.streamed_bytes = plan.streamed_bytes_per_token;
  const std::vector<Segment>& segments = model.weight_file().segments();
  input.head_bytes = segments[plan.residency.head].num_bytes();
  input.head_streamed_bytes =
      plan.streamed_bytes_per_token -
      plan.residency.StreamedBytes(segments, /*with_head=*/false);
  input.batch = plan.batch;
  if (sparse) {
    input.weight_bytes -= sparse->neuron_bytes - sparse->kept_bytes;
    input.more_read_ms = sparse->read_ms;
  }
  if (rates.read) {
    input.read_bytes_per_second =
        static_cast<double>(rates.read->bytes_per_second);
  }
  input.compute_bytes_per_second = rates.compute.bytes_per_second;
  input.batch_compute_bytes_per_second = rates.compute.batch_bytes_per_second;
  return MakeForecast(input);
}

Json ToJson(const ModelFile& model, const PlanOptions& options,
            const MemoryPlan& plan, const std::string& io, const Rates& rates,
            const std::optional<SparseForecast>& sparse,
            const Forecast& forecast) {
  Json json;
  AddModelKeys(model, json);
  AddPlanKeys(options, plan, json);
  json["minimum_budget_bytes"] = plan.minimum_bytes;
  json["parts"] = Json::array();
  for (const PlanLine& line : plan.lines) {
    json["parts"].push_back({{"name", line.name}, {"bytes", line.bytes}});
  }
  json["weight_bytes"] = plan.weight_bytes;
  json["pinned_bytes"] = plan.weight_bytes - plan.streamed_bytes_per_token;
  json["io_backend"] = rates.read ? IoName(rates.read->backend) : io;
  json["direct_io"] =
      options.io != IoBackend::kMmap && model.weight_file().file().direct_io();
  json["simd"] = std::string(SimdTargetName());
  json["read_bytes_per_second"] =
      rates.read ? Json(rates.read->bytes_per_second) : Json(nullptr);
  json["read_rate_source"] =
      rates.read ? Json(rates.from_profile ? "profile" : "measured")
                 : Json(nullptr);
  json["compute_bytes_per_second"] = rates.compute.bytes_per_second;
  json["batch_compute_bytes_per_second"] = rates.compute.batch_bytes_per_second;
  json["forecast"] = {{"read_ms", OrNull(forecast.read_ms)},
                      {"compute_ms", forecast.compute_ms},
                      {"token_ms", OrNull(forecast.token_ms)},
                      {"gen_tps", OrNull(forecast.gen_tps)},
                      {"sweep_read_ms", OrNull(forecast.sweep_read_ms)},
                      {"sweep_compute_ms", forecast.sweep_compute_ms},
                      {"sweep_ms", OrNull(forecast.sweep_ms)},
                      {"prompt_tps", OrNull(forecast.prompt_tps)}};
  if (options.sparsity.is_on()) {
    // Which bundles a prompt needs is not known.
    json["pinned_bytes"] = nullptr;
    for (const char* key :
         {"sweep_read_ms", "sweep_compute_ms", "sweep_ms", "prompt_tps"}) {
      json["forecast"][key] = nullptr;
    }
    if (!sparse) json["forecast"] = nullptr;
  }
  json["kept_fraction"] = sparse ? Json(sparse->kept_fraction) : Json(nullptr);
  json["cached_bundles"] =
      sparse ? Json(sparse->cached_bundles) : Json(nullptr);
  json["fresh_bytes_per_token"] =
      sparse ? Json(sparse->fresh_bytes) : Json(nullptr);
  json["streamed_layers"] =
      options.sparsity.is_on()
          ? Json(std::ranges::count(plan.streamed_layers, true))
          : Json(nullptr);
  if (options.io == IoBackend::kMmap) {
    // What the system will keep of the file is not known, nor refused.
    json["minimum_budget_bytes"] = nullptr;
    json["pinned_bytes"] = nullptr;
    json["forecast"] = nullptr;
  }
  return json;
}

void PrintParts(const ModelFile& model, const PlanOptions& options,
                const MemoryPlan& plan) {
  fmt::print("{}: {} weights, context {}, prompts in sweeps of {}, {}\n\n",
             model.path(), model.weights_name(), plan.context, plan.batch,
             options.num_threads == 1
                 ? "1 thread"
                 : fmt::format("{} threads", options.num_threads));
  const auto print = [](const std::string& name, uint64_t bytes) {
    fmt::print("  {:<28} {:>15} {:>12}\n", name, bytes, FormatBytes(bytes));
  };
  for (const PlanLine& line : plan.lines) print(line.name, line.bytes);
  fmt::print("  {}\n", std::string(57, '-'));
  print("planned", plan.total_bytes);
  if (options.budget_bytes != kUnlimitedBytes) {
    print("budget", options.budget_bytes);
  }
  if (options.io != IoBackend::kMmap) {
    print("smallest feasible budget", plan.minimum_bytes);
  }
  fmt::print("\n");
  print("weights of a token (M)", plan.weight_bytes);
  if (options.io == IoBackend::kMmap) return;
  if (options.sparsity.is_on()) {
    print("of them streamed", plan.streamed_bytes_per_token);
    if (!plan.cached_bundles.empty()) {
      fmt::print("  and bundles of neurons are read as tokens need them\n");
    }
    return;
  }
  print("of them in RAM (P)",
        plan.weight_bytes - plan.streamed_bytes_per_token);
  print("from flash per token (M - P)", plan.streamed_bytes_per_token);
}

void PrintSparseForecast(const MemoryPlan& plan,
                         const std::optional<SparseForecast>& sparse,
                         const Forecast& forecast) {
  if (!sparse) {
    fmt::print(
        "\nNo forecast: the file does not say how many neurons are kept. "
        "Calibrate it anew.\n");
    return;
  }
  fmt::print("\nAbout {:.1f} % of the neurons are computed for a token.\n",
             100 * sparse->kept_fraction);
  const auto num_streamed = std::ranges::count(plan.streamed_layers, true);
  if (num_streamed > 0) {
    fmt::print(
        "In {} of {} layers all of them are streamed or pinned, instead of "
        "single ones read.\n",
        num_streamed, plan.streamed_layers.size());
  }
  if (sparse->num_bundles > 0) {
    fmt::print(
        "Of {} bundles {} are cached, and {} are read. This takes neurons as\n"
        "independent and those that are used most as cached for good: real "
        "text mostly\nreads less.\n",
        sparse->num_bundles, sparse->cached_bundles,
        FormatBytes(sparse->fresh_bytes));
  }
  fmt::print(
      "About {:.2f} tokens/s then: {:.1f} ms for each, the larger of {:.1f} ms "
      "of reading\nand {:.1f} ms of computing.\n",
      *forecast.gen_tps, *forecast.token_ms, *forecast.read_ms,
      forecast.compute_ms);
}

void PrintForecast(const ModelFile& model, const EngineSetup& setup,
                   const MemoryPlan& plan, const Rates& rates,
                   const std::optional<SparseForecast>& sparse,
                   const Forecast& forecast) {
  fmt::print("\n");
  if (rates.read) {
    const bool is_direct = model.weight_file().file().direct_io();
    fmt::print("  flash (S)  {:7.2f} GB/s with {}, measured {}\n",
               static_cast<double>(rates.read->bytes_per_second) / 1e9,
               IoName(rates.read->backend),
               rates.from_profile ? "before, on " + setup.measured_path
               : is_direct        ? "now, on this file"
                                  : "now, on this file, caches included");
  }
  fmt::print("  RAM (D)    {:7.2f} GB/s of weights multiplied, measured now\n",
             rates.compute.bytes_per_second / 1e9);
  if (setup.options.plan.io == IoBackend::kMmap) {
    fmt::print(
        "\nNo forecast for mmap: the system decides what stays in RAM, and no "
        "budget is held.\n");
    return;
  }
  if (setup.options.plan.sparsity.is_on()) {
    PrintSparseForecast(plan, sparse, forecast);
    return;
  }
  fmt::print(
      "\nAt best {:.2f} tokens/s: {:.1f} ms for each, the larger of {:.1f} ms "
      "of reading,\n(M - P) / S, and {:.1f} ms of computing, M / D.\n",
      *forecast.gen_tps, *forecast.token_ms, *forecast.read_ms,
      forecast.compute_ms);
  fmt::print(
      "A prompt at best {:.1f} tokens/s: {:.1f} ms for a sweep of {} tokens, "
      "{:.1f} ms of\nreading, {:.1f} ms of computing.\n",
      *forecast.prompt_tps, *forecast.sweep_ms, plan.batch,
      *forecast.sweep_read_ms, forecast.sweep_compute_ms);
}

}  // namespace

Status RunPlan(const PlanArgs& args) {
  FLASHELM_RETURN_IF_ERROR(CheckIo(args.engine));
  const CancelToken& cancel = InterruptToken();
  FLASHELM_ASSIGN_OR_RETURN(const ModelFile model,
                            ModelFile::Open(args.engine.model));
  const uint32_t context = ContextOf(args.engine, model.config());
  EngineNeeds needs = RunNeeds(model, context);
  needs.measures = &cancel;
  FLASHELM_ASSIGN_OR_RETURN(const EngineSetup setup,
                            SetUpEngine(model, args.engine, needs));
  const PlanOptions& options = setup.options.plan;
  FLASHELM_ASSIGN_OR_RETURN(const MemoryPlan plan, MakePlan(model, options));
  // Measuring takes a moment; the plan itself is there at once.
  if (!args.json) {
    PrintParts(model, options, plan);
    std::fflush(stdout);
  }
  FLASHELM_ASSIGN_OR_RETURN(const Rates rates,
                            Measure(model, setup, plan, cancel));
  std::optional<SparseForecast> sparse;
  if (options.sparsity.is_on()) {
    ReadCost cost = options.read_cost;
    if (cost.sequential_bytes_per_ns == 0 && rates.read) {
      cost.sequential_bytes_per_ns =
          static_cast<double>(rates.read->bytes_per_second) * 1e-9;
    }
    FLASHELM_ASSIGN_OR_RETURN(
        sparse, ForecastSparse(model, options.sparsity, plan, cost));
  }
  const Forecast forecast = ForecastOf(model, plan, sparse, rates);
  if (args.json) {
    fmt::print("{}\n", Dump(ToJson(model, options, plan, args.engine.io, rates,
                                   sparse, forecast),
                            2));
  } else {
    PrintForecast(model, setup, plan, rates, sparse, forecast);
  }
  return OkStatus();
}

}  // namespace flashelm::cli
