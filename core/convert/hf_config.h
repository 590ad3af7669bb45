// A Hugging Face config.json of an OpenELM model.
#ifndef FLASHELM_CORE_CONVERT_HF_CONFIG_H_
#define FLASHELM_CORE_CONVERT_HF_CONFIG_H_

#include <cstdint>
#include <string_view>

#include "core/base/status.h"
#include "core/model_config.h"

namespace flashelm {

// Multipliers of widths, as whole millionths: exact for every decimal that a
// config file holds, where binary fractions would decide ties by accident.
inline constexpr uint64_t kMillionths = 1'000'000;

// `dim` * `multiplier` rounded to a multiple of `divisor`, halves up; at least
// `divisor`, and never more than 10 % below the product. The products stay
// below 2^64 for dim <= 2^16, multiplier <= 256 and divisor <= 2^20.
uint64_t MakeDivisible(uint64_t dim, uint64_t multiplier_millionths,
                       uint64_t divisor);

// The hyperparameters that the text says, checked. Multipliers may be a number
// for all layers, one number per layer, or (first, last) to interpolate, which
// rounds to two decimals. Head counts come from "num_query_heads" and
// "num_kv_heads" when they are there, else from "qkv_multipliers". A missing
// key is an error: the defaults of the reference class are not those of the
// released models. `name` begins every message, which names key and value.
// kDataLoss: not JSON, a key missing, of the wrong type or out of range, or
// values that contradict each other. kUnimplemented: another architecture.
Result<ModelConfig> ParseHfConfig(std::string_view text, std::string_view name);

}  // namespace flashelm

#endif  // FLASHELM_CORE_CONVERT_HF_CONFIG_H_
