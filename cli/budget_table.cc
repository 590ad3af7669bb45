#include "cli/budget_table.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "cli/engine_setup.h"
#include "core/base/format.h"
#include "core/base/process_memory.h"

namespace flashelm::cli {
namespace {

std::vector<std::string> Split(const std::string& list) {
  std::vector<std::string> parts(1);
  for (const char c : list) {
    if (c == ',') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

// Where neurons are read one by one, but how many is not known, nothing is.
std::optional<Forecast> ForecastOfRow(const ModelFile& model,
                                      const BudgetRow& row,
                                      const StorageColumn& column) {
  if (!row.plan) return std::nullopt;
  return ForecastOf(model, *row.plan, row.sparse, column.read, row.compute);
}

}  // namespace

Result<std::vector<BudgetRow>> PlanBudgets(const ModelFile& model,
                                           const PlanOptions& options,
                                           const std::string& budgets) {
  std::vector<BudgetRow> rows;
  Status infeasible;
  bool is_any_feasible = false;
  for (std::string& text : Split(budgets)) {
    BudgetRow row;
    FLASHELM_ASSIGN_OR_RETURN(row.bytes,
                              ResolveBudget(text, model.file_bytes()));
    row.text = std::move(text);
    PlanOptions row_options = options;
    row_options.budget_bytes = row.bytes;
    auto plan = MakePlan(model, row_options);
    if (plan) {
      row.plan = std::move(*plan);
      is_any_feasible = true;
    } else if (plan.error().code() != StatusCode::kBudgetInfeasible) {
      return Unexpected(std::move(plan.error()));
    } else if (infeasible.ok()) {
      infeasible = std::move(plan.error());
    }
    rows.push_back(std::move(row));
  }
  if (!is_any_feasible) return Unexpected(std::move(infeasible));
  return rows;
}

const BudgetRow& FirstFeasible(const std::vector<BudgetRow>& rows) {
  return *std::ranges::find_if(
      rows, [](const BudgetRow& row) { return row.plan.has_value(); });
}

void PrintBudgets(const ModelFile& model, const std::vector<BudgetRow>& rows,
                  const std::vector<StorageColumn>& columns) {
  fmt::print("\nTokens/s by budget and storage:\n\n  {:>8} {:>11} {:>11}",
             "budget", "RAM", "flash/token");
  for (const StorageColumn& column : columns) {
    fmt::print(" {:>11}", column.title);
  }
  fmt::print("\n");
  const uint64_t minimum_bytes = FirstFeasible(rows).plan->minimum_bytes;
  for (const BudgetRow& row : rows) {
    if (!row.plan) {
      fmt::print("  {:>8} too small: at least {} are needed\n", row.text,
                 FormatBytes(minimum_bytes));
      continue;
    }
    const uint64_t flash_bytes = row.plan->streamed_bytes_per_token +
                                 (row.sparse ? row.sparse->fresh_bytes : 0);
    fmt::print("  {:>8} {:>11} {:>11}", row.text,
               FormatBytes(row.plan->total_bytes), FormatBytes(flash_bytes));
    for (const StorageColumn& column : columns) {
      const auto forecast = ForecastOfRow(model, row, column);
      fmt::print(" {:>11}", forecast && forecast->gen_tps
                                ? fmt::format("{:.2f}", *forecast->gen_tps)
                                : "-");
    }
    fmt::print("\n");
  }
}

Json BudgetsToJson(const ModelFile& model, const std::vector<BudgetRow>& rows,
                   const std::vector<StorageColumn>& columns,
                   std::optional<uint64_t> own_bytes) {
  Json list = Json::array();
  for (const BudgetRow& row : rows) {
    Json json;
    json["mem_budget"] = row.text;
    json["mem_budget_bytes"] =
        row.bytes == kUnlimitedBytes ? Json(nullptr) : Json(row.bytes);
    const auto of_plan = [&row](auto value) {
      return row.plan ? Json(value(*row.plan)) : Json(nullptr);
    };
    json["planned_bytes"] =
        of_plan([](const MemoryPlan& plan) { return plan.total_bytes; });
    json["expected_peak_rss_bytes"] =
        row.plan ? OrNull(ExpectedPeakBytes(*row.plan, own_bytes))
                 : Json(nullptr);
    json["flash_bytes_bound_per_token"] = of_plan(
        [](const MemoryPlan& plan) { return plan.streamed_bytes_per_token; });
    json["fresh_bytes_per_token"] =
        row.sparse ? Json(row.sparse->fresh_bytes) : Json(nullptr);
    json["gen_tps"] = Json::object();
    json["prompt_tps"] = Json::object();
    for (const StorageColumn& column : columns) {
      const auto forecast = ForecastOfRow(model, row, column);
      json["gen_tps"][column.name] =
          forecast ? OrNull(forecast->gen_tps) : Json(nullptr);
      // Which bundles a prompt needs is not known.
      json["prompt_tps"][column.name] = forecast && !row.sparse
                                            ? OrNull(forecast->prompt_tps)
                                            : Json(nullptr);
    }
    list.push_back(std::move(json));
  }
  return list;
}

std::optional<uint64_t> ExpectedPeakBytes(const MemoryPlan& plan,
                                          std::optional<uint64_t> own_bytes) {
  if (!own_bytes) return std::nullopt;
  return plan.total_bytes - plan.process_bytes - plan.kernel_bytes + *own_bytes;
}

std::optional<uint64_t> ResidentBytes() {
  const auto memory = ReadProcessMemory();
  if (!memory) return std::nullopt;
  return memory->resident_bytes;
}

}  // namespace flashelm::cli
