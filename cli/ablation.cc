// flashelm bench --ablation: what each part of sparse decoding brings, row by
// row, as the ablation of "LLM in a flash" has it.

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "cli/bench_matrix.h"
#include "cli/bench_rows.h"
#include "cli/engine_setup.h"
#include "cli/markdown_table.h"
#include "cli/verbs.h"
#include "core/base/format.h"
#include "core/calibration.h"

namespace flashelm::cli {
namespace {

// Which file a row runs.
enum class RowFile { kOrdered, kRows, kFileOrder };

struct AblationRow {
  const char* name;
  RowFile file;
  bool is_sparse;
  bool pins_weights;
  bool has_window;
  bool merges_reads;
};

constexpr AblationRow kRows[] = {
    {"naive", RowFile::kOrdered, false, false, false, true},
    {"half pinned", RowFile::kOrdered, false, true, false, true},
    {"+ predictor", RowFile::kRows, true, true, false, false},
    {"+ window", RowFile::kRows, true, true, true, false},
    {"+ bundling", RowFile::kFileOrder, true, true, true, false},
    {"+ order and merging", RowFile::kOrdered, true, true, true, true}};

const std::string& PathOf(RowFile file, const std::string& main,
                          const BenchArgs& args) {
  switch (file) {
    case RowFile::kRows:
      return args.rows_model;
    case RowFile::kFileOrder:
      return args.file_order_model;
    case RowFile::kOrdered:
      break;
  }
  return main;
}

// The order of neurons that a calibration names.
std::string OrderOf(const ModelFile& model) {
  const Json& provenance = model.weight_file().provenance();
  const auto calibration = provenance.find("calibration");
  if (calibration == provenance.end() || !calibration->is_object() ||
      !calibration->contains("order") || !(*calibration)["order"].is_string()) {
    return "unknown";
  }
  return (*calibration)["order"].get<std::string>();
}

// What tells the sources of models apart: names and hashes; null where the file
// does not say.
Json SourcesOf(const ModelFile& model) {
  const Json& provenance = model.weight_file().provenance();
  const auto files = provenance.find("files");
  return files == provenance.end() ? Json() : *files;
}

// The flags with which convert makes such a file.
std::string EncodingFlags(const ModelFile& model) {
  const ModelWeights& weights = model.weights();
  const Encoding ffn = weights.layers[0].up.encoding;
  const Encoding attention = weights.layers[0].qkv.encoding;
  const Encoding embedding = weights.embedding.encoding;
  std::string flags = StatusMessage::Join("--weights ", EncodingName(ffn));
  if (attention != ffn) {
    flags += StatusMessage::Join(" --attention ", EncodingName(attention));
  }
  if (embedding != (ffn == Encoding::kQ4 ? Encoding::kQ8 : ffn)) {
    flags += StatusMessage::Join(" --embedding ", EncodingName(embedding));
  }
  return flags;
}

// kInvalidArgument: not a file of the layout and the order that rows of `file`
// run, or of another model than `main`.
Status CheckModel(RowFile file, const ModelFile& model, const ModelFile& main) {
  const bool wants_rows = file == RowFile::kRows;
  if (model.has_rows() != wants_rows) {
    return InvalidArgument(model.path(), ": has ",
                           wants_rows ? "bundles" : "no bundles",
                           ", expected a file of convert --layout ",
                           wants_rows ? "rows" : "bundles");
  }
  const std::string order = OrderOf(model);
  if (!wants_rows && (order == "file") != (file == RowFile::kFileOrder)) {
    return InvalidArgument(
        model.path(), ": calibrated with --order ", order, ", expected ",
        file == RowFile::kFileOrder ? "file" : "another than file");
  }
  if (model.weight_file().config() != main.weight_file().config() ||
      model.weights_name() != main.weights_name()) {
    return InvalidArgument(model.path(), ": another model, or other weights, ",
                           "than ", main.path(), " with ", main.weights_name());
  }
  if (SourcesOf(model) != SourcesOf(main)) {
    return InvalidArgument(model.path(), ": made from other files than ",
                           main.path(),
                           ", as \"files\" of their provenance "
                           "say; expected the same checkpoint");
  }
  return OkStatus();
}

// Says which rows are missing, and what makes the file that they need.
void PrintMissing(const BenchArgs& args, const EngineArgs& engine,
                  const ModelFile& main, const SparsityOptions& sparsity) {
  const std::string flags = EncodingFlags(main);
  if (args.rows_model.empty() && sparsity.needs_predictor()) {
    std::fprintf(stderr,
                 "flashelm: \"+ predictor\" and \"+ window\" are left out: a "
                 "file without bundles has no predictor, as --sparsity %s "
                 "needs one; --sparsity gate runs them\n",
                 engine.sparsity.c_str());
  } else if (args.rows_model.empty()) {
    std::fprintf(stderr,
                 "flashelm: no --rows-model, so \"+ predictor\" and "
                 "\"+ window\" are left out; these make it:\n"
                 "  flashelm convert SRC %s --layout rows -o ROWS.felm\n"
                 "  flashelm calibrate -m ROWS.felm -f TEXT --order file "
                 "-o ROWS_CALIBRATED.felm\n",
                 flags.c_str());
  }
  if (args.file_order_model.empty()) {
    std::string selector;
    if (sparsity.needs_predictor()) {
      selector = StatusMessage::Join("--selector ",
                                     SelectorName(sparsity.selector), " ");
    }
    std::fprintf(stderr,
                 "flashelm: no --file-order-model, so \"+ bundling\" is left "
                 "out; these make it:\n"
                 "  flashelm convert SRC %s -o MODEL.felm\n"
                 "  flashelm calibrate -m MODEL.felm -f TEXT --order file "
                 "%s-o FILE_ORDER.felm\n",
                 flags.c_str(), selector.c_str());
  }
}

// The one test and the one combination of parameters that an ablation takes.
struct AblationSetup {
  EngineArgs engine;
  BenchTest test;
};

Result<AblationSetup> CheckArgs(const BenchArgs& args) {
  FLASHELM_ASSIGN_OR_RETURN(const std::vector<EngineArgs> engines,
                            CrossEngines(args));
  if (engines.size() != 1) {
    return InvalidArgument(
        "--ablation: takes one model, one budget, one reader and one value of "
        "every other list, found ",
        engines.size(), " combinations, with --mem-budget ", args.mem_budgets,
        " --io ", args.ios);
  }
  if (args.ios == "mmap") {
    return InvalidArgument(
        "--ablation: neurons are not read one by one through --io mmap; take "
        "uring, pread or auto");
  }
  if (args.engine.neuron_reads == "streamed") {
    return InvalidArgument(
        "--ablation: its rows read neurons one by one; --neuron-reads streamed "
        "is not for them");
  }
  FLASHELM_ASSIGN_OR_RETURN(const std::vector<BenchTest> tests,
                            BenchTests(args));
  AblationSetup setup = {engines.front(), {}};
  for (const BenchTest& test : tests) {
    setup.test.n_prompt += test.n_prompt;
    setup.test.n_gen += test.n_gen;
  }
  const bool is_pair = setup.test.n_prompt > 0 && setup.test.n_gen > 0;
  if (tests.size() > (is_pair ? 2u : 1u) ||
      (tests.size() == 2 && !args.prompt_gens.empty())) {
    return InvalidArgument(
        "--ablation: takes one prompt and one generation, found -p ",
        args.n_prompts, " -n ", args.n_gens,
        args.prompt_gens.empty() ? "" : " and --pg");
  }
  return setup;
}

// What a row runs. kInvalidArgument: not what its file is for.
Status SetUpRow(const AblationRow& row, const ModelFile& main, RowPlan& plan) {
  EngineArgs& engine = plan.args.engine;
  if (!row.is_sparse) {
    engine.sparsity = "off";
    engine.max_skipped = 0;
    engine.window = EngineArgs().window;
  } else if (!row.has_window) {
    engine.window = 0;
  }
  engine.pins_weights = row.pins_weights;
  engine.merges_reads = row.merges_reads;
  engine.neuron_reads = row.is_sparse ? "single" : "auto";
  FLASHELM_ASSIGN_OR_RETURN(const ModelFile model,
                            ModelFile::Open(engine.model));
  AddModelKeys(model, plan.model_facts);
  if (row.is_sparse) FLASHELM_RETURN_IF_ERROR(CheckCalibration(model));
  FLASHELM_RETURN_IF_ERROR(CheckModel(row.file, model, main));
  FLASHELM_ASSIGN_OR_RETURN(
      const SparsityOptions sparsity,
      ResolveSparsity(engine.sparsity, engine.max_skipped, model));
  if (row.is_sparse && !sparsity.is_on()) {
    return InvalidArgument(
        "--ablation: with --sparsity ", engine.sparsity, ", neurons of ",
        engine.model,
        " are not selected; say how many to keep: --sparsity gate:0.5");
  }
  const auto setup = SetUpEngine(model, engine, {});
  if (!setup) return setup.error();
  return OkStatus();
}

// Checks all of the command line and the files, so that a long benchmark does
// not end at a slip in its last row. Says what is left out.
Result<std::vector<RowPlan>> PlanAblation(const BenchArgs& args) {
  FLASHELM_ASSIGN_OR_RETURN(const AblationSetup asked, CheckArgs(args));
  const EngineArgs& engine = asked.engine;
  FLASHELM_ASSIGN_OR_RETURN(const ModelFile main,
                            ModelFile::Open(engine.model));
  FLASHELM_ASSIGN_OR_RETURN(
      const uint32_t context,
      BenchContext(asked.test, engine.context, main.config()));
  FLASHELM_ASSIGN_OR_RETURN(
      const uint64_t budget,
      ResolveBudget(engine.mem_budget, main.file_bytes()));
  FLASHELM_RETURN_IF_ERROR(CheckModel(RowFile::kOrdered, main, main));
  // Without a calibration there are the dense rows, unless others are asked
  // for.
  Status calibrated = CheckCalibration(main);
  const bool is_dense = calibrated.code() == StatusCode::kNotFound &&
                        engine.sparsity == "auto" && args.rows_model.empty() &&
                        args.file_order_model.empty();
  if (!calibrated.ok() && !is_dense) return Unexpected(std::move(calibrated));
  FLASHELM_ASSIGN_OR_RETURN(
      const SparsityOptions sparsity,
      ResolveSparsity(engine.sparsity, engine.max_skipped, main));
  if (!args.rows_model.empty() && sparsity.needs_predictor()) {
    return InvalidArgument(
        "--rows-model: a file without bundles has no predictor, as --sparsity ",
        engine.sparsity, " needs one; --sparsity gate runs it");
  }
  std::vector<RowPlan> plans;
  for (const AblationRow& row : kRows) {
    const std::string& path = PathOf(row.file, engine.model, args);
    if (path.empty() || (is_dense && row.is_sparse)) continue;
    RowPlan plan;
    plan.args = {engine, asked.test.n_prompt, asked.test.n_gen,
                 args.repetitions};
    plan.args.engine.model = path;
    plan.args.engine.context = context;
    // The same bytes for all files.
    if (budget != kUnlimitedBytes) {
      plan.args.engine.mem_budget = std::to_string(budget);
    }
    FLASHELM_RETURN_IF_ERROR(SetUpRow(row, main, plan));
    plan.ablation = row.name;
    plan.name = StatusMessage::Join("--ablation, row \"", row.name, "\"");
    plan.budget_text = engine.mem_budget;
    plan.budget_bytes = budget;
    plans.push_back(std::move(plan));
  }
  if (is_dense) {
    std::fprintf(stderr, "flashelm: only rows without sparsity: %s\n",
                 calibrated.message().c_str());
  } else {
    PrintMissing(args, engine, main, sparsity);
  }
  return plans;
}

// "GB/token" of flash; "failed" with the reason where there is an error.
std::string GigabytesCell(const Json& row) {
  if (row["error"].is_string()) {
    return "failed: " + row["error"].get<std::string>();
  }
  const Json& bytes = row["flash_bytes_per_token"];
  return bytes.is_number() ? fmt::format("{:.3g}", bytes.get<double>() / 1e9)
                           : "-";
}

std::vector<MarkdownTable::Column> Columns() {
  return {
      {"", 19, [](const Json& row) { return TextCell(row["ablation"]); }},
      {"GB/token", 8, GigabytesCell},
      {"GB/s", 5,
       [](const Json& row) { return NumberCell(row["flash_read_gbps"], 2); }},
      {"reads/token", 11,
       [](const Json& row) { return NumberCell(row["reads_per_token"], 0); }},
      {"I/O ms", 9,
       [](const Json& row) { return NumberCell(row["io_busy_ms"], 2); }},
      {"wait ms", 9,
       [](const Json& row) { return NumberCell(row["io_wait_ms"], 2); }},
      {"compute ms", 10,
       [](const Json& row) { return NumberCell(row["compute_ms"], 2); }},
      {"memory ms", 9,
       [](const Json& row) { return NumberCell(row["memory_ms"], 2); }},
      {"ms/token", 9,
       [](const Json& row) { return NumberCell(row["ms_per_token"], 2); }},
      {"peak RAM", 10,
       [](const Json& row) { return BytesCell(row["peak_rss_bytes"]); }}};
}

}  // namespace

Status RunAblation(const BenchArgs& args) {
  FLASHELM_ASSIGN_OR_RETURN(std::vector<RowPlan> plans, PlanAblation(args));
  const BenchRowArgs& first = plans.front().args;
  std::string title = fmt::format(
      "{}: --mem-budget {}, prompt of {} tokens, then {}, {} "
      "repetitions; {}",
      args.models.front(), args.mem_budgets, first.n_prompt, first.n_gen,
      args.repetitions, WhoMeasures());
  return MeasureRows(args, std::move(plans), std::move(title), Columns());
}

}  // namespace flashelm::cli
