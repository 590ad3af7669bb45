// The hyperparameters of an OpenELM model, and what makes them consistent.
#ifndef FLASHELM_CORE_MODEL_CONFIG_H_
#define FLASHELM_CORE_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/status.h"
#include "core/base/types.h"
#include "storage/json.h"

namespace flashelm {

// OpenELM's query heads per kv head, when a config does not say.
inline constexpr uint32_t kDefaultGqaGroups = 4;
// The epsilon of every RMSNorm; not in any config file.
inline constexpr float kNormEpsilon = 1e-6f;

// OpenELM widens from layer to layer, so nothing is sized from layer 0.
struct LayerConfig {
  uint32_t num_heads = 0;     // Query heads.
  uint32_t num_kv_heads = 0;  // num_heads / num_gqa_groups.
  uint32_t ffn_dim = 0;       // Neurons.
};

struct ModelConfig {
  uint32_t vocab_size = 0;
  uint32_t model_dim = 0;
  uint32_t head_dim = 0;
  uint32_t num_gqa_groups = 0;  // Query heads per kv head.
  uint32_t max_context = 0;     // Positions the model was made for.
  float rope_theta = 10000.0f;
  std::string activation;  // "swish" or "relu".
  TokenId bos_id = 1;
  TokenId eos_id = 2;
  std::vector<LayerConfig> layers;

  uint32_t num_layers() const { return static_cast<uint32_t>(layers.size()); }
  uint64_t query_dim(const LayerConfig& layer) const {
    return uint64_t{layer.num_heads} * head_dim;
  }
  uint64_t kv_dim(const LayerConfig& layer) const {
    return uint64_t{layer.num_kv_heads} * head_dim;
  }
  // Rows of the fused projection: queries, then keys, then values.
  uint64_t qkv_dim(const LayerConfig& layer) const {
    return query_dim(layer) + 2 * kv_dim(layer);
  }
  uint64_t max_query_dim() const;
  // All weights, the tied embedding counted once.
  uint64_t num_params() const;
};

// Ranges that keep every later product far from overflow, and the relations
// between the fields. kDataLoss, beginning with `name`: what breaks which.
// kUnimplemented: an activation this engine does not have.
Status CheckConfig(const ModelConfig& config, std::string_view name);

// As the manifest of a model file holds it.
Json ConfigToJson(const ModelConfig& config);
// The reverse, checked. `name` begins every message.
Result<ModelConfig> ConfigFromJson(const Json& json, std::string_view name);

}  // namespace flashelm

#endif  // FLASHELM_CORE_MODEL_CONFIG_H_
