#include "core/calibrate.h"

#include <algorithm>
#include <bit>
#include <numeric>

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

}  // namespace

Status RecordActivations(Session& session, std::span<const TokenId> tokens,
                         TokenId bos_id, uint32_t n_ctx,
                         const CancelToken& cancel,
                         const std::function<void(uint64_t)>& progress,
                         ActivationRecorder& recorder) {
  if (tokens.empty()) return InvalidArgument("the text has no tokens");
  if (n_ctx < 2 || n_ctx > session.context()) {
    return InvalidArgument("windows of ", n_ctx, " positions, expected 2 to ",
                           session.context());
  }
  session.set_recorder(&recorder);
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
  session.set_recorder(nullptr);
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
  return activity;
}

}  // namespace flashelm
