#include "tests/core/checkpoint_builder.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <utility>

#include "core/convert/hf_config.h"
#include "kernels/float_types.h"

namespace flashelm::test {
namespace {

// A float to f16, to nearest even; independent of the reader's tables.
uint16_t F16FromF32(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(static_cast<double>(value));
  if (std::isnan(value)) return sign | 0x7E00;
  if (magnitude >= 65520.0) return sign | 0x7C00;
  if (magnitude < 0x1p-14) {  // Subnormal: steps of 2^-24.
    return sign | static_cast<uint16_t>(std::nearbyint(magnitude * 0x1p24));
  }
  int exponent = 0;
  const double fraction = std::frexp(magnitude, &exponent);  // [0.5, 1)
  // The sum carries into the exponent when the mantissa rounds up to 2.
  const auto mantissa = static_cast<int>(std::nearbyint(fraction * 2048));
  return static_cast<uint16_t>(sign + ((exponent + 13) << 10) + mantissa);
}

// Uniform bits to normal values by Box-Muller: the same on every platform's
// standard library, which std::normal_distribution is not.
class NormalSource {
 public:
  explicit NormalSource(uint64_t seed) : engine_(seed) {}
  float Next(double mean, double deviation) {
    if (has_spare_) {
      has_spare_ = false;
      return static_cast<float>(mean + deviation * spare_);
    }
    const double radius = std::sqrt(-2.0 * std::log(Uniform()));
    const double angle = 2.0 * 3.14159265358979323846 * Uniform();
    spare_ = radius * std::sin(angle);
    has_spare_ = true;
    return static_cast<float>(mean + deviation * radius * std::cos(angle));
  }

