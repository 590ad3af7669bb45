#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "cli/bench_matrix.h"
#include "cli/bench_rows.h"
#include "cli/markdown_table.h"
#include "cli/verbs.h"
#include "core/base/format.h"

namespace flashelm::cli {
namespace {

std::string IntegerCell(const Json& value) {
  return value.is_number() ? std::to_string(value.get<uint64_t>()) : "-";
}

// "12.34 +- 0.56", or why there is no such number.
std::string RateCell(const Json& row) {
  if (row["error"].is_string()) {
    return "failed: " + row["error"].get<std::string>();
  }
  const std::string mean = NumberCell(row["avg_ts"], 2);
  if (row["stddev_ts"].is_null()) return mean;
  return mean + " \u00b1 " + NumberCell(row["stddev_ts"], 2);
}

bool IsList(const std::string& text) {
  return text.find(',') != std::string::npos;
}

// Those of flags that have several values, beside those that are always shown.
std::vector<MarkdownTable::Column> ColumnsOf(const BenchArgs& args) {
  std::vector<MarkdownTable::Column> columns;
  const auto add = [&](const char* name, int width,
                       std::string (*cell)(const Json&)) {
    columns.push_back({name, width, cell});
  };
  if (args.models.size() > 1) {
    add("file", 16, [](const Json& row) {
      return std::filesystem::path(row["model_path"].get<std::string>())
          .filename()
          .string();
    });
  }
  add("model", 19, [](const Json& row) { return TextCell(row["model_type"]); });
  add("size", 10, [](const Json& row) { return BytesCell(row["model_size"]); });
  add("budget", 8,
      [](const Json& row) { return TextCell(row["config"]["mem_budget"]); });
  add("io", 5, [](const Json& row) { return TextCell(row["io_backend"]); });
  if (IsList(args.sparsities)) {
    add("sparsity", 8,
        [](const Json& row) { return TextCell(row["config"]["sparsity"]); });
  }
  if (IsList(args.windows)) {
    add("window", 6,
        [](const Json& row) { return TextCell(row["config"]["window"]); });
  }
  if (IsList(args.kv_types)) {
    add("kv", 4, [](const Json& row) { return TextCell(row["kv_type"]); });
  }
  add("threads", 7,
      [](const Json& row) { return IntegerCell(row["n_threads"]); });
  if (IsList(args.batches)) {
    add("batch", 5,
        [](const Json& row) { return IntegerCell(row["n_batch"]); });
  }
  if (IsList(args.contexts)) {
    add("ctx", 5, [](const Json& row) { return IntegerCell(row["n_ctx"]); });
  }
  add("test", 10, [](const Json& row) { return TextCell(row["test"]); });
  add("t/s", 18, RateCell);
  add("peak RAM", 10,
      [](const Json& row) { return BytesCell(row["peak_rss_bytes"]); });
  add("p50 ms", 8,
      [](const Json& row) { return NumberCell(row["itl_p50_ms"], 1); });
  add("p95 ms", 8,
      [](const Json& row) { return NumberCell(row["itl_p95_ms"], 1); });
  add("flash/tok", 10,
      [](const Json& row) { return BytesCell(row["flash_bytes_per_token"]); });
  add("bound", 10, [](const Json& row) {
    return BytesCell(row["flash_bytes_bound_per_token"]);
  });
  add("kernel/tok", 10, [](const Json& row) {
    return BytesCell(row["kernel_read_bytes_per_token"]);
  });
  add("GB/s", 5,
      [](const Json& row) { return NumberCell(row["flash_read_gbps"], 2); });
  add("wait ms", 8,
      [](const Json& row) { return NumberCell(row["io_wait_ms"], 1); });
  add("compute ms", 10,
      [](const Json& row) { return NumberCell(row["compute_ms"], 1); });
  return columns;
}

}  // namespace

Status RunBench(const BenchArgs& args) {
  FLASHELM_ASSIGN_OR_RETURN(std::vector<RowPlan> plans, PlanRows(args));
  std::string models;
  for (const std::string& model : args.models) {
    models += (models.empty() ? "" : ", ") + model;
  }
  return MeasureRows(args, std::move(plans),
                     fmt::format("{}: {} repetitions; {}", models,
                                 args.repetitions, WhoMeasures()),
                     ColumnsOf(args));
}

}  // namespace flashelm::cli
