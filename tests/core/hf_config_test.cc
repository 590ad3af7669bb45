#include "core/convert/hf_config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "storage/json.h"

namespace flashelm {
namespace {

// Consecutive layers with one number of query heads.
struct Run {
  uint32_t num_layers;
  uint32_t num_heads;
};

// A released model: what its config.json says, and what follows from it.
struct Released {
  const char* name;
  uint32_t num_layers;
  uint32_t model_dim;
  uint32_t head_dim;
  std::vector<Run> heads;
  std::vector<double> ffn_multipliers;
  std::vector<uint32_t> ffn_256;  // FFN widths / 256.
  uint64_t num_params;
};

const std::vector<Released>& ReleasedModels() {
  static const auto* models = new std::vector<Released>{
      {"270M",
       16,
       1280,
       64,
       {{5, 12}, {7, 16}, {4, 20}},
       {0.5, 0.73, 0.97, 1.2, 1.43, 1.67, 1.9, 2.13, 2.37, 2.6, 2.83, 3.07, 3.3,
        3.53, 3.77, 4.0},
       {3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20},
       271527168},
      {"450M",
       20,
       1536,
       64,
       {{3, 12}, {7, 16}, {6, 20}, {4, 24}},
       {0.5,  0.68, 0.87, 1.05, 1.24, 1.42, 1.61, 1.79, 1.97, 2.16,
        2.34, 2.53, 2.71, 2.89, 3.08, 3.26, 3.45, 3.63, 3.82, 4.0},
       {3,  4,  5,  6,  7,  9,  10, 11, 12, 13,
        14, 15, 16, 17, 18, 20, 21, 22, 23, 24},
       457179136},
      {"1.1B",
       28,
       2048,
       64,
       {{3, 16}, {7, 20}, {8, 24}, {6, 28}, {4, 32}},
       {0.5,  0.63, 0.76, 0.89, 1.02, 1.15, 1.28, 1.41, 1.54, 1.67,
        1.8,  1.93, 2.06, 2.19, 2.31, 2.44, 2.57, 2.7,  2.83, 2.96,
        3.09, 3.22, 3.35, 3.48, 3.61, 3.74, 3.87, 4.0},
       {4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 18,
        18, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32},
       1079891456},
      {"3B",
       36,
       3072,
       128,
       {{4, 12}, {14, 16}, {12, 20}, {6, 24}},
       {},  // 0.5 to 4.0 in tenths.
       {6,  7,  8,  10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 22, 23, 24, 25, 26,
        28, 29, 30, 31, 32, 34, 35, 36, 37, 38, 40, 41, 42, 43, 44, 46, 47, 48},
       3036647424}};
  return *models;
}

Json ReleasedJson(const Released& model) {
  Json ffn_multipliers = Json(model.ffn_multipliers);
  if (model.ffn_multipliers.empty()) {
    for (uint32_t i = 0; i < model.num_layers; ++i) {
      ffn_multipliers.push_back((5 + i) / 10.0);
    }
  }
  Json query_heads = Json::array();
  Json kv_heads = Json::array();
  for (const Run& run : model.heads) {
    for (uint32_t i = 0; i < run.num_layers; ++i) {
      query_heads.push_back(run.num_heads);
      kv_heads.push_back(run.num_heads / 4);
    }
  }
  return {{"activation_fn_name", "swish"},
          {"architectures", {"OpenELMForCausalLM"}},
          {"bos_token_id", 1},
          {"eos_token_id", 2},
          {"ffn_dim_divisor", 256},
          {"ffn_multipliers", ffn_multipliers},
          {"ffn_with_glu", true},
          {"head_dim", model.head_dim},
          {"initializer_range", 0.02},
          {"max_context_length", 2048},
          {"model_dim", model.model_dim},
          {"model_type", "openelm"},
          {"normalization_layer_name", "rms_norm"},
          {"normalize_qk_projections", true},
          {"num_gqa_groups", 4},
          {"num_kv_heads", kv_heads},
          {"num_query_heads", query_heads},
          {"num_transformer_layers", model.num_layers},
          {"qkv_multipliers", {0.5, 1.0}},
          {"rope_freq_constant", 10000},
          {"rope_max_length", 4096},
          {"share_input_output_layers", true},
          {"torch_dtype", "float32"},
          {"use_cache", true},
          {"vocab_size", 32000}};
}

void ExpectReleased(const ModelConfig& config, const Released& model) {
  ASSERT_EQ(config.num_layers(), model.num_layers);
  uint32_t layer = 0;
  for (const Run& run : model.heads) {
    for (uint32_t i = 0; i < run.num_layers; ++i, ++layer) {
      EXPECT_EQ(config.layers[layer].num_heads, run.num_heads) << layer;
      EXPECT_EQ(config.layers[layer].num_kv_heads, run.num_heads / 4) << layer;
      EXPECT_EQ(config.layers[layer].ffn_dim, 256 * model.ffn_256[layer])
          << layer;
    }
  }
  EXPECT_EQ(layer, model.num_layers);
  EXPECT_EQ(config.num_params(), model.num_params);
}

ModelConfig Parse(const Json& json) {
  auto config = ParseHfConfig(json.dump(), "config.json");
  EXPECT_TRUE(config) << config.error().message();
  return config ? *config : ModelConfig();
}

TEST(HfConfigTest, ReleasedModelsHaveThePublishedShapesAndSizes) {
  for (const Released& model : ReleasedModels()) {
    SCOPED_TRACE(model.name);
    const ModelConfig config = Parse(ReleasedJson(model));
    ExpectReleased(config, model);
    EXPECT_EQ(config.vocab_size, 32000u);
    EXPECT_EQ(config.model_dim, model.model_dim);
    EXPECT_EQ(config.head_dim, model.head_dim);
    EXPECT_EQ(config.num_gqa_groups, 4u);
    EXPECT_EQ(config.max_context, 2048u);
    EXPECT_EQ(config.rope_theta, 10000.0f);
    EXPECT_EQ(config.activation, "swish");
    EXPECT_EQ(config.bos_id, 1u);
    EXPECT_EQ(config.eos_id, 2u);
  }
}

// Heads from multipliers: this is where the 10 % rule matters.
TEST(HfConfigTest, ReleasedShapesFollowFromFirstAndLastMultipliersAlone) {
  for (const Released& model : ReleasedModels()) {
    SCOPED_TRACE(model.name);
    Json json = ReleasedJson(model);
    json.erase("num_query_heads");
    json.erase("num_kv_heads");
    json["ffn_multipliers"] = {0.5, 4.0};
    ExpectReleased(Parse(json), model);
  }
}

// Multipliers between `first` and `last`, cut to millionths and not rounded to
// hundredths: what a loader computes that forgets to round.
Json Unrounded(double first, double last, uint32_t num_layers) {
  Json out = Json::array();
  for (uint32_t i = 0; i < num_layers; ++i) {
    out.push_back(
        std::floor(1e6 * (first + (last - first) * i / (num_layers - 1))) /
        1e6);
  }
  return out;
}

TEST(HfConfigTest, WithoutRoundingToHundredthsOtherShapesWouldCome) {
  const std::vector<std::vector<uint32_t>> wrong_heads = {
      {5}, {}, {3, 10, 17}, {17}};
  const std::vector<std::vector<uint32_t>> wrong_ffn = {{}, {}, {13, 14}, {}};
  for (size_t m = 0; m < ReleasedModels().size(); ++m) {
    const Released& model = ReleasedModels()[m];
    SCOPED_TRACE(model.name);
    Json json = ReleasedJson(model);
    const ModelConfig right = Parse(json);
    json.erase("num_query_heads");
    json.erase("num_kv_heads");
    json["qkv_multipliers"] = Unrounded(0.5, 1.0, model.num_layers);
    json["ffn_multipliers"] = Unrounded(0.5, 4.0, model.num_layers);
    const ModelConfig other = Parse(json);
    std::vector<uint32_t> heads;
    std::vector<uint32_t> ffn;
    for (uint32_t i = 0; i < model.num_layers; ++i) {
      if (right.layers[i].num_heads != other.layers[i].num_heads) {
        heads.push_back(i);
      }
      if (right.layers[i].ffn_dim != other.layers[i].ffn_dim) ffn.push_back(i);
    }
    EXPECT_EQ(heads, wrong_heads[m]);
    EXPECT_EQ(ffn, wrong_ffn[m]);
  }
}

TEST(MakeDivisibleTest, RoundsHalvesUpAndKeepsToTheTenPercentRule) {
  struct Case {
    const char* name;
    uint64_t dim;
    uint64_t hundredths;
    uint64_t divisor;
    uint64_t expected;
  };
  for (const Case& c :
       {Case{"exact", 1024, 100, 256, 1024},
        Case{"below a half", 1151, 100, 256, 1280},
        Case{"a half goes up", 1152, 100, 256, 1280},
        Case{"at least the divisor", 10, 50, 256, 256},
        Case{"zero", 10, 0, 256, 256},
        Case{"a tenth below stays", 1000, 100, 900, 900},
        Case{"more than a tenth below goes up", 1280, 67, 256, 1024},
        Case{"divisor 1", 100, 123, 1, 123},
        Case{"largest", 1u << 16, 25600, 1u << 20, 1u << 24}}) {
    SCOPED_TRACE(c.name);
    EXPECT_EQ(MakeDivisible(c.dim, c.hundredths * 10000, c.divisor),
              c.expected);
  }
}

TEST(HfConfigTest, MultipliersMayBeOneNumberForAllLayers) {
  Json json = ReleasedJson(ReleasedModels()[0]);
  json["ffn_multipliers"] = 2;
  json["qkv_multipliers"] = 1.0;
  json.erase("num_query_heads");
  json.erase("num_kv_heads");
  for (const LayerConfig& layer : Parse(json).layers) {
    EXPECT_EQ(layer.ffn_dim, 2560u);
    EXPECT_EQ(layer.num_heads, 20u);
  }
}

TEST(HfConfigTest, TwoMultipliersOfTwoLayersAreOnePerLayer) {
  Json json = ReleasedJson(ReleasedModels()[0]);
  json["num_transformer_layers"] = 2;
  json["num_query_heads"] = {12, 20};
  json["num_kv_heads"] = {3, 5};
  json["ffn_multipliers"] = {0.5, 4.0};
  const ModelConfig config = Parse(json);
  EXPECT_EQ(config.layers[0].ffn_dim, 768u);
  EXPECT_EQ(config.layers[1].ffn_dim, 5120u);
}

TEST(HfConfigTest, OneLayerTakesTheFirstOfTwoMultipliers) {
  Json json = ReleasedJson(ReleasedModels()[0]);
  json["num_transformer_layers"] = 1;
  json["num_query_heads"] = {12};
  json["num_kv_heads"] = {3};
  json["ffn_multipliers"] = {0.5, 4.0};
  EXPECT_EQ(Parse(json).layers[0].ffn_dim, 768u);
}

TEST(HfConfigTest, HeadListsWinOverMultipliers) {
  Json json = ReleasedJson(ReleasedModels()[0]);
  json["num_query_heads"][0] = 4;
  json["num_kv_heads"][0] = 1;
  EXPECT_EQ(Parse(json).layers[0].num_heads, 4u);
  EXPECT_EQ(Parse(json).layers[0].num_kv_heads, 1u);
}

TEST(HfConfigTest, KnownActivationsHaveOneNameEach) {
  Json json = ReleasedJson(ReleasedModels()[0]);
  json["activation_fn_name"] = "silu";
  EXPECT_EQ(Parse(json).activation, "swish");
  json["activation_fn_name"] = "relu";
  EXPECT_EQ(Parse(json).activation, "relu");
}

TEST(HfConfigTest, EveryNeededKeyIsMissed) {
  for (const char* key :
       {"activation_fn_name", "bos_token_id", "eos_token_id", "ffn_dim_divisor",
        "ffn_multipliers", "ffn_with_glu", "head_dim", "max_context_length",
        "model_dim", "model_type", "normalization_layer_name",
        "normalize_qk_projections", "num_gqa_groups", "num_kv_heads",
        "num_query_heads", "num_transformer_layers", "rope_freq_constant",
        "share_input_output_layers", "vocab_size"}) {
    SCOPED_TRACE(key);
    for (const bool is_null : {false, true}) {
      Json json = ReleasedJson(ReleasedModels()[0]);
      if (is_null) {
        json[key] = nullptr;
      } else {
        json.erase(key);
      }
      const auto config = ParseHfConfig(json.dump(), "dir/config.json");
      ASSERT_FALSE(config);
      EXPECT_EQ(config.error().code(), StatusCode::kDataLoss);
      EXPECT_NE(config.error().message().find(key), std::string::npos);
      EXPECT_EQ(config.error().message().find("dir/config.json"), 0u);
    }
  }
  Json json = ReleasedJson(ReleasedModels()[0]);
  json.erase("num_query_heads");
  json.erase("num_kv_heads");
  json.erase("qkv_multipliers");
  const auto config = ParseHfConfig(json.dump(), "config.json");
  ASSERT_FALSE(config);
  EXPECT_NE(config.error().message().find("qkv_multipliers"),
            std::string::npos);
}

TEST(HfConfigTest, ValuesThatMakeNoModelAreRefusedByKey) {
  struct Case {
    const char* key;
    const char* value;  // JSON.
    StatusCode code;
  };
  constexpr auto kDataLoss = StatusCode::kDataLoss;
  constexpr auto kUnimplemented = StatusCode::kUnimplemented;
  const Case table[] = {
      {"vocab_size", "0", kDataLoss},
      {"vocab_size", "-1", kDataLoss},
      {"vocab_size", "32000.0", kDataLoss},
      {"vocab_size", "\"32000\"", kDataLoss},
      {"vocab_size", "true", kDataLoss},
      {"vocab_size", "[32000]", kDataLoss},
      {"vocab_size", "1e308", kDataLoss},
      {"vocab_size", "4294999296", kDataLoss},  // 2^32 + 32000
      {"vocab_size", "9223372036854775808", kDataLoss},
      {"vocab_size", "18446744073709551616", kDataLoss},
      {"model_dim", "0", kDataLoss},
      {"model_dim", "1", kDataLoss},
      {"model_dim", "65537", kDataLoss},
      {"head_dim", "0", kDataLoss},
      {"head_dim", "63", kDataLoss},
      {"head_dim", "1026", kDataLoss},
      {"num_gqa_groups", "0", kDataLoss},
      {"num_gqa_groups", "3", kDataLoss},
      {"num_gqa_groups", "257", kDataLoss},
      {"num_transformer_layers", "0", kDataLoss},
      {"num_transformer_layers", "15", kDataLoss},
      {"num_transformer_layers", "1025", kDataLoss},
      {"num_transformer_layers", "9223372036854775808", kDataLoss},
      {"max_context_length", "0", kDataLoss},
      {"max_context_length", "1048577", kDataLoss},
      {"bos_token_id", "32000", kDataLoss},
      {"eos_token_id", "-2", kDataLoss},
      {"ffn_dim_divisor", "0", kDataLoss},
      {"ffn_dim_divisor", "1048577", kDataLoss},
      {"ffn_multipliers", "-1.0", kDataLoss},
      {"ffn_multipliers", "1e308", kDataLoss},
      {"ffn_multipliers", "257", kDataLoss},
      {"ffn_multipliers", "\"4\"", kDataLoss},
      {"ffn_multipliers", "[]", kDataLoss},
      {"ffn_multipliers", "[0.5, null]", kDataLoss},
      {"ffn_multipliers", "[0.5, -4.0]", kDataLoss},
      {"ffn_multipliers", "[0.5, 1e308]", kDataLoss},
      {"ffn_multipliers", "[0.5, 1.0, 4.0]", kDataLoss},
      {"num_query_heads", "12", kDataLoss},
      {"num_query_heads", "[12, 20]", kDataLoss},
      {"num_query_heads", "{}", kDataLoss},
      {"rope_freq_constant", "0", kDataLoss},
      {"rope_freq_constant", "-10000", kDataLoss},
      {"rope_freq_constant", "1e308", kDataLoss},
      {"rope_freq_constant", "\"10000\"", kDataLoss},
      {"ffn_with_glu", "false", kUnimplemented},
      {"ffn_with_glu", "1", kDataLoss},
      {"normalize_qk_projections", "false", kUnimplemented},
      {"share_input_output_layers", "false", kUnimplemented},
      {"share_input_output_layers", "\"true\"", kDataLoss},
      {"normalization_layer_name", "\"layer_norm\"", kUnimplemented},
      {"normalization_layer_name", "3", kDataLoss},
      {"activation_fn_name", "\"gelu\"", kUnimplemented},
      {"activation_fn_name", "[]", kDataLoss},
      {"model_type", "\"llama\"", kUnimplemented},
  };
  for (const Case& c : table) {
    SCOPED_TRACE(StatusMessage::Join(c.key, " = ", c.value));
    Json json = ReleasedJson(ReleasedModels()[0]);
    json[c.key] = "@";
    std::string text = json.dump();
    text.replace(text.find("\"@\""), 3, c.value);
    const auto config = ParseHfConfig(text, "config.json");
    if (config) {
      ADD_FAILURE() << "was accepted";
      continue;
    }
    EXPECT_EQ(config.error().code(), c.code) << config.error().message();
    EXPECT_EQ(config.error().message().find("config.json: "), 0u)
        << config.error().message();
  }
}

TEST(HfConfigTest, HeadsThatContradictTheRatioAreRefused) {
  struct Case {
    const char* name;
    const char* key;
    Json value;
  };
  for (const Case& c :
       {Case{"ratio", "num_kv_heads", 4}, Case{"zero", "num_kv_heads", 0},
        Case{"negative", "num_query_heads", -12},
        Case{"2^63", "num_query_heads", uint64_t{1} << 63},
        Case{"2^32 + 12", "num_query_heads", (uint64_t{1} << 32) + 12},
        Case{"fraction", "num_query_heads", 12.5},
        Case{"text", "num_query_heads", "12"}}) {
    SCOPED_TRACE(c.name);
    Json json = ReleasedJson(ReleasedModels()[0]);
    json[c.key][1] = c.value;
    const auto config = ParseHfConfig(json.dump(), "config.json");
    ASSERT_FALSE(config);
    EXPECT_EQ(config.error().code(), StatusCode::kDataLoss)
        << config.error().message();
  }
}

TEST(HfConfigTest, TextThatIsNoObjectIsRefused) {
  for (const char* text : {"", "[]", "null", "{", "{\"a\":1,\"a\":1}", "NaN",
                           "{\"vocab_size\":NaN}", "{\"vocab_size\":1e999}"}) {
    SCOPED_TRACE(text);
    const auto config = ParseHfConfig(text, "config.json");
    ASSERT_FALSE(config);
    EXPECT_EQ(config.error().code(), StatusCode::kDataLoss);
  }
}

}  // namespace
}  // namespace flashelm
