// The dimensions of OpenELM models, and the config.json that states them.
#ifndef FLASHELM_CORE_CONVERT_OPENELM_SHAPES_H_
#define FLASHELM_CORE_CONVERT_OPENELM_SHAPES_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/status.h"
#include "core/model_config.h"
#include "storage/json.h"

namespace flashelm {

// From these all widths follow: from the first to the last layer, query heads
// grow from half of model_dim to all of it and the FFN from half to four times
// model_dim, by multipliers that are rounded to two decimals.
struct OpenElmShape {
  uint32_t model_dim = 0;
  uint32_t num_layers = 0;
  uint32_t head_dim = 64;
  uint32_t num_gqa_groups = kDefaultGqaGroups;
  uint32_t ffn_dim_divisor = 256;
  uint32_t vocab_size = 32000;
  uint32_t max_context = 2048;
};

// "270M", "450M", "1.1B" or "3B", as published.
// kInvalidArgument: another name.
Result<OpenElmShape> PublishedShape(std::string_view name);

// A model of that shape as a Hugging Face config.json has it. `torch_dtype` as
// PyTorch names types. `activation` is "swish" or "relu".
// kInvalidArgument: dimensions of which no model can be made.
Result<Json> MakeHfConfig(const OpenElmShape& shape,
                          std::string_view activation,
                          std::string_view torch_dtype);

}  // namespace flashelm

#endif  // FLASHELM_CORE_CONVERT_OPENELM_SHAPES_H_
