#include "core/sparse_forecast.h"

#include <cmath>

#include "core/base/memory.h"
#include "core/neuron_frequency.h"
#include "core/neuron_use.h"

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
  double num_neurons = 0;
  double kept_bytes = 0;
  double fresh_bytes = 0;
  size_t num_apart = 0;
  for (uint32_t i = 0; i < model.config().num_layers(); ++i) {
    const auto use = UseOf(model, options, i, frequency.of_layer(i));
    if (!use) return std::nullopt;
    num_kept += use->kept;
    num_neurons += model.config().layers[i].ffn_dim;
    for (const uint32_t index : model.weights().layers[i].neuron_segments()) {
      const Segment& segment = model.weight_file().segments()[index];
      const auto stride = static_cast<double>(segment.stride_bytes);
      kept_bytes += use->kept * stride;
      forecast.neuron_bytes += segment.num_bytes();
      if (plan.streams_neurons(i)) continue;
      const uint64_t num_cached = plan.cached_bundles[num_apart++];
      const double misses = ExpectedMisses(
          *use, segment, num_cached, options.selector == Selector::kMagnitude);
      fresh_bytes += misses * stride;
      forecast.cached_bundles += num_cached;
      forecast.num_bundles += segment.num_records;
      forecast.read_ms += ReadNs(segment, misses, use->run_length, cost) * 1e-6;
    }
  }
  forecast.kept_fraction = num_kept / num_neurons;
  forecast.kept_bytes = static_cast<uint64_t>(std::llround(kept_bytes));
  forecast.fresh_bytes = static_cast<uint64_t>(std::llround(fresh_bytes));
  return forecast;
}

}  // namespace flashelm
