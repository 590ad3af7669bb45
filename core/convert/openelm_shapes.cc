#include "core/convert/openelm_shapes.h"

#include <algorithm>

#include "core/convert/hf_config.h"

namespace flashelm {
namespace {

// 0.5 to 4.0 over the layers, rounded to hundredths as the files have them.
// (Halves would round up; none of the published shapes has one.)
Json FfnMultipliers(uint32_t num_layers) {
  const uint64_t steps = std::max(1u, num_layers - 1);
  Json out = Json::array();
  for (uint64_t i = 0; i < num_layers; ++i) {
    const uint64_t hundredths =
        (2 * (50 * steps + 350 * i) + steps) / (2 * steps);
    out.push_back(static_cast<double>(hundredths) / 100);
  }
  return out;
}

}  // namespace

Result<OpenElmShape> PublishedShape(std::string_view name) {
  OpenElmShape shape;
  if (name == "270M") {
    shape.model_dim = 1280;
    shape.num_layers = 16;
  } else if (name == "450M") {
    shape.model_dim = 1536;
    shape.num_layers = 20;
  } else if (name == "1.1B") {
    shape.model_dim = 2048;
    shape.num_layers = 28;
  } else if (name == "3B") {
    shape.model_dim = 3072;
    shape.num_layers = 36;
    shape.head_dim = 128;
  } else {
    return InvalidArgument("shape \"", name,
                           "\", expected 270M, 450M, 1.1B or 3B");
  }
  return shape;
}

Result<Json> MakeHfConfig(const OpenElmShape& shape,
                          std::string_view activation,
                          std::string_view torch_dtype) {
  Json json = {{"activation_fn_name", activation},
               {"architectures", {"OpenELMForCausalLM"}},
               {"bos_token_id", 1},
               {"eos_token_id", 2},
               {"ffn_dim_divisor", shape.ffn_dim_divisor},
               {"ffn_multipliers", Json::array()},
               {"ffn_with_glu", true},
               {"head_dim", shape.head_dim},
               {"initializer_range", 0.02},
               {"max_context_length", shape.max_context},
               {"model_dim", shape.model_dim},
               {"model_type", "openelm"},
               {"normalization_layer_name", "rms_norm"},
               {"normalize_qk_projections", true},
               {"num_gqa_groups", shape.num_gqa_groups},
               {"num_transformer_layers", shape.num_layers},
               {"qkv_multipliers", {0.5, 1.0}},
               {"rope_freq_constant", 10000},
               {"rope_max_length", 2 * uint64_t{shape.max_context}},
               {"share_input_output_layers", true},
               {"torch_dtype", torch_dtype},
               {"use_cache", true},
               {"vocab_size", shape.vocab_size}};
  constexpr uint32_t kMaxLayers = 1024;  // Of CheckConfig().
  if (shape.num_layers >= 1 && shape.num_layers <= kMaxLayers) {
    json["ffn_multipliers"] = FfnMultipliers(shape.num_layers);
  }
  const auto config = ParseHfConfig(json.dump(), "shape");
  if (!config) return InvalidArgument(config.error().message());
  // Stated in the files, although they follow from "qkv_multipliers".
  json["num_query_heads"] = Json::array();
  json["num_kv_heads"] = Json::array();
  for (const LayerConfig& layer : config->layers) {
    json["num_query_heads"].push_back(layer.num_heads);
    json["num_kv_heads"].push_back(layer.num_kv_heads);
  }
  return json;
}

}  // namespace flashelm
