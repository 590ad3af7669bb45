#include <algorithm>
#include <cstdio>
#include <iterator>
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
#include "core/simd.h"

namespace flashelm::cli {
namespace {

// "a,b" as {"a", "b"}. kInvalidArgument: nothing between two commas.
Result<std::vector<std::string>> SplitList(const std::string& text,
                                           std::string_view flag) {
  std::vector<std::string> items;
  size_t begin = 0;
  while (true) {
    const size_t end = std::min(text.find(',', begin), text.size());
    if (end == begin) {
      return InvalidArgument(flag, ": \"", text,
                             "\" is no list; expected values with single "
                             "commas between them");
    }
    items.push_back(text.substr(begin, end - begin));
    if (end == text.size()) return items;
    begin = end + 1;
  }
}

// Checks all of the command line, so that a long benchmark does not end at a
// slip in its last row.
Result<std::vector<RowPlan>> PlanRows(const BenchArgs& args) {
  FLASHELM_ASSIGN_OR_RETURN(const std::vector<std::string> budgets,
                            SplitList(args.engine.mem_budget, "--mem-budget"));
  FLASHELM_ASSIGN_OR_RETURN(const std::vector<std::string> backends,
                            SplitList(args.engine.io, "--io"));
  const auto num_mmap = std::count(backends.begin(), backends.end(), "mmap");
  const bool is_all_mmap = num_mmap == std::ssize(backends);
  FLASHELM_ASSIGN_OR_RETURN(const ModelFile model,
                            ModelFile::Open(args.engine.model));
  FLASHELM_ASSIGN_OR_RETURN(const uint32_t context,
                            BenchContext(args, model.config()));
  std::vector<RowPlan> rows;
  for (const std::string& budget : budgets) {
    for (const std::string& io : backends) {
      RowPlan row;
      row.args.engine = args.engine;
      row.args.n_prompt = args.n_prompt;
      row.args.n_gen = args.n_gen;
      row.args.repetitions = args.repetitions;
      EngineArgs& engine = row.args.engine;
      engine.io = io;
      engine.allow_unenforced =
          args.engine.allow_unenforced && (io == "mmap" || num_mmap == 0);
      if (io == "mmap" && !is_all_mmap) engine.device_profile.clear();
      engine.context = context;
      row.budget_text = budget;
      row.name = StatusMessage::Join("--mem-budget ", budget, " --io ", io);
      engine.mem_budget = budget;
      FLASHELM_ASSIGN_OR_RETURN(const EngineSetup setup,
                                SetUpEngine(model, engine, {}));
      row.budget_bytes = setup.options.plan.budget_bytes;
      if (row.budget_bytes != kUnlimitedBytes) {
        engine.mem_budget = std::to_string(row.budget_bytes);
      }
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

std::vector<MarkdownTable::Column> ColumnsOf(const BenchArgs& args) {
  std::vector<MarkdownTable::Column> columns = {
      {"budget", 10},       {"io", 6},         {"peak RAM", 10},
      {"prompt tok/s", 12}, {"tok/s", 8},      {"p50 ms", 8},
      {"p95 ms", 8},        {"flash/tok", 10}, {"bound", 10},
      {"kernel/tok", 10},   {"GB/s", 5},       {"wait ms", 8},
      {"compute ms", 10}};
  if (args.cgroup) columns.push_back({"cgroup peak", 11});
  return columns;
}

std::vector<std::string> CellsOf(const RowPlan& plan, const Json& row) {
  const Json& cgroup = row["cgroup"];
  return {plan.budget_text,
          row["io_backend"].is_string() ? row["io_backend"].get<std::string>()
                                        : plan.args.engine.io,
          BytesCell(row["peak_rss_bytes"]),
          NumberCell(row["prompt_tps"], 1),
          NumberCell(row["gen_tps"], 2),
          NumberCell(row["itl_p50_ms"], 1),
          NumberCell(row["itl_p95_ms"], 1),
          BytesCell(row["flash_bytes_per_token"]),
          BytesCell(row["flash_bytes_bound_per_token"]),
          BytesCell(row["kernel_read_bytes_per_token"]),
          NumberCell(row["flash_read_gbps"], 2),
          NumberCell(row["io_wait_ms"], 1),
          NumberCell(row["compute_ms"], 1),
          cgroup.is_object() ? BytesCell(cgroup["peak_bytes"]) : "-"};
}

}  // namespace

Status RunBench(const BenchArgs& args) {
  FLASHELM_ASSIGN_OR_RETURN(const std::vector<RowPlan> plans, PlanRows(args));
  const MarkdownTable table(ColumnsOf(args));
  BenchOutput output;
  output.is_json = args.format == "json";
  output.show = [&](const RowPlan& plan, const Json& row) {
    table.PrintRow(CellsOf(plan, row));
  };
  if (!output.is_json) {
    fmt::print(
        "{}: prompt of {} tokens, then {}, {} repetitions; flashelm {}, {}, "
        "{}\n\n",
        args.engine.model, args.n_prompt, args.n_gen, args.repetitions,
        FLASHELM_VERSION, SimdTargetName(),
        CpuName().value_or("unknown processor"));
    table.PrintHead();
    std::fflush(stdout);
  }
  return MeasureRows(plans, args.cgroup, output, InterruptToken());
}

}  // namespace flashelm::cli
