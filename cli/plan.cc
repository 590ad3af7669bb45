#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/budget_table.h"
#include "cli/conversion.h"
#include "cli/engine_setup.h"
#include "cli/plan_forecast.h"
#include "cli/record.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "core/base/format.h"
#include "core/compute_rate.h"
#include "core/convert/planned_model.h"
#include "core/forecast.h"
#include "core/simd.h"
#include "core/sparse_forecast.h"

namespace flashelm::cli {
namespace {

// The model that is there, or that one is to be made of.
struct PlannedModel {
  ModelFile file;
  bool is_there = false;
};

Result<PlannedModel> OpenPlannedModel(const PlanArgs& args) {
  if (!args.shape.empty()) {
    FLASHELM_ASSIGN_OR_RETURN(
        ModelFile model,
        PlanModelFileOfShape(args.shape, OptionsOf(args.encodings)));
    return PlannedModel{std::move(model)};
  }
  const std::string& path = args.engine.model;
  if (path.empty()) {
    return InvalidArgument("no model: name one with -m, or with --shape");
  }
  if (IsCheckpointConfig(path)) {
    FLASHELM_ASSIGN_OR_RETURN(ModelFile model,
                              PlanModelFileAt(path, OptionsOf(args.encodings)));
    return PlannedModel{std::move(model)};
  }
  FLASHELM_ASSIGN_OR_RETURN(ModelFile model, ModelFile::Open(path));
  if (args.has_encodings) {
    return InvalidArgument(
        path, ": a model file of ", model.weights_name(),
        " weights; --weights, --embedding, --attention, --ffn, --layout and "
        "--tokenizer are for a checkpoint that is yet to be converted");
  }
  return PlannedModel{std::move(model), /*is_there=*/true};
}

// What cannot be forecast.
Status CheckForecast(const PlanArgs& args, const PlannedModel& model,
                     const PlanOptions& options) {
  if (options.sparsity.is_on() && !model.is_there) {
    return InvalidArgument(
        "--sparsity: which neurons a model needs is known once it was "
        "converted and calibrated; of ",
        model.file.path(), " a plan can be made with --sparsity off");
  }
  if (!args.storage.empty() &&
      (options.sparsity.is_on() || options.io == IoBackend::kMmap)) {
    return InvalidArgument(
        "--storage: a class of storage says how fast weights are streamed, "
        "and not how fast neurons are read one by one or pages by the system; "
        "it needs --sparsity off and no --io mmap");
  }
  return OkStatus();
}

// Of this device, as far as it is known or to be measured.
Result<std::optional<ReadRate>> RateOfDevice(const PlannedModel& model,
                                             const EngineSetup& setup,
                                             const std::vector<BudgetRow>& rows,
                                             StandInWeights& weights,
                                             const CancelToken& cancel) {
  const PlanOptions& options = setup.options.plan;
  if (setup.profile) {
    return RateOf(*setup.profile, options.io, ReadRate::Source::kProfile);
  }
  const bool is_read =
      options.sparsity.is_on() ||
      std::ranges::any_of(rows, [](const BudgetRow& row) {
        return row.plan && row.plan->streamed_bytes_per_token > 0;
      });
  if (!model.is_there || !is_read || options.io == IoBackend::kMmap) {
    return std::nullopt;
  }
  FLASHELM_ASSIGN_OR_RETURN(
      ReadRate rate, MeasureReading(model.file, *FirstFeasible(rows).plan,
                                    options, weights, cancel));
  return rate;
}

// The device, where it has a rate, and all classes, or the one asked for.
std::vector<StorageColumn> ColumnsOf(const PlanArgs& args, bool is_there,
                                     const PlanOptions& options,
                                     std::optional<ReadRate> device) {
  std::vector<StorageColumn> columns;
  if (args.storage.empty() && (is_there || device)) {
    columns.push_back({"device", "this device", device});
  }
  if (options.sparsity.is_on()) return columns;
  for (const StorageClass& storage : StorageClasses()) {
    if (!args.storage.empty() && args.storage != storage.name) continue;
    ReadRate rate;
    rate.bytes_per_second = storage.bytes_per_second;
    rate.source = ReadRate::Source::kStorageClass;
    columns.push_back({storage.name, storage.title, rate});
  }
  return columns;
}

const char* SourceName(ReadRate::Source source) {
  switch (source) {
    case ReadRate::Source::kMeasured:
      return "measured";
    case ReadRate::Source::kProfile:
      return "profile";
    case ReadRate::Source::kStorageClass:
      break;
  }
  return "storage class";
}

// What plan knows in the end.
struct Outcome {
  const PlannedModel& model;
  const EngineSetup& setup;
  const std::vector<BudgetRow>& rows;
  const BudgetRow& row;  // The one that is told about in full.
  std::vector<StorageColumn> columns;
  std::optional<ReadRate> read;  // What that row's forecast is for.
  Forecast forecast;
  std::optional<uint64_t> own_bytes;  // Of ExpectedPeakBytes().