 private:
  double Uniform() {  // In (0, 1].
    return (static_cast<double>(engine_() >> 11) + 1.0) * 0x1p-53;
  }
  std::mt19937_64 engine_;
  double spare_ = 0.0;
  bool has_spare_ = false;
};

void Place(const RawTensor& tensor, Json& directory, std::string& data) {
  directory[tensor.name] = {
      {"dtype", tensor.dtype},
      {"shape", tensor.shape},
      {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
  data += tensor.bytes;
}

}  // namespace

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  std::ostringstream out;
  out << in.rdbuf();
  return std::move(out).str();
}

void WriteFile(const std::string& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  EXPECT_TRUE(out.good()) << path;
}

std::string SafetensorsBytes(std::string_view directory,
                             std::string_view data) {
  std::string out;
  for (int i = 0; i < 8; ++i) {
    out += static_cast<char>(uint64_t{directory.size()} >> (8 * i) & 0xFF);
  }
  out += directory;
  out += data;
  return out;
}

std::string SafetensorsBytes(std::span<const RawTensor> tensors) {
  Json directory = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const RawTensor& tensor : tensors) Place(tensor, directory, data);
  std::string text = directory.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return SafetensorsBytes(text, data);
}

std::string EncodeValues(std::span<const float> values,
                         std::string_view dtype) {
  std::string out;
  out.reserve(values.size() * (dtype == "F32" ? 4 : 2));
  for (const float value : values) {
    if (dtype == "F32") {
      const auto bits = std::bit_cast<uint32_t>(value);
      out.append(reinterpret_cast<const char*>(&bits), sizeof(bits));
    } else {
      const uint16_t bits =
          dtype == "F16" ? F16FromF32(value) : Bf16FromF32(value);
      out.append(reinterpret_cast<const char*>(&bits), sizeof(bits));
    }
  }
  return out;
}

Json MakeHfConfig(const CheckpointOptions& options) {
  Json ffn_multipliers = Json::array();
  Json query_heads = Json::array();
  Json kv_heads = Json::array();
  const uint32_t last = std::max(1u, options.num_layers - 1);
  for (uint32_t i = 0; i < options.num_layers; ++i) {
    ffn_multipliers.push_back((50 + 350 * i / last) / 100.0);
    const uint64_t query_dim =
        MakeDivisible(options.model_dim, (50 + 50 * i / last) * uint64_t{10000},
                      uint64_t{options.head_dim} * options.num_gqa_groups);
    query_heads.push_back(query_dim / options.head_dim);
    kv_heads.push_back(query_dim / options.head_dim / options.num_gqa_groups);
  }
  return {{"activation_fn_name", options.activation},
          {"architectures", {"OpenELMForCausalLM"}},
          {"bos_token_id", 1},
          {"eos_token_id", 2},
          {"ffn_dim_divisor", options.ffn_dim_divisor},
          {"ffn_multipliers", ffn_multipliers},
          {"ffn_with_glu", true},
          {"head_dim", options.head_dim},
          {"initializer_range", 0.02},
          {"max_context_length", options.max_context},
          {"model_dim", options.model_dim},
          {"model_type", "openelm"},
          {"normalization_layer_name", "rms_norm"},
          {"normalize_qk_projections", true},
          {"num_gqa_groups", options.num_gqa_groups},
          {"num_kv_heads", kv_heads},
          {"num_query_heads", query_heads},
          {"num_transformer_layers", options.num_layers},
          {"qkv_multipliers", {0.5, 1.0}},
          {"rope_freq_constant", 10000},
          {"rope_max_length", 2 * options.max_context},
          {"share_input_output_layers", true},
          {"vocab_size", options.vocab_size}};
}

std::vector<RawTensor> MakeTensors(const CheckpointOptions& options) {
  const auto config = ParseHfConfig(MakeHfConfig(options).dump(), "config");
  EXPECT_TRUE(config) << config.error().message();
  NormalSource source(options.seed);
  std::vector<RawTensor> tensors;
  const auto add = [&](const std::string& name, std::vector<uint64_t> shape,
                       double mean, double deviation) {
    uint64_t count = 1;
    for (const uint64_t dimension : shape) count *= dimension;
    std::vector<float> values(count);
    for (float& value : values) value = source.Next(mean, deviation);
    tensors.push_back({"transformer." + name + ".weight", options.dtype,
                       std::move(shape), EncodeValues(values, options.dtype)});
  };
  const auto matrix = [&](const std::string& name, uint64_t rows,
                          uint64_t columns) {
    add(name, {rows, columns}, 0.0,
        1.0 / std::sqrt(static_cast<double>(columns)));
  };
  const auto norm = [&](const std::string& name, uint64_t size) {
    add(name, {size}, 1.0, 0.05);
  };
  const uint64_t model_dim = config->model_dim;
  add("token_embeddings", {config->vocab_size, model_dim}, 0.0, 1.0);
  for (uint32_t i = 0; i < config->num_layers(); ++i) {
    const LayerConfig& layer = config->layers[i];
    const std::string prefix = "layers." + std::to_string(i) + ".";
    matrix(prefix + "attn.qkv_proj", config->qkv_dim(layer), model_dim);
    norm(prefix + "attn.q_norm", config->head_dim);
    norm(prefix + "attn.k_norm", config->head_dim);
    matrix(prefix + "attn.out_proj", model_dim, config->query_dim(layer));
    matrix(prefix + "ffn.proj_1", 2 * uint64_t{layer.ffn_dim}, model_dim);
    matrix(prefix + "ffn.proj_2", model_dim, layer.ffn_dim);
    norm(prefix + "ffn_norm", model_dim);
    norm(prefix + "attn_norm", model_dim);
  }
  norm("norm", model_dim);
  return tensors;
}

void WriteTensors(const std::string& directory,
                  std::span<const RawTensor> tensors, uint32_t num_shards) {
  if (num_shards <= 1) {
    WriteFile(directory + "/model.safetensors", SafetensorsBytes(tensors));
    return;
  }
  std::vector<size_t> cuts;  // Where a layer's proj_2 stands.
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].name.ends_with("ffn.proj_2.weight")) cuts.push_back(i);
  }
  ASSERT_LE(num_shards, cuts.size() + 1);
  Json weight_map = Json::object();
  uint64_t total_bytes = 0;
  size_t first = 0;
  for (uint32_t shard = 0; shard < num_shards; ++shard) {
    const size_t end = shard + 1 == num_shards
                           ? tensors.size()
                           : cuts[shard * cuts.size() / (num_shards - 1)];
    const std::string name =
        fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, num_shards);
    const auto part = tensors.subspan(first, end - first);
    WriteFile(directory + "/" + name, SafetensorsBytes(part));
    for (const RawTensor& tensor : part) {
      weight_map[tensor.name] = name;
      total_bytes += tensor.bytes.size();
    }
    first = end;
  }
  const Json index = {{"metadata", {{"total_size", total_bytes}}},
                      {"weight_map", weight_map}};
  WriteFile(directory + "/model.safetensors.index.json", index.dump(1));
}

void WriteCheckpoint(const std::string& directory,
                     const CheckpointOptions& options) {
  WriteFile(directory + "/config.json", MakeHfConfig(options).dump(1));
  WriteTensors(directory, MakeTensors(options), options.num_shards);
  WriteFile(
      directory + "/tokenizer.model",
      ReadFile(FLASHELM_SOURCE_DIR "/models/tiny-stories/tokenizer.model"));
}

}  // namespace flashelm::test
