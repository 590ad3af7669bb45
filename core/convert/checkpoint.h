// A directory with an OpenELM checkpoint in the Hugging Face layout.
#ifndef FLASHELM_CORE_CONVERT_CHECKPOINT_H_
#define FLASHELM_CORE_CONVERT_CHECKPOINT_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/status.h"
#include "core/convert/safetensors.h"
#include "core/model_config.h"

namespace flashelm {

// One tensor and the file that holds it; both live as long as the checkpoint,
// also when that moves.
struct CheckpointTensor {
  const SafetensorsFile* file = nullptr;
  const SafetensorsTensor* tensor = nullptr;
};

// config.json, and the weights in model.safetensors or, where that is absent,
// in the shards that model.safetensors.index.json lists. (With both, the single
// file is used and the index not looked at, as the reference loader does.)
// Every tensor is resolved by name, so a layer may straddle shards. Immutable,
// so thread-safe. Move-only. Holds one descriptor per shard and the
// directories.
class Checkpoint {
 public:
  // A small file of the checkpoint, whole.
  struct TextFile {
    std::string name;  // Inside the directory.
    std::string text;
  };

  // kNotFound: no such directory, config, weights or shard. kDataLoss: a
  // damaged file; an index that leads out of the directory, or that differs
  // from what the shards hold; a tensor in two shards.
  static Result<Checkpoint> Open(const std::string& directory);

  const std::string& directory() const { return directory_; }
  // config.json first, then the index if it was used.
  const std::vector<TextFile>& texts() const { return texts_; }
  std::string config_path() const { return directory_ + "/config.json"; }
  const std::string& config_text() const { return texts_[0].text; }
  // By name; `file_names` are those inside the directory.
  const std::vector<SafetensorsFile>& files() const { return files_; }
  const std::vector<std::string>& file_names() const { return file_names_; }

  const std::map<std::string, CheckpointTensor, std::less<>>& tensors() const {
    return tensors_;
  }

 private:
  Status OpenShards();
  Status AddFile(const std::string& name);

  std::string directory_;
  std::vector<TextFile> texts_;
  std::vector<std::string> file_names_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, CheckpointTensor, std::less<>> tensors_;
};

// The tensors of a model by what they are for; shapes as the file has them.
struct CheckpointLayer {
  CheckpointTensor attention_norm;  // [model_dim]
  CheckpointTensor query_norm;      // [head_dim]
  CheckpointTensor key_norm;        // [head_dim]
  CheckpointTensor ffn_norm;        // [model_dim]
  CheckpointTensor qkv;             // [qkv_dim, model_dim]
  CheckpointTensor attention_out;   // [model_dim, query_dim]
  CheckpointTensor gate_up;         // [2 ffn_dim, model_dim]: gate, then up.
  CheckpointTensor down;            // [model_dim, ffn_dim]
};
struct CheckpointWeights {
  CheckpointTensor embedding;  // [vocab_size, model_dim]
  std::vector<CheckpointLayer> layers;
  CheckpointTensor final_norm;  // [model_dim]
};

// Looks up every tensor that `config` needs, under the names of the Hugging
// Face files or, when those have none, without the "transformer." prefix.
// kDataLoss, naming the tensor: missing, or of another shape than expected.
// kUnimplemented: an element type that cannot be read; a tensor that OpenELM
// does not have, except "inv_freq" and "causal_mask" buffers, which follow
// from the configuration and are skipped.
Result<CheckpointWeights> FindCheckpointWeights(const ModelConfig& config,
                                                const Checkpoint& checkpoint);

}  // namespace flashelm

#endif  // FLASHELM_CORE_CONVERT_CHECKPOINT_H_