  const PlanOptions& options() const { return setup.options.plan; }
  const MemoryPlan& plan() const { return *row.plan; }
  bool is_mapped() const { return options().io == IoBackend::kMmap; }
};

Json ToJson(const Outcome& outcome, const PlanArgs& args) {
  const ModelFile& model = outcome.model.file;
  const PlanOptions& options = outcome.options();
  const MemoryPlan& plan = outcome.plan();
  const Forecast& forecast = outcome.forecast;
  const std::optional<SparseForecast>& sparse = outcome.row.sparse;
  const std::optional<ReadRate>& read = outcome.read;
  const bool is_measured =
      read && read->source != ReadRate::Source::kStorageClass;
  Json json;
  AddModelKeys(model, json);
  json["is_converted"] = outcome.model.is_there;
  PlanOptions with_budget = options;
  with_budget.budget_bytes = outcome.row.bytes;
  AddPlanKeys(with_budget, plan, json);
  json["minimum_budget_bytes"] = plan.minimum_bytes;
  json["expected_peak_rss_bytes"] =
      OrNull(ExpectedPeakBytes(plan, outcome.own_bytes));
  json["parts"] = Json::array();
  for (const PlanLine& line : plan.lines) {
    json["parts"].push_back({{"name", line.name}, {"bytes", line.bytes}});
  }
  json["weight_bytes"] = plan.weight_bytes;
  json["pinned_bytes"] = plan.weight_bytes - plan.streamed_bytes_per_token;
  json["io_backend"] =
      is_measured ? std::string(IoName(read->backend)) : args.engine.io;
  json["direct_io"] =
      outcome.model.is_there
          ? Json(!outcome.is_mapped() && model.weight_file().file().direct_io())
          : Json(nullptr);
  json["simd"] = std::string(SimdTargetName());
  json["storage"] = args.storage.empty() ? Json(nullptr) : Json(args.storage);
  json["read_bytes_per_second"] =
      read ? Json(read->bytes_per_second) : Json(nullptr);
  json["read_rate_source"] =
      read ? Json(SourceName(read->source)) : Json(nullptr);
  json["compute_bytes_per_second"] = outcome.row.compute.bytes_per_second;
  json["batch_compute_bytes_per_second"] =
      outcome.row.compute.batch_bytes_per_second;
  const bool has_slowdown = read && read->source == ReadRate::Source::kMeasured;
  json["read_slowdown"] =
      has_slowdown ? Json(read->read_slowdown) : Json(nullptr);
  json["compute_slowdown"] =
      has_slowdown ? Json(read->compute_slowdown) : Json(nullptr);
  json["streaming_bytes_per_second"] =
      OrNull(outcome.row.compute.streaming_bytes_per_second);
  json["forecast"] = {{"read_ms", OrNull(forecast.read_ms)},
                      {"compute_ms", forecast.compute_ms},
                      {"token_ms", OrNull(forecast.token_ms)},
                      {"gen_tps", OrNull(forecast.gen_tps)},
                      {"sweep_read_ms", OrNull(forecast.sweep_read_ms)},
                      {"sweep_compute_ms", forecast.sweep_compute_ms},
                      {"sweep_ms", OrNull(forecast.sweep_ms)},
                      {"prompt_tps", OrNull(forecast.prompt_tps)}};
  json["forecasts"] = outcome.is_mapped()
                          ? Json(nullptr)
                          : BudgetsToJson(model, outcome.rows, outcome.columns,
                                          outcome.own_bytes);
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
  if (outcome.is_mapped()) {
    // What the system will keep of the file is not known, nor refused.
    json["minimum_budget_bytes"] = nullptr;
    json["pinned_bytes"] = nullptr;
    json["forecast"] = nullptr;
  }
  return json;
}

void PrintParts(const PlannedModel& planned, const PlanOptions& options,
                const BudgetRow& row, std::optional<uint64_t> own_bytes) {
  const ModelFile& model = planned.file;
  const MemoryPlan& plan = *row.plan;
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
  if (row.bytes != kUnlimitedBytes) print("budget", row.bytes);
  if (options.io != IoBackend::kMmap) {
    print("smallest feasible budget", plan.minimum_bytes);
  }
  if (const auto peak = ExpectedPeakBytes(plan, own_bytes)) {
    print("expected peak (VmHWM), about", *peak);
  }
  print(planned.is_there ? "model file" : "model file to be converted",
        model.file_bytes());
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
      "About {:.2f} tokens/s then: {:.1f} ms for each, of {:.1f} ms of "
      "reading\n"
      "and {:.1f} ms of computing, which go on at once.\n",
      *forecast.gen_tps, *forecast.token_ms, *forecast.read_ms,
      forecast.compute_ms);
}

void PrintRates(const Outcome& outcome) {
  fmt::print("\n");
  const std::optional<ReadRate>& read = outcome.read;
  if (read && read->source == ReadRate::Source::kStorageClass) {
    fmt::print("  flash (S)  {:7.2f} GB/s of {} storage\n",
               static_cast<double>(read->bytes_per_second) / 1e9,
               outcome.columns.front().title);
  } else if (read) {
    const bool is_profile = read->source == ReadRate::Source::kProfile;
    const bool is_direct =
        is_profile ? outcome.setup.profile->direct_io
                   : outcome.model.file.weight_file().file().direct_io();
    fmt::print("  flash (S)  {:7.2f} GB/s with {}, measured {}{}\n",
               static_cast<double>(read->bytes_per_second) / 1e9,
               IoName(read->backend),
               is_profile ? "before, on " + outcome.setup.measured_path
                          : "now, on this file",
               is_direct ? "" : ", caches included");
  }
  fmt::print(
      "  RAM (D)    {:7.2f} GB/s of weights computed with, measured now\n",
      outcome.row.compute.bytes_per_second / 1e9);
  if (read && read->source == ReadRate::Source::kMeasured) {
    fmt::print(
        "  at once    reading takes {:.2f} times as long, computing {:.2f} "
        "times\n",
        std::max(1.0, read->read_slowdown),
        std::max(1.0, read->compute_slowdown));
  }
  if (const auto rate = outcome.row.compute.streaming_bytes_per_second) {
    fmt::print("  together   {:7.2f} GB/s of weights, tried now\n",
               *rate / 1e9);
  }
}

void PrintForecast(const Outcome& outcome) {
  PrintRates(outcome);
  if (outcome.is_mapped()) {
    fmt::print(
        "\nNo forecast for mmap: the system decides what stays in RAM, and no "
        "budget is held.\n");
    return;
  }
  const Forecast& forecast = outcome.forecast;
  if (outcome.options().sparsity.is_on()) {
    PrintSparseForecast(outcome.plan(), outcome.row.sparse, forecast);
  } else if (forecast.gen_tps) {
    const char* about =
        outcome.read && outcome.read->source == ReadRate::Source::kMeasured
            ? "About"
            : "At best";
    fmt::print(
        "\n{} {:.2f} tokens/s: {:.1f} ms for each, of {:.1f} ms of reading, "
        "(M - P) / S,\nand {:.1f} ms of computing, M / D, which go on at "
        "once.\n",
        about, *forecast.gen_tps, *forecast.token_ms, *forecast.read_ms,
        forecast.compute_ms);
    fmt::print(
        "A prompt {:.1f} tokens/s: {:.1f} ms for a sweep of {} tokens, {:.1f} "
        "ms of\nreading, {:.1f} ms of computing.\n",
        *forecast.prompt_tps, *forecast.sweep_ms, outcome.plan().batch,
        *forecast.sweep_read_ms, forecast.sweep_compute_ms);
  }
  PrintBudgets(outcome.model.file, outcome.rows, outcome.columns);
  if (!outcome.model.is_there) {
    fmt::print(
        "\nThe figures of a class are bounds for this machine's processor. "
        "`flashelm doctor\n-o FILE` measures your storage, and "
        "--device-profile FILE forecasts for it.\n");
  }
}

}  // namespace

