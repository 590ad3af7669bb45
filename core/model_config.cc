#include "core/model_config.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

namespace flashelm {
namespace {

struct Range {
  const char* key;
  uint64_t value;
  uint64_t least;
  uint64_t most;
};

Status CheckRanges(std::initializer_list<Range> ranges, std::string_view name) {
  for (const Range& range : ranges) {
    if (range.value < range.least || range.value > range.most) {
      return DataLoss(name, ": ", range.key, " is ", range.value, ", expected ",
                      range.least, " to ", range.most);
    }
  }
  return OkStatus();
}

}  // namespace

uint64_t ModelConfig::max_query_dim() const {
  uint64_t most = 0;
  for (const auto& layer : layers) most = std::max(most, query_dim(layer));
  return most;
}

uint64_t ModelConfig::num_params() const {
  uint64_t total = uint64_t{vocab_size} * model_dim + model_dim;
  for (const LayerConfig& layer : layers) {
    const uint64_t norms = 2 * uint64_t{model_dim} + 2 * uint64_t{head_dim};
    total += (qkv_dim(layer) + query_dim(layer) + 3 * uint64_t{layer.ffn_dim}) *
                 model_dim +
             norms;
  }
  return total;
}

Status CheckConfig(const ModelConfig& config, std::string_view name) {
  FLASHELM_RETURN_IF_ERROR(
      CheckRanges({{"vocab_size", config.vocab_size, 1, 1u << 20},
                   {"model_dim", config.model_dim, 2, 1u << 16},
                   {"head_dim", config.head_dim, 2, 1024},
                   {"num_gqa_groups", config.num_gqa_groups, 1, 256},
                   {"the context length", config.max_context, 1, 1u << 20},
                   {"num_transformer_layers", config.layers.size(), 1, 1024}},
                  name));
  if (config.head_dim % 2 != 0) {
    return DataLoss(name, ": head_dim is ", config.head_dim,
                    ", expected an even number (rotary pairs)");
  }
  if (!std::isfinite(config.rope_theta) || config.rope_theta < 1.0f) {
    return DataLoss(name, ": the rotary base is ", config.rope_theta,
                    ", expected a number of at least 1");
  }
  if (config.activation != "swish" && config.activation != "relu") {
    return Unimplemented(name, ": activation \"", config.activation,
                         "\", known are \"swish\" and \"relu\"");
  }
  if (config.bos_id >= config.vocab_size ||
      config.eos_id >= config.vocab_size) {
    return DataLoss(name, ": bos ", config.bos_id, " and eos ", config.eos_id,
                    " with a vocabulary of ", config.vocab_size);
  }
  for (size_t i = 0; i < config.layers.size(); ++i) {
    const LayerConfig& layer = config.layers[i];
    const std::string where = StatusMessage::Join(name, ": layer ", i);
    FLASHELM_RETURN_IF_ERROR(
        CheckRanges({{"query heads", layer.num_heads, 1, 1024},
                     {"kv heads", layer.num_kv_heads, 1, 1024},
                     {"ffn_dim", layer.ffn_dim, 1, 1u << 20}},
                    where));
    if (layer.num_heads != layer.num_kv_heads * config.num_gqa_groups) {
      return DataLoss(where, ": ", layer.num_heads, " query heads and ",
                      layer.num_kv_heads, " kv heads, expected ",
                      config.num_gqa_groups, " query heads per kv head");
    }
  }
  return OkStatus();
}

Json ConfigToJson(const ModelConfig& config) {
  Json layers = Json::array();
  for (const LayerConfig& layer : config.layers) {
    layers.push_back({{"num_heads", layer.num_heads},
                      {"num_kv_heads", layer.num_kv_heads},
                      {"ffn_dim", layer.ffn_dim}});
  }
  return {{"architecture", "openelm"},
          {"vocab_size", config.vocab_size},
          {"model_dim", config.model_dim},
          {"head_dim", config.head_dim},
          {"num_gqa_groups", config.num_gqa_groups},
          {"max_context", config.max_context},
          {"rope_theta", config.rope_theta},
          {"activation", config.activation},
          {"bos_id", config.bos_id},
          {"eos_id", config.eos_id},
          {"layers", std::move(layers)}};
}

Result<ModelConfig> ConfigFromJson(const Json& json, std::string_view name) {
  ModelConfig config;
  FLASHELM_ASSIGN_OR_RETURN(const std::string_view architecture,
                            GetString(json, "architecture", name));
  if (architecture != "openelm") {
    return Unimplemented(name, ": architecture \"", architecture,
                         "\", this program knows \"openelm\"");
  }
  struct Field {
    const char* key;
    uint32_t* target;
  };
  for (const Field& field :
       {Field{"vocab_size", &config.vocab_size},
        Field{"model_dim", &config.model_dim},
        Field{"head_dim", &config.head_dim},
        Field{"num_gqa_groups", &config.num_gqa_groups},
        Field{"max_context", &config.max_context},
        Field{"bos_id", &config.bos_id}, Field{"eos_id", &config.eos_id}}) {
    FLASHELM_ASSIGN_OR_RETURN(*field.target, GetUint32(json, field.key, name));
  }
  const auto theta = json.find("rope_theta");
  if (theta == json.end() || !theta->is_number()) {
    return DataLoss(name, ": \"rope_theta\" is missing or not a number");
  }
  // Narrowing a number beyond float's range is undefined.
  const double wide_theta = theta->get<double>();
  if (!(wide_theta >= 1 && wide_theta <= 1e30)) {
    return DataLoss(name, ": \"rope_theta\" is ", wide_theta,
                    ", expected 1 to 1e30");
  }
  config.rope_theta = static_cast<float>(wide_theta);
  FLASHELM_ASSIGN_OR_RETURN(const std::string_view activation,
                            GetString(json, "activation", name));
  config.activation = std::string(activation);
  FLASHELM_ASSIGN_OR_RETURN(const Json* layers, GetArray(json, "layers", name));
  for (const Json& layer_json : *layers) {
    const std::string where =
        StatusMessage::Join(name, ": layer ", config.layers.size());
    LayerConfig layer;
    FLASHELM_ASSIGN_OR_RETURN(layer.num_heads,
                              GetUint32(layer_json, "num_heads", where));
    FLASHELM_ASSIGN_OR_RETURN(layer.num_kv_heads,
                              GetUint32(layer_json, "num_kv_heads", where));
    FLASHELM_ASSIGN_OR_RETURN(layer.ffn_dim,
                              GetUint32(layer_json, "ffn_dim", where));
    config.layers.push_back(layer);
  }
  FLASHELM_RETURN_IF_ERROR(CheckConfig(config, name));
  return config;
}

}  // namespace flashelm
