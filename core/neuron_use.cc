#include "core/neuron_use.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/types.h"
#include "core/cache_share.h"
#include "storage/json.h"

namespace flashelm {
namespace {

// What the calibration wrote of a layer; null: the file does not say.
const Json* FindCalibrated(const ModelFile& model, uint32_t layer,
                           const char* key) {
  const Json* at = &model.weight_file().provenance();
  for (const char* each : {"calibration", "layers", key}) {
    if (!at->is_object()) return nullptr;
    const auto found = at->find(each);
    if (found == at->end()) return nullptr;
    at = &*found;
  }
  if (!at->is_array() || at->size() != model.config().num_layers()) {
    return nullptr;
  }
  return &(*at)[layer];
}

std::optional<double> Calibrated(const ModelFile& model, uint32_t layer,
                                 const char* key) {
  const Json* found = FindCalibrated(model, layer, key);
  if (found == nullptr || !found->is_number()) return std::nullopt;
  return found->get<double>();
}

// Of a layer's neurons, those that the predictor keeps with the threshold that
// it has.
std::optional<double> CalibratedKept(const ModelFile& model, uint32_t layer) {
  const auto kept = Calibrated(model, layer, "kept_fraction");
  if (!kept || !(*kept >= 0 && *kept <= 1)) return std::nullopt;
  return kept;
}

// How many neighbours are active together.
double CalibratedRun(const ModelFile& model, uint32_t layer) {
  const auto run = Calibrated(model, layer, "run_length_after");
  const double most = model.config().layers[layer].ffn_dim;
  return run && *run >= 1 && *run <= most ? *run : 1;
}

// How soon neurons are used again; empty where the file says nothing that can
// be.
std::vector<float> CalibratedFresh(const ModelFile& model, uint32_t layer) {
  const Json* found = FindCalibrated(model, layer, "fresh_fractions");
  if (found == nullptr || !found->is_array()) return {};
  std::vector<float> fresh;
  float least = 1;
  for (const Json& part : *found) {
    if (!part.is_number()) return {};
    const auto value = part.get<float>();
    if (!(value >= 0 && value <= least)) return {};
    fresh.push_back(least = value);
  }
  return fresh;
}

// Of `kept` records those that are missed while those of the last tokens are
// cached, as many tokens as there is room for.
double MissesOfWindow(const NeuronUse& use, double num_cached) {
  double fresh = 1;      // Of what the tokens in the window leave.
  double in_window = 0;  // Records that those tokens used.
  for (const float next : use.fresh_fractions) {
    const double with_next = in_window + use.kept * fresh;
    if (with_next > num_cached) {
      const double part = (num_cached - in_window) / (with_next - in_window);
      return use.kept * (fresh + part * (next - fresh));
    }
    in_window = with_next;
    fresh = next;
  }
  return use.kept * fresh;
}

}  // namespace

std::optional<NeuronUse> UseOf(const ModelFile& model,
                               const SparsityOptions& options, uint32_t layer,
                               std::span<const float> frequency) {
  const double num_neurons = model.config().layers[layer].ffn_dim;
  const double used =
      ExpectedUsed({model.config().layers[layer].ffn_dim, 0, frequency});
  // A file may be calibrated and have no frequencies, all 0 then. What is
  // chosen at random is not what is active.
  const bool is_known = !frequency.empty() && used > 0;
  NeuronUse use;
  if (is_known && options.selector != Selector::kRandom) {
    use.frequency = frequency;
    // What is always the same was chosen by something else.
    if (options.selector != Selector::kMagnitude) {
      use.run_length = CalibratedRun(model, layer);
      use.fresh_fractions = CalibratedFresh(model, layer);
    }
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

double ExpectedMisses(const NeuronUse& use, const Segment& segment,
                      uint64_t num_cached, bool always_the_same) {
  const LayerBundles layer = {segment.num_records, 0, use.frequency};
  const auto cached = static_cast<double>(num_cached);
  // Each is missed at most once, and each that is cached spares one at most.
  const double least = std::max(0.0, use.kept - cached);
  if (always_the_same) return least;
  const double most =
      std::min(use.kept, static_cast<double>(segment.num_records) - cached);
  const double misses = std::min(
      use.kept / ExpectedUsed(layer) * ExpectedMisses(layer, num_cached),
      MissesOfWindow(use, cached));
  return std::clamp(misses, least, std::max(least, most));
}

double ReadNs(const Segment& segment, double num_records, double run_length,
              const ReadCost& cost) {
  if (num_records <= 0) return 0;
  const auto stride = static_cast<double>(segment.stride_bytes);
  // Reads are of whole pages. Where they begin and end, so much comes besides,
  // on average.
  const auto page_bytes = static_cast<double>(
      kIoAlignment - std::gcd(segment.stride_bytes, kIoAlignment));
  const double read_ns = cost.request_ns + page_bytes / cost.bytes_per_ns;
  const double record_ns = stride / cost.bytes_per_ns;
  // Between two runs that lie anywhere are k > 0 others with the probability
  // q (1 - q)^(k - 1). They are read, too, where that takes no longer than a
  // new read. Records that lie anywhere have runs of 1 / (1 - p).
  const auto all = static_cast<double>(segment.num_records);
  const double wanted = std::min(num_records, all);
  const double num_runs =
      std::min(wanted / run_length, wanted * (1 - wanted / all));
  const double q = wanted < all ? std::min(1.0, num_runs / (all - wanted)) : 1;
  double run_ns = 0;
  double left = 1;  // (1 - q)^(k - 1)
  for (double gap_ns = record_ns; gap_ns <= read_ns && left > 1e-6;
       gap_ns += record_ns) {
    run_ns += q * left * gap_ns;
    left *= 1 - q;
  }
  run_ns += left * read_ns;
  const double all_ns =
      static_cast<double>(segment.num_bytes()) /
      std::max(cost.sequential_bytes_per_ns, cost.bytes_per_ns);
  return std::min(wanted * record_ns + num_runs * run_ns, all_ns);
}

}  // namespace flashelm
