#include "core/sparse_switch.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "core/neuron_use.h"

namespace flashelm {
namespace {

// At which a thread multiplies weights in DRAM, about (11 to 25 GB/s of each of
// two were seen), and how many threads it takes to use all of its rate. Too low
// is the worse mistake: where computing seems to be what takes time, reading
// more seems to cost nothing.
constexpr double kThreadBytesPerNs = 16;
constexpr uint32_t kMostThreads = 4;
double DramBytesPerNs(const PlanOptions& options) {
  return kThreadBytesPerNs * std::min(options.num_threads, kMostThreads);
}

// How long reading single neurons takes depends on the text: they are chosen
// where they would win if it took so many times as long.
constexpr double kDoubt = 1.05;

constexpr uint32_t kParts = 4;

// Reading and computing hold each other up: by about so much of the shorter of
// the two, where `plan` measured 0 to a third. It also decides where two plans
// seem to wait for computing: for the one that reads less.
constexpr double kContention = 0.25;

// How long a token takes by a plan: as long as the device is busy, or as
// computing takes together with the waiting for single neurons, and a part of
// the shorter of these.
double TokenNs(const ModelFile& model, const PlanOptions& options,
               const MemoryPlan& plan, const std::vector<NeuronUse>& uses) {
  const std::vector<Segment>& segments = model.weight_file().segments();
  const ReadCost& cost = options.read_cost;
  const double dram_bytes_per_ns = DramBytesPerNs(options);
  double compute_ns =
      static_cast<double>(plan.weight_bytes) / dram_bytes_per_ns;
  double wait_ns = 0;
  double device_ns = static_cast<double>(plan.streamed_bytes_per_token) /
                     std::max(cost.sequential_bytes_per_ns, cost.bytes_per_ns);
  size_t num_apart = 0;
  for (uint32_t i = 0; i < model.config().num_layers(); ++i) {
    const LayerWeights& weights = model.weights().layers[i];
    double meanwhile_ns = 0;  // What is computed while single neurons are read.
    double read_ns = 0;
    if (options.sparsity.takes_gates_one_by_one()) {
      meanwhile_ns +=
          static_cast<double>(segments[weights.gate.segment].num_bytes()) /
          dram_bytes_per_ns;
    }
    for (const uint32_t index : weights.neuron_segments()) {
      const Segment& segment = segments[index];
      const auto stride = static_cast<double>(segment.stride_bytes);
      const double skipped =
          static_cast<double>(segment.num_records) - uses[i].kept;
      compute_ns -= skipped * stride / dram_bytes_per_ns;
      if (plan.streams_neurons(i)) continue;
      // No more than the window's tokens use stay, however many there is room
      // for.
      const double most_cached =
          options.sparsity.window_tokens == UINT32_MAX
              ? std::numeric_limits<double>::infinity()
              : options.sparsity.window_tokens * uses[i].kept;
      const double num_cached =
          std::min<double>(plan.cached_bundles[num_apart++], most_cached);
      const double misses =
          ExpectedMisses(uses[i], segment, static_cast<uint64_t>(num_cached),
                         options.sparsity.selector == Selector::kMagnitude);
      meanwhile_ns += uses[i].kept * stride / dram_bytes_per_ns;
      read_ns += kDoubt * ReadNs(segment, misses, uses[i].run_length, cost);
    }
    wait_ns += std::max(0.0, read_ns - meanwhile_ns);
    device_ns += read_ns;
  }
  const double processors_ns = compute_ns + wait_ns;
  return std::max(device_ns, processors_ns) +
         kContention * std::min(device_ns, processors_ns);
}

// How each layer is used; nothing where it is not known of all.
std::optional<std::vector<NeuronUse>> UsesOf(const ModelFile& model,
                                             const SparsityOptions& options,
                                             const NeuronFrequency& frequency) {
  std::vector<NeuronUse> uses;
  for (uint32_t i = 0; i < model.config().num_layers(); ++i) {
    const auto use = UseOf(model, options, i, frequency.of_layer(i));
    if (!use) return std::nullopt;
    uses.push_back(*use);
  }
  return uses;
}

}  // namespace

Result<MemoryPlan> ChooseStreamedLayers(
    const ModelFile& model, const PlanOptions& options,
    const NeuronFrequency& frequency,
    const std::function<Result<MemoryPlan>(const std::vector<bool>& streamed)>&
        make_plan) {
  const ModelConfig& config = model.config();
  const uint32_t num_layers = config.num_layers();
  const auto uses = UsesOf(model, options.sparsity, frequency);
  if (!uses) {
    // Both are made, so that what is feasible does not depend on the budget.
    Result<MemoryPlan> single = make_plan(std::vector<bool>(num_layers, false));
    Result<MemoryPlan> all = make_plan(std::vector<bool>(num_layers, true));
    const bool are_few = config.activation == "relu";
    if (!all || (single && are_few && all->streamed_bytes_per_token > 0)) {
      return single;
    }
    return all;
  }
  std::vector<uint32_t> by_use(num_layers);
  std::iota(by_use.begin(), by_use.end(), 0u);
  const auto part_used = [&](uint32_t layer) {
    return (*uses)[layer].kept / config.layers[layer].ffn_dim;
  };
  std::ranges::stable_sort(by_use, std::greater<>(), part_used);

  // Of those that take equally long the last, which streams most.
  std::optional<MemoryPlan> chosen;
  double least_ns = std::numeric_limits<double>::infinity();
  Status last_error;
  for (uint32_t part = 0; part <= kParts; ++part) {
    std::vector<bool> streamed(num_layers, false);
    for (uint32_t i = 0; i < part * num_layers / kParts; ++i) {
      streamed[by_use[i]] = true;
    }
    Result<MemoryPlan> plan = make_plan(streamed);
    if (!plan) {
      last_error = plan.error();
      continue;
    }
    const double token_ns = TokenNs(model, options, *plan, *uses);
    if (!chosen || token_ns <= least_ns) {
      chosen = std::move(*plan);
      least_ns = token_ns;
    }
  }
  if (!chosen) return Unexpected(std::move(last_error));
  return std::move(*chosen);
}

}  // namespace flashelm
