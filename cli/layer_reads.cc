#include "cli/layer_reads.h"

#include <utility>

namespace flashelm::cli {

Json EmptyLayers() {
  Json layers;
  for (const char* key :
       {"weight_bytes", "streamed_bytes_per_token", "fresh_bytes_per_token",
        "cache_hit_rate", "head_streamed_bytes_per_token"}) {
    layers[key] = nullptr;
  }
  return layers;
}

LayerReads::LayerReads(const Engine& engine)
    : engine_(engine), layers_(engine.config().num_layers()) {}

void LayerReads::Begin() { Add(-1); }

void LayerReads::End() { Add(1); }

void LayerReads::Add(int sign) {
  const BundleStore* const bundles = engine_.bundles();
  if (bundles == nullptr) return;
  // The store knows the layers that it reads for by their order; where there
  // are no bundles, each is two: up rows and down columns.
  const uint32_t num_parts = engine_.model().has_rows() ? 2 : 1;
  const auto factor = static_cast<uint64_t>(sign);
  uint32_t index = 0;
  for (uint32_t i = 0; i < layers_.size(); ++i) {
    if (engine_.plan().streams_neurons(i)) continue;
    for (uint32_t part = 0; part < num_parts; ++part) {
      const BundleStats stats = bundles->layer_stats(index++);
      // Modulo 2^64, so that a sum of differences is right in the end.
      layers_[i].num_wanted += factor * stats.num_wanted;
      layers_[i].num_hits += factor * stats.num_hits;
      layers_[i].fresh_bytes += factor * stats.fresh_bytes;
    }
  }
}

Json LayerReads::ToJson(uint64_t num_passes) const {
  const size_t num_layers = layers_.size();
  const std::vector<Segment>& segments =
      engine_.model().weight_file().segments();
  const ResidencyPlan& residency = engine_.plan().residency;
  std::vector<uint64_t> weights(num_layers);
  std::vector<uint64_t> streamed(num_layers);
  for (const Segment& segment : segments) {
    // What chooses neurons is no weight of the model.
    if (!segment.layer || segment.kind == SegmentKind::kPredictor) continue;
    weights[*segment.layer] += segment.num_bytes();
  }
  const auto streamed_bytes = [&](uint32_t index) {
    return (segments[index].num_records - residency.resident_records[index]) *
           segments[index].stride_bytes;
  };
  for (const uint32_t index : residency.sweep) {
    if (segments[index].layer) {
      streamed[*segments[index].layer] += streamed_bytes(index);
    }
  }

  Json layers = EmptyLayers();
  layers["weight_bytes"] = weights;
  // What is read of mapped weights, and when, is up to the system.
  if (engine_.plan_options().io == IoBackend::kMmap) return layers;
  layers["streamed_bytes_per_token"] = streamed;
  layers["head_streamed_bytes_per_token"] = streamed_bytes(residency.head);
  if (!engine_.plan_options().sparsity.is_on() || num_passes == 0) {
    return layers;
  }
  Json fresh = Json::array();
  Json hit_rate = Json::array();
  for (uint32_t i = 0; i < num_layers; ++i) {
    const Sums& sums = layers_[i];
    const bool is_known = !engine_.plan().streams_neurons(i);
    fresh.push_back(is_known ? Json(static_cast<double>(sums.fresh_bytes) /
                                    static_cast<double>(num_passes))
                             : Json(nullptr));
    hit_rate.push_back(sums.num_wanted > 0
                           ? Json(static_cast<double>(sums.num_hits) /
                                  static_cast<double>(sums.num_wanted))
                           : Json(nullptr));
  }
  layers["fresh_bytes_per_token"] = std::move(fresh);
  layers["cache_hit_rate"] = std::move(hit_rate);
  return layers;
}

}  // namespace flashelm::cli
