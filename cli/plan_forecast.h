// How fast a plan will be: rates of this machine, or of storage of a class, and
// what follows from them.
#ifndef FLASHELM_CLI_PLAN_FORECAST_H_
#define FLASHELM_CLI_PLAN_FORECAST_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "cli/engine_setup.h"
#include "core/compute_rate.h"
#include "core/device.h"
#include "core/forecast.h"
#include "core/memory_plan.h"
#include "core/model_file.h"
#include "core/sparse_forecast.h"

namespace flashelm::cli {

// What `run` holds for a prompt that fills the context, at the usual four bytes
// of text per token, so that a budget that is named is one for `run`.
EngineNeeds RunNeeds(const ModelFile& model, uint32_t context);

// What such storage reads in order, as its makers and users commonly measure.
struct StorageClass {
  const char* name;
  const char* title;
  uint64_t bytes_per_second;
};
std::span<const StorageClass> StorageClasses();
// Null: there is none of that name.
const StorageClass* FindStorageClass(std::string_view name);

// How fast weights are streamed, and how that was found.
struct ReadRate {
  enum class Source { kMeasured, kProfile, kStorageClass };
  uint64_t bytes_per_second = 0;  // In requests of any size.
  Source source = Source::kMeasured;
  // What it is the best of, where that is known: a plan's reads are smaller
  // than its ring's slots, and many of them smaller still.
  std::vector<DeviceRate> rates;
  IoBackend backend = IoBackend::kAuto;  // Of those that were measured.
  // As ForecastInput has them; 1 where nothing was measured.
  double read_slowdown = 1;
  double compute_slowdown = 1;
};

// The best of a profile, by the reader that `io` means. Nothing: it has none.
std::optional<ReadRate> RateOf(const DeviceProfile& profile, IoBackend io,
                               ReadRate::Source source);
// The same rate for the reads of a plan, of their mean size: what a read takes
// is interpolated between those that were measured.
ReadRate RateWithin(const ReadRate& rate, const ModelFile& model,
                    const MemoryPlan& plan);

// Measures how fast a model file is read with `options.io`, alone and while all
// its threads compute within a plan. Takes some four seconds. Errors as
// MeasureModelFile() and MeasureComputeSlowdown().
Result<ReadRate> MeasureReading(const ModelFile& model, const MemoryPlan& plan,
                                const PlanOptions& options,
                                StandInWeights& weights,
                                const CancelToken& cancel);

// What computing takes within a plan. Errors as MeasureComputeRate().
Result<ComputeRate> MeasureComputing(const ModelFile& model,
                                     const MemoryPlan& plan,
                                     const PlanOptions& options,
                                     StandInWeights& weights);

// What generating makes with what the plan streams read from the file: bytes of
// weights per second, of tokens for half a second, or up to two where one takes
// long. Errors as MeasureStreamingRate().
Result<double> MeasureStreaming(const ModelFile& model, const MemoryPlan& plan,
                                const PlanOptions& options,
                                StandInWeights& weights);

// With `read` nothing, only of what reads nothing.
Forecast ForecastOf(const ModelFile& model, const MemoryPlan& plan,
                    const std::optional<SparseForecast>& sparse,
                    const std::optional<ReadRate>& read,
                    const ComputeRate& compute);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_PLAN_FORECAST_H_
