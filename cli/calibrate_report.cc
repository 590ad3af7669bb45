#include "cli/calibrate_report.h"

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

namespace flashelm::cli {
namespace {

double Share(uint64_t part, uint64_t whole) {
  return static_cast<double>(part) / static_cast<double>(whole);
}

// Of all neurons of all layers.
CalibratedLayer Total(const std::vector<CalibratedLayer>& layers) {
  CalibratedLayer total;
  double active = 0;
  double kept = 0;
  double found = 0;
  double runs_before = 0;
  double runs_after = 0;
  const auto runs = [](double num_active, double length) {
    return length > 0 ? num_active / length : 0;
  };
  for (const CalibratedLayer& layer : layers) {
    const PredictorQuality& quality = layer.quality;
    const double neurons = layer.num_neurons;
    active += neurons * quality.active_fraction;
    kept += neurons * quality.kept_fraction;
    found += neurons * quality.active_fraction * quality.recall;
    const double all = neurons * layer.activity.active_fraction;
    total.activity.active_fraction += all;
    runs_before += runs(all, layer.activity.run_length_before);
    runs_after += runs(all, layer.activity.run_length_after);
    total.num_neurons += layer.num_neurons;
    total.selector_bytes += layer.selector_bytes;
    total.bf16_ffn_bytes += layer.bf16_ffn_bytes;
  }
  total.quality.active_fraction = active / total.num_neurons;
  total.quality.kept_fraction = kept / total.num_neurons;
  total.quality.recall = active > 0 ? found / active : 1;
  total.quality.precision = kept > 0 ? found / kept : 1;
  total.activity.run_length_before =
      runs(total.activity.active_fraction, runs_before);
  total.activity.run_length_after =
      runs(total.activity.active_fraction, runs_after);
  total.activity.active_fraction /= total.num_neurons;
  return total;
}

void PrintRow(const std::string& name, const CalibratedLayer& layer,
              const std::string& rank) {
  const PredictorQuality& quality = layer.quality;
  std::printf(
      "| %s | %u | %.1f %% | %.1f %% | %.3f | %.3f | %s%llu | %.2f %% | %.2f | "
      "%.2f |\n",
      name.c_str(), layer.num_neurons, 100 * quality.active_fraction,
      100 * quality.kept_fraction, quality.recall, quality.precision,
      rank.c_str(), static_cast<unsigned long long>(layer.selector_bytes),
      100 * Share(layer.selector_bytes, layer.bf16_ffn_bytes),
      layer.activity.run_length_before, layer.activity.run_length_after);
}

// A sample of tokens is not sure of more digits.
double Rounded(double value) { return std::round(value * 1e5) / 1e5; }

}  // namespace

void PrintLayers(const std::vector<CalibratedLayer>& layers) {
  const bool has_ranks = layers[0].rank > 0;
  std::printf(
      "| layer | neurons | active | kept | recall | precision | %sbytes | of "
      "bf16 FFN | run before | run after |\n",
      has_ranks ? "rank | " : "");
  std::printf("|---:|---:|---:|---:|---:|---:|%s---:|---:|---:|---:|\n",
              has_ranks ? "---:|" : "");
  for (size_t i = 0; i < layers.size(); ++i) {
    PrintRow(std::to_string(i), layers[i],
             has_ranks ? std::to_string(layers[i].rank) + " | " : "");
  }
  PrintRow("all", Total(layers), has_ranks ? "| " : "");
}

nlohmann::json LayersToJson(const std::vector<CalibratedLayer>& layers) {
  auto json = nlohmann::json::object();
  const bool has_ranks = layers[0].rank > 0;
  for (const CalibratedLayer& layer : layers) {
    const PredictorQuality& quality = layer.quality;
    json["neurons"].push_back(layer.num_neurons);
    json["active_fraction"].push_back(Rounded(quality.active_fraction));
    json["kept_fraction"].push_back(Rounded(quality.kept_fraction));
    json["recall"].push_back(Rounded(quality.recall));
    json["precision"].push_back(Rounded(quality.precision));
    if (has_ranks) json["rank"].push_back(layer.rank);
    json["selector_bytes"].push_back(layer.selector_bytes);
    json["bf16_ffn_bytes"].push_back(layer.bf16_ffn_bytes);
    json["run_length_before"].push_back(
        Rounded(layer.activity.run_length_before));
    json["run_length_after"].push_back(
        Rounded(layer.activity.run_length_after));
    auto fresh = nlohmann::json::array();
    for (const double part : layer.activity.fresh_fractions) {
      fresh.push_back(Rounded(part));
    }
    json["fresh_fractions"].push_back(std::move(fresh));
  }
  return json;
}

}  // namespace flashelm::cli
