#include "tests/core/predicted_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "core/convert/calibrated_file.h"
#include "predictor/low_bit_gate.h"
#include "predictor/low_rank.h"

namespace flashelm::test {
namespace {

// The first half of proj_1.
std::vector<float> GatesOf(const std::vector<RawTensor>& tensors,
                           uint32_t layer) {
  const std::string name =
      "transformer.layers." + std::to_string(layer) + ".ffn.proj_1.weight";
  const auto tensor =
      std::find_if(tensors.begin(), tensors.end(),
                   [&](const RawTensor& t) { return t.name == name; });
  EXPECT_NE(tensor, tensors.end());
  std::vector<float> gates(tensor->bytes.size() / 2 / sizeof(float));
  std::memcpy(gates.data(), tensor->bytes.data(), gates.size() * sizeof(float));
  return gates;
}

std::vector<std::byte> LowBitOf(const LayerConfig& layer, uint32_t model_dim,
                                float threshold,
                                const std::vector<float>& gates) {
  const LowBitGate::Shape shape = {2, layer.ffn_dim, model_dim};
  std::vector<std::byte> bytes(LowBitGate::NumBytes(shape));
  LowBitGate::Quantize(shape, gates.data(), 0, layer.ffn_dim, bytes);
  return StorePredictor(shape, threshold, bytes);
}

std::vector<std::byte> RandomLowRank(const LayerConfig& layer,
                                     uint32_t model_dim, float threshold,
                                     uint32_t seed) {
  const LowRankPredictor::Shape shape = {WeightType::kBf16, layer.ffn_dim,
                                         model_dim, 24};
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const auto values = [&](size_t count) {
    std::vector<float> result(count);
    for (float& value : result) value = normal(random);
    return result;
  };
  const auto a = values(shape.rank * model_dim);
  const auto b = values(size_t{layer.ffn_dim} * shape.rank);
  const auto bias = values(layer.ffn_dim);
  return StorePredictor(
      shape, threshold,
      LowRankPredictor::Serialize(shape, a.data(), b.data(), bias.data()));
}

}  // namespace

CheckpointOptions PredictedModel::Checkpoint(const std::string& activation) {
  CheckpointOptions options;
  options.num_layers = 2;
  options.activation = activation;
  return options;
}

PredictedModel::PredictedModel(const PredictedModelOptions& options)
    : path_(directory_.File("predicted.felm")) {
  const CheckpointOptions checkpoint = Checkpoint(options.activation);
  model_ = std::make_unique<ConvertedModel>(checkpoint, options.weights);
  const auto in = ModelFile::Open(model_->path());
  EXPECT_TRUE(in);
  const ModelConfig& config = in->config();
  const std::vector<RawTensor> tensors = MakeTensors(checkpoint);
  for (uint32_t i = 0; options.has_predictors && i < config.num_layers(); ++i) {
    predictors_.push_back(options.kind == PredictorKind::kLowBit
                              ? LowBitOf(config.layers[i], config.model_dim,
                                         options.threshold, GatesOf(tensors, i))
                              : RandomLowRank(config.layers[i],
                                              config.model_dim,
                                              options.threshold, i));
  }
  CalibratedFileOptions file;
  file.split_gate = options.split_gate;
  file.predictors = predictors_;
  const auto written = WriteCalibratedFile(*in, path_, file);
  EXPECT_TRUE(written) << written.error().message();
}

}  // namespace flashelm::test
