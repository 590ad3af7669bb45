// flashelm bench --ablation: what each part of sparse decoding brings, row by
// row, as the ablation of "LLM in a flash" has it.

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "cli/bench_child.h"
#include "cli/engine_setup.h"
#include "cli/machine.h"
#include "cli/markdown_table.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "core/base/format.h"
#include "core/convert/calibrated_file.h"
#include "core/simd.h"

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

const std::string& PathOf(RowFile file, const BenchArgs& args) {
  switch (file) {
    case RowFile::kRows:
      return args.rows_model;
    case RowFile::kFileOrder:
      return args.file_order_model;
    case RowFile::kOrdered:
      break;
  }
  return args.engine.model;
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
  FLASHELM_RETURN_IF_ERROR(CheckCalibration(model));
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
void PrintMissing(const BenchArgs& args, const ModelFile& main,
                  const SparsityOptions& sparsity) {
  const std::string flags = EncodingFlags(main);
  if (args.rows_model.empty() && sparsity.needs_predictor()) {
    std::fprintf(stderr,
                 "flashelm: \"+ predictor\" and \"+ window\" are left out: a "
                 "file without bundles has no predictor, as --sparsity %s "
                 "needs one; --sparsity gate runs them\n",
                 args.engine.sparsity.c_str());
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

// Checks all of the command line and the files, so that a long benchmark does
// not end at a slip in its last row. Says what is left out.
Result<std::vector<RowPlan>> PlanAblation(const BenchArgs& args) {
  const auto is_list = [](const std::string& text) {
    return text.find(',') != std::string::npos;
  };
  if (is_list(args.engine.mem_budget) || is_list(args.engine.io)) {
    return InvalidArgument(
        "--ablation: takes one budget and one reader, found --mem-budget ",
        args.engine.mem_budget, " --io ", args.engine.io);
  }
  if (args.engine.io == "mmap") {
    return InvalidArgument(
        "--ablation: neurons are not read one by one through --io mmap; take "
        "uring, pread or auto");
  }
  FLASHELM_ASSIGN_OR_RETURN(const ModelFile main,
                            ModelFile::Open(args.engine.model));
  FLASHELM_ASSIGN_OR_RETURN(const uint32_t context,
                            BenchContext(args, main.config()));
  FLASHELM_ASSIGN_OR_RETURN(
      const uint64_t budget,
      ResolveBudget(args.engine.mem_budget, main.file_bytes()));
  FLASHELM_RETURN_IF_ERROR(CheckModel(RowFile::kOrdered, main, main));
  FLASHELM_ASSIGN_OR_RETURN(
      const SparsityOptions sparsity,
      ResolveSparsity(args.engine.sparsity, args.engine.max_skipped, main));
  if (!args.rows_model.empty() && sparsity.needs_predictor()) {
    return InvalidArgument(
        "--rows-model: a file without bundles has no predictor, as --sparsity ",
        args.engine.sparsity, " needs one; --sparsity gate runs it");
  }
  std::vector<RowPlan> plans;
  for (const AblationRow& row : kRows) {
    const std::string& path = PathOf(row.file, args);
    if (path.empty()) continue;
    RowPlan plan;
    plan.args = {args.engine, args.n_prompt, args.n_gen, args.repetitions};
    EngineArgs& engine = plan.args.engine;
    engine.model = path;
    engine.context = context;
    // The same bytes for all files.
    if (budget != kUnlimitedBytes) engine.mem_budget = std::to_string(budget);
    if (!row.is_sparse) {
      engine.sparsity = "off";
      engine.max_skipped = 0;
    }
    engine.pins_weights = row.pins_weights;
    engine.merges_reads = row.merges_reads;
    if (row.is_sparse) engine.neuron_reads = "single";
    if (!row.has_window) engine.window = 0;
    FLASHELM_ASSIGN_OR_RETURN(const ModelFile model, ModelFile::Open(path));
    FLASHELM_RETURN_IF_ERROR(CheckModel(row.file, model, main));
    FLASHELM_ASSIGN_OR_RETURN(const EngineSetup setup,
                              SetUpEngine(model, engine, {}));
    if (row.is_sparse && !setup.options.plan.sparsity.is_on()) {
      return InvalidArgument(
          "--ablation: with --sparsity ", engine.sparsity, ", neurons of ",
          path, " are not selected; say how many to keep: --sparsity gate:0.5");
    }
    plan.ablation = row.name;
    plan.name = StatusMessage::Join("--ablation, row \"", row.name, "\"");
    plan.budget_text = args.engine.mem_budget;
    plan.budget_bytes = budget;
    plans.push_back(std::move(plan));
  }
  PrintMissing(args, main, sparsity);
  return plans;
}

std::vector<std::string> CellsOf(const RowPlan& plan, const Json& row) {
  const Json& bytes = row["flash_bytes_per_token"];
  return {plan.ablation,
          bytes.is_number() ? fmt::format("{:.3g}", bytes.get<double>() / 1e9)
                            : "-",
          NumberCell(row["flash_read_gbps"], 2),
          NumberCell(row["reads_per_token"], 0),
          NumberCell(row["io_busy_ms"], 2),
          NumberCell(row["io_wait_ms"], 2),
          NumberCell(row["compute_ms"], 2),
          NumberCell(row["memory_ms"], 2),
          NumberCell(row["ms_per_token"], 2),
          BytesCell(row["peak_rss_bytes"])};
}

}  // namespace

Status RunAblation(const BenchArgs& args) {
  FLASHELM_ASSIGN_OR_RETURN(const std::vector<RowPlan> plans,
                            PlanAblation(args));
  const MarkdownTable table({{"", 19},
                             {"GB/token", 8},
                             {"GB/s", 5},
                             {"reads/token", 11},
                             {"I/O ms", 9},
                             {"wait ms", 9},
                             {"compute ms", 10},
                             {"memory ms", 9},
                             {"ms/token", 9},
                             {"peak RAM", 10}});
  BenchOutput output;
  output.is_json = args.format == "json";
  output.show = [&](const RowPlan& plan, const Json& row) {
    table.PrintRow(CellsOf(plan, row));
  };
  if (!output.is_json) {
    fmt::print(
        "{}: --mem-budget {}, prompt of {} tokens, then {}, {} repetitions; "
        "flashelm {}, {}, {}\n\n",
        args.engine.model, args.engine.mem_budget, args.n_prompt, args.n_gen,
        args.repetitions, FLASHELM_VERSION, SimdTargetName(),
        CpuName().value_or("unknown processor"));
    table.PrintHead();
    std::fflush(stdout);
  }
  return MeasureRows(plans, args.cgroup, output, InterruptToken());
}

}  // namespace flashelm::cli
