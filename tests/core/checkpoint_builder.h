// Random OpenELM checkpoints in the Hugging Face layout, for tests.
#ifndef FLASHELM_TESTS_CORE_CHECKPOINT_BUILDER_H_
#define FLASHELM_TESTS_CORE_CHECKPOINT_BUILDER_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "storage/json.h"
#include "tests/temp_directory.h"

namespace flashelm::test {

// A file's bytes; a test fails when it cannot be read or written.
std::string ReadFile(const std::string& path);
void WriteFile(const std::string& path, std::string_view bytes);

// A tensor as a safetensors file holds it.
struct RawTensor {
  std::string name;
  std::string dtype;  // "F32", "F16" or "BF16".
  std::vector<uint64_t> shape;
  std::string bytes;
};

// The bytes of a safetensors file with the tensors in the order given.
std::string SafetensorsBytes(std::span<const RawTensor> tensors);
// A length and a directory as they stand in a file, followed by `data`.
std::string SafetensorsBytes(std::string_view directory, std::string_view data);

// `values` rounded to nearest even. "F32", "F16" or "BF16".
std::string EncodeValues(std::span<const float> values, std::string_view dtype);

struct CheckpointOptions {
  uint32_t num_layers = 3;
  uint32_t model_dim = 128;
  uint32_t head_dim = 16;
  uint32_t num_gqa_groups = 4;
  uint32_t ffn_dim_divisor = 32;
  uint32_t vocab_size = 2048;  // That of the tokenizer.
  uint32_t max_context = 128;
  std::string activation = "swish";  // Or "relu".
  std::string dtype = "F32";         // Or "F16", "BF16".
  uint32_t num_shards = 1;  // At most num_layers + 1; more than 1: an index.
  uint64_t seed = 1;        // Equal options give equal files.
};

// config.json: widths grow from layer to layer as in the released models.
Json MakeHfConfig(const CheckpointOptions& options);

// All tensors in the order of the reference model: matrices are normal with
// variance 1 / columns, the embedding with variance 1, norms near 1.
std::vector<RawTensor> MakeTensors(const CheckpointOptions& options);

// Writes tensors into `directory`, as model.safetensors or as that many shards
// with an index. Shards are cut inside a layer, in front of its proj_2.
void WriteTensors(const std::string& directory,
                  std::span<const RawTensor> tensors, uint32_t num_shards);

// A whole checkpoint: config.json, weights, and the tokenizer of the sample
// models as tokenizer.model.
void WriteCheckpoint(const std::string& directory,
                     const CheckpointOptions& options);

}  // namespace flashelm::test

#endif  // FLASHELM_TESTS_CORE_CHECKPOINT_BUILDER_H_
