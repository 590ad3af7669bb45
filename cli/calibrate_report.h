// What calibrate found, for people and for the file.
#ifndef FLASHELM_CLI_CALIBRATE_REPORT_H_
#define FLASHELM_CLI_CALIBRATE_REPORT_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "core/calibrate.h"
#include "core/model_config.h"
#include "core/train_predictor.h"

namespace flashelm::cli {

struct CalibratedLayer {
  uint32_t num_neurons = 0;
  LayerActivity activity;
  PredictorQuality quality;
  uint64_t selector_bytes = 0;  // Of the predictor, or of all gate rows.
  uint64_t bf16_ffn_bytes = 0;
  uint32_t rank = 0;  // Of a low-rank predictor.
};

// A Markdown table on stdout, with a row for all layers.
void PrintLayers(const std::vector<CalibratedLayer>& layers);

// The same, a list for each column.
nlohmann::json LayersToJson(const std::vector<CalibratedLayer>& layers);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_CALIBRATE_REPORT_H_
