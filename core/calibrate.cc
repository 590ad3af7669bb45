#include "core/calibrate.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "core/base/checked_math.h"
#include "predictor/neuron_order.h"

namespace flashelm {
namespace {

// Active neurons per run of neighbours, over all tokens of the sample.
// `neuron_at` gives the neuron at a place.
template <class NeuronAt>
double RunLength(std::span<const uint64_t> samples, size_t num_neurons,
                 const NeuronAt& neuron_at) {
  constexpr size_t kWords = ActivationRecorder::kSampleWords;
  uint64_t num_active = 0;
  uint64_t num_runs = 0;
  for (size_t w = 0; w < kWords; ++w) {
    uint64_t before = 0;
    for (size_t place = 0; place < num_neurons; ++place) {
      const uint64_t bits = samples[neuron_at(place) * kWords + w];
      num_active += static_cast<uint64_t>(std::popcount(bits));
      num_runs += static_cast<uint64_t>(std::popcount(bits & ~before));
      before = bits;
    }
  }
  return num_runs == 0
             ? 0
             : static_cast<double>(num_active) / static_cast<double>(num_runs);
}

// Tells several.
class FfnObservers final : public FfnObserver {
 public:
  explicit FfnObservers(std::span<FfnObserver* const> observers)
      : observers_(observers) {}

  void BeginBatch(size_t num_tokens) override {
    for (FfnObserver* observer : observers_) observer->BeginBatch(num_tokens);
  }
  void OnInputs(uint32_t layer, size_t num_tokens, const float* inputs,
                size_t stride) override {
    for (FfnObserver* observer : observers_) {
      observer->OnInputs(layer, num_tokens, inputs, stride);
    }
  }
  void OnGates(uint32_t layer, uint32_t first, size_t count, size_t num_tokens,
               const float* gates, size_t stride) override {
    for (FfnObserver* observer : observers_) {
      observer->OnGates(layer, first, count, num_tokens, gates, stride);
    }
  }
  Status EndLayer(uint32_t layer) override {
    for (FfnObserver* observer : observers_) {
      FLASHELM_RETURN_IF_ERROR(observer->EndLayer(layer));
    }
    return OkStatus();
  }

 private:
  const std::span<FfnObserver* const> observers_;
};

}  // namespace

uint64_t NumPositions(uint64_t num_tokens, uint32_t n_ctx) {
  return num_tokens + CeilDiv(num_tokens, n_ctx - 1);
}

Status RecordActivations(Session& session, std::span<const TokenId> tokens,
                         TokenId bos_id, uint32_t n_ctx,
                         const CancelToken& cancel,
                         const std::function<void(uint64_t)>& progress,
                         std::span<FfnObserver* const> observers) {
  if (tokens.empty()) return InvalidArgument("the text has no tokens");
  if (n_ctx < 2 || n_ctx > session.context()) {
    return InvalidArgument("windows of ", n_ctx, " positions, expected 2 to ",
                           session.context());
  }
  FfnObservers all(observers);
  session.set_observer(&all);
  const size_t window = n_ctx - 1;
  std::vector<TokenId> inputs;
  Status status;
  for (size_t first = 0; first < tokens.size() && status.ok();
       first += window) {
    const auto piece =
        tokens.subspan(first, std::min(window, tokens.size() - first));
    inputs.assign(1, bos_id);
    inputs.insert(inputs.end(), piece.begin(), piece.end());
    status = session.Truncate(0);
    if (status.ok()) status = session.Run(inputs, {}, cancel);
    if (status.ok() && progress) progress(first + piece.size());
  }
  session.set_observer(nullptr);
  return status;
}

std::vector<uint32_t> OrderNeurons(const ActivationRecorder& recorder,
                                   uint32_t layer, NeuronOrder order) {
  switch (order) {
    case NeuronOrder::kFile:
      break;
    case NeuronOrder::kFrequency:
      return OrderByFrequency(recorder.counts(layer));
    case NeuronOrder::kCoActivation:
      return OrderByCoActivation(recorder.samples(layer),
                                 ActivationRecorder::kSampleWords);
  }
  return {};
}

uint64_t OrderBytes(const ModelConfig& config) {
  // A neuron's size, and a list that grows: its old half and its new whole.
  constexpr uint64_t kScratchNumbers = 1 + 3;
  uint64_t most = 0;
  uint64_t all = 0;
  for (const LayerConfig& layer : config.layers) {
    most = std::max<uint64_t>(most, layer.ffn_dim);
    all += layer.ffn_dim;
  }
  return (kScratchNumbers * most + all) * sizeof(uint32_t);
}

LayerActivity ActivityOf(const ActivationRecorder& recorder, uint32_t layer,
                         std::span<const uint32_t> order) {
  const auto counts = recorder.counts(layer);
  const auto samples = recorder.samples(layer);
  LayerActivity activity;
  const auto num_active =
      std::accumulate(counts.begin(), counts.end(), uint64_t{0});
  activity.active_fraction =
      static_cast<double>(num_active) /
      (static_cast<double>(counts.size()) *
       static_cast<double>(std::max<uint64_t>(1, recorder.num_tokens())));
  activity.run_length_before =
      RunLength(samples, counts.size(), [](size_t place) { return place; });
  activity.run_length_after =
      order.empty() ? activity.run_length_before
                    : RunLength(samples, counts.size(),
                                [&](size_t place) { return order[place]; });
  for (size_t k = 1; k <= ActivationRecorder::kMostWindow; ++k) {
    activity.fresh_fractions.push_back(recorder.fresh_fraction(layer, k));
  }
  return activity;
}

}  // namespace flashelm
