// What sparse decoding will read, from how often neurons were active.
#ifndef FLASHELM_CORE_SPARSE_FORECAST_H_
#define FLASHELM_CORE_SPARSE_FORECAST_H_

#include <cstdint>
#include <optional>

#include "core/base/status.h"
#include "core/memory_plan.h"
#include "core/model_file.h"
#include "core/sparsity.h"
#include "storage/read_planner.h"

namespace flashelm {

// Per generated token, of all layers; estimates.
struct SparseForecast {
  double kept_fraction = 0;   // Of all neurons, those that are computed.
  uint64_t kept_bytes = 0;    // Of their bundles.
  uint64_t neuron_bytes = 0;  // Of all bundles.
  // Where bundles are read one by one. Streamed ones are in the plan.
  uint64_t cached_bundles = 0;
  uint64_t num_bundles = 0;
  uint64_t fresh_bytes = 0;  // Of bundles that are not cached.
  double read_ms = 0;        // To read those, as ReadNs().
};

// As NeuronUse has it, and as if the cache held those bundles for good that are
// used most often. Real tokens resemble those before them, so that they read
// less; a text unlike the one of the calibration may read more.
//   plan  of these options; without bundles, up rows and down columns count
//         each as one
// Nothing: neither the file nor the options say how many are kept.
// kUnavailable, kDataLoss, kResourceExhausted: as NeuronFrequency::Read().
Result<std::optional<SparseForecast>> ForecastSparse(
    const ModelFile& model, const SparsityOptions& options,
    const MemoryPlan& plan, const ReadCost& cost);

}  // namespace flashelm

#endif  // FLASHELM_CORE_SPARSE_FORECAST_H_
