// What each of several budgets would do for a model.
#ifndef FLASHELM_CLI_BUDGET_TABLE_H_
#define FLASHELM_CLI_BUDGET_TABLE_H_

#include <optional>
#include <string>
#include <vector>

#include "cli/plan_forecast.h"
#include "cli/record.h"
#include "core/memory_plan.h"
#include "core/sparse_forecast.h"

namespace flashelm::cli {

struct BudgetRow {
  std::string text;                // As it was asked for: "25%".
  uint64_t bytes = 0;              // kUnlimitedBytes: no limit is known.
  std::optional<MemoryPlan> plan;  // Nothing: it is too small.
  ComputeRate compute;             // Within the plan.
  std::optional<SparseForecast> sparse;
};

// A device or a class of storage that rows have a forecast for.
struct StorageColumn {
  std::string name;   // In JSON.
  std::string title;  // For people.
  std::optional<ReadRate> read;
};

// The budgets in a list, "25%,1G", of a model, each planned for. Too small ones
// are rows, too. kInvalidArgument: not sizes. kBudgetInfeasible: all are too
// small, with the message of the first. Others as MakePlan().
Result<std::vector<BudgetRow>> PlanBudgets(const ModelFile& model,
                                           const PlanOptions& options,
                                           const std::string& budgets);
// The first that is not too small.
const BudgetRow& FirstFeasible(const std::vector<BudgetRow>& rows);

// What the process will show of a plan as its peak, VmHWM: where lines of the
// plan are bounds, this process stands for the one to come, with its code, heap
// and stack. `own_bytes`: what it took when it had opened the model and
// planned, ResidentBytes(). Nothing where a system does not say.
std::optional<uint64_t> ExpectedPeakBytes(const MemoryPlan& plan,
                                          std::optional<uint64_t> own_bytes);
std::optional<uint64_t> ResidentBytes();

void PrintBudgets(const ModelFile& model, const std::vector<BudgetRow>& rows,
                  const std::vector<StorageColumn>& columns);
Json BudgetsToJson(const ModelFile& model, const std::vector<BudgetRow>& rows,
                   const std::vector<StorageColumn>& columns,
                   std::optional<uint64_t> own_bytes);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_BUDGET_TABLE_H_
