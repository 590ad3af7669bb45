#include "cli/model_outlook.h"

#include <map>
#include <optional>

#include "cli/conversion.h"
#include "cli/engine_setup.h"
#include "core/convert/planned_model.h"

namespace flashelm::cli {
namespace {

constexpr const char* kShapes[] = {"270M", "450M", "1.1B", "3B"};
constexpr const char* kWeights[] = {"bf16", "q8", "q4"};
// Which computing is measured with: one of the middle.
constexpr char kMeasuredShape[] = "1.1B";

Result<ModelFile> PlannedModel(const char* shape, const char* weights) {
  EncodingArgs encodings;
  encodings.weights = weights;
  return PlanModelFileOfShape(shape, OptionsOf(encodings));
}

// Within the budget, or, where that is too small, with all weights in RAM.
Result<ComputeRate> RateOf(const ModelFile& model, PlanOptions options,
                           StandInWeights& weights) {
  auto plan = MakePlan(model, options);
  if (!plan && plan.error().code() == StatusCode::kBudgetInfeasible) {
    options.budget_bytes = kUnlimitedBytes;
    plan = MakePlan(model, options);
  }
  if (!plan) return Unexpected(plan.error());
  return MeasureComputing(model, *plan, options, weights);
}

Result<ModelOutlook> LookAt(const ModelFile& model, const PlanOptions& options,
                            const std::optional<ReadRate>& read,
                            const ComputeRate& compute) {
  ModelOutlook outlook;
  outlook.name = model.weights_name();
  outlook.num_params = model.config().num_params();
  outlook.file_bytes = model.file_bytes();
  outlook.budget_bytes = options.budget_bytes;
  PlanOptions whole = options;
  whole.budget_bytes = kUnlimitedBytes;
  whole.max_batch = 1;
  FLASHELM_ASSIGN_OR_RETURN(const MemoryPlan whole_plan,
                            MakePlan(model, whole));
  outlook.whole_bytes = whole_plan.total_bytes;
  outlook.minimum_bytes = whole_plan.minimum_bytes;
  const auto plan = MakePlan(model, options);
  if (!plan) {
    if (plan.error().code() == StatusCode::kBudgetInfeasible) return outlook;
    return Unexpected(plan.error());
  }
  outlook.planned_bytes = plan->total_bytes;
  outlook.flash_bytes_per_token = plan->streamed_bytes_per_token;
  outlook.gen_tps =
      ForecastOf(model, *plan, std::nullopt, read, compute).gen_tps;
  return outlook;
}

}  // namespace

Result<std::vector<ModelOutlook>> LookAtModels(
    const EngineArgs& args, const std::optional<ReadRate>& read) {
  std::map<std::string, ComputeRate> rates;
  std::optional<StandInWeights> stand_in;
  std::vector<ModelOutlook> outlooks;
  for (const char* shape : kShapes) {
    for (const char* weights : kWeights) {
      if (rates.count(weights) == 0) {
        FLASHELM_ASSIGN_OR_RETURN(const ModelFile model,
                                  PlannedModel(kMeasuredShape, weights));
        FLASHELM_ASSIGN_OR_RETURN(const EngineSetup setup,
                                  SetUpEngine(model, args, {}));
        // Of the largest encoding, which comes first.
        if (!stand_in) {
          FLASHELM_ASSIGN_OR_RETURN(stand_in, StandInWeights::Create(model));
        }
        FLASHELM_ASSIGN_OR_RETURN(rates[weights],
                                  RateOf(model, setup.options.plan, *stand_in));
      }
      FLASHELM_ASSIGN_OR_RETURN(const ModelFile model,
                                PlannedModel(shape, weights));
      const EngineNeeds needs =
          RunNeeds(model, ContextOf(args, model.config()));
      FLASHELM_ASSIGN_OR_RETURN(const EngineSetup setup,
                                SetUpEngine(model, args, needs));
      FLASHELM_ASSIGN_OR_RETURN(
          ModelOutlook outlook,
          LookAt(model, setup.options.plan, read, rates[weights]));
      outlook.shape = shape;
      outlook.weights = weights;
      outlooks.push_back(std::move(outlook));
    }
  }
  return outlooks;
}

}  // namespace flashelm::cli