Status RunPlan(const PlanArgs& args) {
  FLASHELM_RETURN_IF_ERROR(CheckIo(args.engine));
  const CancelToken& cancel = InterruptToken();
  FLASHELM_ASSIGN_OR_RETURN(const PlannedModel model, OpenPlannedModel(args));
  const std::string budgets =
      args.has_budget ? args.engine.mem_budget : "auto,25%,50%,75%,100%";
  EngineArgs engine = args.engine;
  // The first of the list; which of them are feasible turns out later.
  engine.mem_budget = budgets.substr(0, budgets.find(','));
  const uint32_t context = ContextOf(engine, model.file.config());
  EngineNeeds needs = RunNeeds(model.file, context);
  if (model.is_there) needs.measures = &cancel;
  FLASHELM_ASSIGN_OR_RETURN(const EngineSetup setup,
                            SetUpEngine(model.file, engine, needs));
  const PlanOptions& options = setup.options.plan;
  FLASHELM_RETURN_IF_ERROR(CheckForecast(args, model, options));
  FLASHELM_ASSIGN_OR_RETURN(std::vector<BudgetRow> rows,
                            PlanBudgets(model.file, options, budgets));
  if (!args.has_budget && !rows.front().plan) {
    // What this machine has is too little, whatever others have.
    PlanOptions free = options;
    free.budget_bytes = rows.front().bytes;
    return MakePlan(model.file, free).error();
  }
  const BudgetRow& row = FirstFeasible(rows);
  const auto own_bytes = ResidentBytes();
  // Measuring takes a moment; the plan itself is there at once.
  if (!args.json) {
    PrintParts(model, options, row, own_bytes);
    std::fflush(stdout);
  }
  FLASHELM_ASSIGN_OR_RETURN(StandInWeights weights,
                            StandInWeights::Create(model.file));
  std::optional<ReadRate> device;
  if (args.storage.empty()) {
    FLASHELM_ASSIGN_OR_RETURN(
        device, RateOfDevice(model, setup, rows, weights, cancel));
  }
  if (options.sparsity.is_on()) {
    ReadCost cost = options.read_cost;
    if (cost.sequential_bytes_per_ns == 0 && device) {
      cost.sequential_bytes_per_ns =
          static_cast<double>(device->bytes_per_second) * 1e-9;
    }
    for (BudgetRow& each : rows) {
      if (!each.plan) continue;
      FLASHELM_ASSIGN_OR_RETURN(
          each.sparse,
          ForecastSparse(model.file, options.sparsity, *each.plan, cost));
    }
  }
  for (BudgetRow& each : rows) {
    if (!each.plan) continue;
    if (cancel.IsCancelled()) return Cancelled("measuring stopped");
    FLASHELM_ASSIGN_OR_RETURN(
        each.compute,
        MeasureComputing(model.file, *each.plan, options, weights));
    if (!device || device->source != ReadRate::Source::kMeasured ||
        options.sparsity.is_on() || each.plan->streamed_bytes_per_token == 0) {
      continue;
    }
    FLASHELM_ASSIGN_OR_RETURN(
        each.compute.streaming_bytes_per_second,
        MeasureStreaming(model.file, *each.plan, options, weights));
  }
  Outcome outcome{model, setup, rows, row, {}, {}, {}, own_bytes};
  outcome.columns = ColumnsOf(args, model.is_there, options, device);
  outcome.read = args.storage.empty() ? device : outcome.columns.front().read;
  if (outcome.read)
    outcome.read = RateWithin(*outcome.read, model.file, *row.plan);
  outcome.forecast =
      ForecastOf(model.file, *row.plan, row.sparse, outcome.read, row.compute);
  if (args.json) {
    fmt::print("{}\n", Dump(ToJson(outcome, args), 2));
  } else {
    PrintForecast(outcome);
  }
  return OkStatus();
}

}  // namespace flashelm::cli
