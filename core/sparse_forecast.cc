#include "core/sparse_forecast.h"

#include <algorithm>
#include <cmath>

#include "core/base/memory.h"
#include "core/cache_share.h"
#include "core/neuron_frequency.h"

namespace flashelm {

Result<std::optional<SparseForecast>> ForecastSparse(
    const ModelFile& model, const SparsityOptions& options,
    const MemoryPlan& plan, const ReadCost& cost) {
  MemoryBudget unlimited(kUnlimitedBytes);
  NeuronFrequency frequency;
  if (model.config().activation == "relu") {
    FLASHELM_ASSIGN_OR_RETURN(frequency,
                              NeuronFrequency::Read(model, unlimited));
  }
  SparseForecast forecast;
  double num_kept = 0;
  double kept_bytes = 0;
  double fresh_bytes = 0;
  for (uint32_t i = 0; i < model.config().num_layers(); ++i) {
    const Segment& segment =
        model.weight_file().segments()[model.weights().layers[i].up.segment];
    LayerBundles layer;
    layer.num_bundles = segment.num_records;
    layer.frequency = frequency.of_layer(i);
    const double used = ExpectedUsed(layer);
    // A file may be calibrated and have no frequencies, all 0 then.
    const bool is_known = frequency.is_known() && used > 0;
    double kept = used;
    if (options.kept_fraction > 0) {
      const double most = std::ceil(options.kept_fraction *
                                    static_cast<double>(layer.num_bundles));
      kept = is_known ? std::min(used, most) : most;
      if (!is_known) layer.frequency = {};
    } else if (!is_known) {
      return std::nullopt;
    }
    const uint64_t num_cached = plan.cached_bundles[i];
    const double misses =
        kept / ExpectedUsed(layer) * ExpectedMisses(layer, num_cached);
    const auto stride = static_cast<double>(segment.stride_bytes);
    num_kept += kept;
    kept_bytes += kept * stride;
    fresh_bytes += misses * stride;
    forecast.cached_bundles += num_cached;
    forecast.num_bundles += layer.num_bundles;
    const double single_ns =
        misses * (cost.request_ns + stride / cost.bytes_per_ns);
    const double all_ns =
        static_cast<double>(segment.num_bytes()) /
        std::max(cost.sequential_bytes_per_ns, cost.bytes_per_ns);
    forecast.read_ms += std::min(single_ns, all_ns) * 1e-6;
  }
  forecast.kept_fraction = num_kept / static_cast<double>(forecast.num_bundles);
  forecast.kept_bytes = static_cast<uint64_t>(std::llround(kept_bytes));
  forecast.fresh_bytes = static_cast<uint64_t>(std::llround(fresh_bytes));
  return forecast;
}

}  // namespace flashelm
