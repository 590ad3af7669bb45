#include "core/layer_samples.h"

#include <algorithm>

#include "core/base/checked_math.h"

namespace flashelm {

LayerSamples::LayerSamples(const ActivationSpool& spool, uint32_t layer,
                           std::span<const uint32_t> order)
    : spool_(spool),
      layer_(layer),
      order_(order),
      model_dim_(spool.config().model_dim),
      ffn_dim_(spool.config().layers[layer].ffn_dim),
      unordered_(size_t{kRun} * ffn_dim_) {}

uint32_t LayerSamples::num_runs() const {
  return static_cast<uint32_t>(CeilDiv(spool_.num_samples(), kRun));
}

uint32_t LayerSamples::RunSamples(uint32_t run) const {
  return std::min(kRun, spool_.num_samples() - run * kRun);
}

bool LayerSamples::IsMeasured(uint32_t run) const {
  return run % kMeasuredEvery == std::min(kMeasuredEvery, num_runs()) - 1;
}

Status LayerSamples::Read(uint32_t first, uint32_t count, float* x,
                          uint8_t* labels) {
  if (order_.empty()) return spool_.Read(layer_, first, count, x, labels);
  FLASHELM_RETURN_IF_ERROR(
      spool_.Read(layer_, first, count, x, unordered_.data()));
  for (size_t t = 0; t < count; ++t) {
    const uint8_t* from = unordered_.data() + t * ffn_dim_;
    uint8_t* to = labels + t * ffn_dim_;
    for (size_t i = 0; i < ffn_dim_; ++i) to[i] = from[order_[i]];
  }
  return OkStatus();
}

Status TrainingSource::Rewind() {
  run_ = 0;
  done_in_run_ = 0;
  return OkStatus();
}

Result<size_t> TrainingSource::Next(size_t max_samples, float* x,
                                    uint8_t* labels) {
  size_t found = 0;
  while (found < max_samples && run_ < samples_.num_runs()) {
    const uint32_t left = samples_.IsMeasured(run_)
                              ? 0
                              : samples_.RunSamples(run_) - done_in_run_;
    const auto count =
        static_cast<uint32_t>(std::min<size_t>(left, max_samples - found));
    if (count > 0) {
      FLASHELM_RETURN_IF_ERROR(
          samples_.Read(run_ * LayerSamples::kRun + done_in_run_, count,
                        x + found * samples_.model_dim(),
                        labels + found * samples_.ffn_dim()));
    }
    found += count;
    done_in_run_ += count;
    if (count == left) {
      ++run_;
      done_in_run_ = 0;
    }
  }
  return found;
}

}  // namespace flashelm
