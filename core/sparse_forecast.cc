#include "core/sparse_forecast.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "core/base/memory.h"
#include "core/cache_share.h"
#include "core/neuron_frequency.h"
#include "storage/json.h"

namespace flashelm {

namespace {

// Of a layer's neurons, those that the predictor keeps with the threshold that
// it has, as the calibration measured it. Nothing: the file does not say.
std::optional<double> CalibratedKept(const ModelFile& model, uint32_t layer) {
  const Json* at = &model.weight_file().provenance();
  for (const char* key : {"calibration", "layers", "kept_fraction"}) {
    if (!at->is_object()) return std::nullopt;
    const auto found = at->find(key);
    if (found == at->end()) return std::nullopt;
    at = &*found;
  }
  if (!at->is_array() || at->size() != model.config().num_layers() ||
      !(*at)[layer].is_number()) {
    return std::nullopt;
  }
  const auto kept = (*at)[layer].get<double>();
  if (!(kept >= 0 && kept <= 1)) return std::nullopt;
  return kept;
}

// How a layer's neurons are used.
struct LayerUse {
  double kept = 0;  // Of them, by a token.
  std::span<const float> frequency;
};

// Nothing: not known.
std::optional<LayerUse> UseOf(const ModelFile& model,
                              const SparsityOptions& options, uint32_t layer,
                              std::span<const float> frequency) {
  const double num_neurons = model.config().layers[layer].ffn_dim;
  const double used =
      ExpectedUsed({model.config().layers[layer].ffn_dim, 0, frequency});
  // A file may be calibrated and have no frequencies, all 0 then. What is
  // chosen at random is not what is active.
  const bool is_known = !frequency.empty() && used > 0;
  LayerUse use;
  if (is_known && options.selector != Selector::kRandom) {
    use.frequency = frequency;
  }
  if (options.kept_fraction > 0) {
    use.kept = std::ceil(options.kept_fraction * num_neurons);
    // Known gates keep no more than are active; others keep what is asked for.
    if (is_known && options.selector == Selector::kGate) {
      use.kept = std::min(use.kept, used);
    }
  } else if (options.needs_predictor()) {
    const auto kept = CalibratedKept(model, layer);
    if (!kept) return std::nullopt;
    use.kept = *kept * num_neurons;
  } else if (is_known) {
    use.kept = used;
  } else {
    return std::nullopt;
  }
  return use;
}

}  // namespace

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
  // Without bundles a layer has two segments.
  const uint32_t per_layer = model.has_rows() ? 2 : 1;
  for (uint32_t i = 0; i < plan.residency.apart.size(); ++i) {
    const Segment& segment =
        model.weight_file().segments()[plan.residency.apart[i]];
    const auto use =
        UseOf(model, options, i / per_layer, frequency.of_layer(i / per_layer));
    if (!use) return std::nullopt;
    LayerBundles layer;
    layer.num_bundles = segment.num_records;
    layer.frequency = use->frequency;
    const uint64_t num_cached = plan.cached_bundles[i];
    const auto cached = static_cast<double>(num_cached);
    // Each is missed at most once, and each that is cached spares one at most.
    const double least = std::max(0.0, use->kept - cached);
    double misses = least;  // Where it is always the same ones.
    if (options.selector != Selector::kMagnitude) {
      const double most =
          std::min(use->kept, static_cast<double>(layer.num_bundles) - cached);
      misses = std::clamp(
          use->kept / ExpectedUsed(layer) * ExpectedMisses(layer, num_cached),
          least, std::max(least, most));
    }
    const auto stride = static_cast<double>(segment.stride_bytes);
    num_kept += use->kept;
    kept_bytes += use->kept * stride;
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
