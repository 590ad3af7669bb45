#include "core/convert/hf_config.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "storage/json.h"

namespace flashelm {
namespace {

constexpr double kMaxMultiplier = 256.0;
constexpr double kMaxRopeTheta = 1e9;

Status CheckRange(uint64_t value, uint64_t least, uint64_t most,
                  std::string_view what, std::string_view name) {
  if (value < least || value > most) {
    return DataLoss(name, ": ", what, " is ", value, ", expected ", least,
                    " to ", most);
  }
  return OkStatus();
}

Result<uint32_t> GetInRange(const Json& json, const char* key, uint32_t least,
                            uint32_t most, std::string_view name) {
  FLASHELM_ASSIGN_OR_RETURN(const uint64_t value, GetUint(json, key, name));
  FLASHELM_RETURN_IF_ERROR(CheckRange(
      value, least, most, StatusMessage::Join("\"", key, "\""), name));
  return static_cast<uint32_t>(value);
}

Result<const Json*> GetAny(const Json& json, const char* key,
                           std::string_view name) {
  const auto it = json.find(key);
  if (it == json.end()) return DataLoss(name, ": key \"", key, "\" is missing");
  return &*it;
}

// This engine computes one kind of model; others are refused by key and value.
Status ExpectTrue(const Json& json, const char* key, std::string_view name) {
  FLASHELM_ASSIGN_OR_RETURN(const Json* value, GetAny(json, key, name));
  if (!value->is_boolean()) {
    return DataLoss(name, ": \"", key, "\" is ", Describe(*value),
                    ", expected true or false");
  }
  if (!value->get<bool>()) {
    return Unimplemented(name, ": \"", key, "\" is false, known is true");
  }
  return OkStatus();
}

Status ExpectText(const Json& json, const char* key, std::string_view expected,
                  std::string_view name) {
  FLASHELM_ASSIGN_OR_RETURN(const std::string_view value,
                            GetString(json, key, name));
  if (value != expected) {
    return Unimplemented(name, ": \"", key, "\" is ", Describe(Json(value)),
                         ", known is \"", expected, "\"");
  }
  return OkStatus();
}

// A number from a file, in whole millionths.
Result<uint64_t> ParseMultiplier(const Json& value, const char* key,
                                 std::string_view name) {
  const double number = value.is_number() ? value.get<double>() : NAN;
  // Written so that NaN fails.
  if (!(number >= 0.0 && number <= kMaxMultiplier)) {
    return DataLoss(name, ": \"", key, "\" has ", Describe(value),
                    ", expected a number from 0 to ", kMaxMultiplier);
  }
  return static_cast<uint64_t>(
      std::llround(number * static_cast<double>(kMillionths)));
}

// The `i`th of `count` steps from `first` to `last`, rounded to hundredths,
// ties to even. All in whole numbers below 2^40.
uint64_t Interpolate(uint64_t first, uint64_t last, uint64_t i,
                     uint64_t count) {
  constexpr uint64_t kHundredth = kMillionths / 100;
  if (count == 1) i = 0;
  const uint64_t steps = count == 1 ? 1 : count - 1;
  const uint64_t value = first * (steps - i) + last * i;
  const uint64_t unit = steps * kHundredth;
  uint64_t rounded = value / unit;
  const uint64_t rest = value % unit;
  if (2 * rest > unit || (2 * rest == unit && rounded % 2 == 1)) ++rounded;
  return rounded * kHundredth;
}

// One multiplier per layer, in millionths.
Result<std::vector<uint64_t>> GetMultipliers(const Json& json, const char* key,
                                             size_t num_layers,
                                             std::string_view name) {
  FLASHELM_ASSIGN_OR_RETURN(const Json* value, GetAny(json, key, name));
  if (!value->is_array()) {
    FLASHELM_ASSIGN_OR_RETURN(const uint64_t multiplier,
                              ParseMultiplier(*value, key, name));
    return std::vector<uint64_t>(num_layers, multiplier);
  }
  if (value->size() != num_layers && value->size() != 2) {
    return DataLoss(name, ": \"", key, "\" has ", value->size(),
                    " entries, expected ", num_layers,
                    " (one per layer) or 2 (first and last)");
  }
  std::vector<uint64_t> out;
  for (const Json& entry : *value) {
    FLASHELM_ASSIGN_OR_RETURN(const uint64_t multiplier,
                              ParseMultiplier(entry, key, name));
    out.push_back(multiplier);
  }
  if (out.size() == num_layers) return out;
  const uint64_t first = out[0];
  const uint64_t last = out[1];
  out.resize(num_layers);
  for (size_t i = 0; i < num_layers; ++i) {
    out[i] = Interpolate(first, last, i, num_layers);
  }
  return out;
}

// Takes head counts from the file's lists.
Status ReadHeads(const Json& json, const char* key,
                 uint32_t LayerConfig::*field, ModelConfig& config,
                 std::string_view name) {
  FLASHELM_ASSIGN_OR_RETURN(const Json* list, GetArray(json, key, name));
  if (list->size() != config.layers.size()) {
    return DataLoss(name, ": \"", key, "\" has ", list->size(),
                    " entries, expected ", config.layers.size(),
                    " (one per layer)");
  }
  for (size_t i = 0; i < list->size(); ++i) {
    const Json& value = (*list)[i];
    if (!value.is_number_unsigned()) {
      return DataLoss(name, ": \"", key, "\" entry ", i, " is ",
                      Describe(value), ", expected a whole number");
    }
    const uint64_t heads = value.get<uint64_t>();
    FLASHELM_RETURN_IF_ERROR(CheckRange(
        heads, 1, 1024, StatusMessage::Join("\"", key, "\" entry ", i), name));
    config.layers[i].*field = static_cast<uint32_t>(heads);
  }
  return OkStatus();
}

// Heads and FFN widths of all layers. The scalars were checked before.
Status ReadLayers(const Json& json, std::string_view name,
                  ModelConfig& config) {
  const size_t num_layers = config.layers.size();
  if (json.contains("num_query_heads") || json.contains("num_kv_heads")) {
    FLASHELM_RETURN_IF_ERROR(ReadHeads(json, "num_query_heads",
                                       &LayerConfig::num_heads, config, name));
    FLASHELM_RETURN_IF_ERROR(ReadHeads(
        json, "num_kv_heads", &LayerConfig::num_kv_heads, config, name));
  } else {
    FLASHELM_ASSIGN_OR_RETURN(
        const std::vector<uint64_t> multipliers,
        GetMultipliers(json, "qkv_multipliers", num_layers, name));
    for (size_t i = 0; i < num_layers; ++i) {
      const uint64_t query_dim =
          MakeDivisible(config.model_dim, multipliers[i],
                        uint64_t{config.head_dim} * config.num_gqa_groups);
      const uint64_t heads = query_dim / config.head_dim;
      config.layers[i].num_heads = static_cast<uint32_t>(heads);
      config.layers[i].num_kv_heads =
          static_cast<uint32_t>(heads / config.num_gqa_groups);
    }
  }
  FLASHELM_ASSIGN_OR_RETURN(
      const uint32_t divisor,
      GetInRange(json, "ffn_dim_divisor", 1, 1u << 20, name));
  FLASHELM_ASSIGN_OR_RETURN(
      const std::vector<uint64_t> multipliers,
      GetMultipliers(json, "ffn_multipliers", num_layers, name));
  for (size_t i = 0; i < num_layers; ++i) {
    config.layers[i].ffn_dim = static_cast<uint32_t>(
        MakeDivisible(config.model_dim, multipliers[i], divisor));
  }
  return OkStatus();
}

}  // namespace

uint64_t MakeDivisible(uint64_t dim, uint64_t multiplier_millionths,
                       uint64_t divisor) {
  const uint64_t product = dim * multiplier_millionths;
  const uint64_t rounded = (2 * product + kMillionths * divisor) /
                           (2 * kMillionths * divisor) * divisor;
  const uint64_t out = std::max(divisor, rounded);
  return 10 * kMillionths * out < 9 * product ? out + divisor : out;
}

Result<ModelConfig> ParseHfConfig(std::string_view text,
                                  std::string_view name) {
  FLASHELM_ASSIGN_OR_RETURN(const Json json, ParseJson(text, name));
  if (!json.is_object()) {
    return DataLoss(name, ": found ", Describe(json), ", expected an object");
  }
  FLASHELM_RETURN_IF_ERROR(ExpectText(json, "model_type", "openelm", name));
  FLASHELM_RETURN_IF_ERROR(
      ExpectText(json, "normalization_layer_name", "rms_norm", name));
  for (const char* key : {"ffn_with_glu", "normalize_qk_projections",
                          "share_input_output_layers"}) {
    FLASHELM_RETURN_IF_ERROR(ExpectTrue(json, key, name));
  }
  ModelConfig config;
  FLASHELM_ASSIGN_OR_RETURN(const std::string_view activation,
                            GetString(json, "activation_fn_name", name));
  if (activation == "swish" || activation == "silu") {
    config.activation = "swish";  // Two names of one function.
  } else if (activation == "relu") {
    config.activation = "relu";
  } else {
    return Unimplemented(name, ": \"activation_fn_name\" is ",
                         Describe(Json(activation)),
                         ", known are \"swish\", \"silu\" and \"relu\"");
  }

  // The limits are those of CheckConfig(); arithmetic before it needs them.
  struct Field {
    const char* key;
    uint32_t least;
    uint32_t most;
    uint32_t* target;
  };
  uint32_t num_layers = 0;
  for (const Field& field :
       {Field{"vocab_size", 1, 1u << 20, &config.vocab_size},
        Field{"model_dim", 2, 1u << 16, &config.model_dim},
        Field{"head_dim", 2, 1024, &config.head_dim},
        Field{"num_gqa_groups", 1, 256, &config.num_gqa_groups},
        Field{"max_context_length", 1, 1u << 20, &config.max_context},
        Field{"num_transformer_layers", 1, 1024, &num_layers},
        Field{"bos_token_id", 0, 1u << 20, &config.bos_id},
        Field{"eos_token_id", 0, 1u << 20, &config.eos_id}}) {
    FLASHELM_ASSIGN_OR_RETURN(
        *field.target,
        GetInRange(json, field.key, field.least, field.most, name));
  }
  FLASHELM_ASSIGN_OR_RETURN(const Json* theta,
                            GetAny(json, "rope_freq_constant", name));
  const double theta_value = theta->is_number() ? theta->get<double>() : NAN;
  if (!(theta_value >= 1.0 && theta_value <= kMaxRopeTheta)) {
    return DataLoss(name, ": \"rope_freq_constant\" is ", Describe(*theta),
                    ", expected a number from 1 to ", kMaxRopeTheta);
  }
  config.rope_theta = static_cast<float>(theta_value);
  config.layers.resize(num_layers);
  FLASHELM_RETURN_IF_ERROR(ReadLayers(json, name, config));
  FLASHELM_RETURN_IF_ERROR(CheckConfig(config, name));
  return config;
}

}  // namespace flashelm
