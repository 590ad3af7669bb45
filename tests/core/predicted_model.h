// Small random models in files with predictors.
#ifndef FLASHELM_TESTS_CORE_PREDICTED_MODEL_H_
#define FLASHELM_TESTS_CORE_PREDICTED_MODEL_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "core/model_file.h"
#include "predictor/predictor_file.h"
#include "tests/core/checkpoint_builder.h"
#include "tests/core/test_model.h"
#include "tests/temp_directory.h"

namespace flashelm::test {

struct PredictedModelOptions {
  std::string activation = "relu";
  Encoding weights = Encoding::kBf16;
  PredictorKind kind = PredictorKind::kLowBit;
  float threshold = 0;
  bool has_predictors = true;
  bool split_gate = false;
};

// The same weights for all options but activation and encoding. Low-bit
// predictors are of the gates, low-rank ones are random.
class PredictedModel {
 public:
  explicit PredictedModel(const PredictedModelOptions& options);

  const std::string& path() const { return path_; }
  const std::string& uncalibrated_path() const { return model_->path(); }
  // As in the file.
  const std::vector<std::vector<std::byte>>& predictors() const {
    return predictors_;
  }
  static CheckpointOptions Checkpoint(const std::string& activation);

 private:
  std::unique_ptr<ConvertedModel> model_;
  TempDirectory directory_;
  std::string path_;
  std::vector<std::vector<std::byte>> predictors_;
};

}  // namespace flashelm::test

#endif  // FLASHELM_TESTS_CORE_PREDICTED_MODEL_H_
