#include "core/convert/checkpoint.h"

#include <sys/stat.h>

#include <algorithm>
#include <set>
#include <span>
#include <utility>

#include "storage/file.h"
#include "storage/json.h"

namespace flashelm {
namespace {

constexpr char kConfigName[] = "config.json";
constexpr char kSingleName[] = "model.safetensors";
constexpr char kIndexName[] = "model.safetensors.index.json";
constexpr uint64_t kMaxConfigBytes = uint64_t{1} << 20;
constexpr uint64_t kMaxIndexBytes = uint64_t{8} << 20;
// Each takes a descriptor; the largest model comes in 3.
constexpr size_t kMaxShards = 256;

bool Exists(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0;
}

// Whether `name` stays inside the directory it is looked up in.
bool IsPlainFileName(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) ==
             std::string_view::npos;
}

// Buffers that some exports store although they follow from the configuration.
bool IsDerivedBuffer(std::string_view name) {
  const std::string_view last = name.substr(name.rfind('.') + 1);
  return last == "inv_freq" || last == "causal_mask";
}

// Looks tensors up and compares their shapes with what the model needs.
class Finder {
 public:
  explicit Finder(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {
    const auto& tensors = checkpoint.tensors();
    if (!tensors.contains("transformer.token_embeddings.weight") &&
        tensors.contains("token_embeddings.weight")) {
      prefix_ = "";
    }
  }

  // On failure the first error stays.
  void Find(std::string_view name, std::initializer_list<uint64_t> shape,
            CheckpointTensor& out) {
    if (status_.ok())
      status_ = Look(StatusMessage::Join(prefix_, name), shape, out);
  }

  // OK when all was found and nothing else is there.
  Status Finish() {
    FLASHELM_RETURN_IF_ERROR(std::move(status_));
    for (const auto& [name, found] : checkpoint_.tensors()) {
      if (!used_.contains(name) && !IsDerivedBuffer(name)) {
        return Unimplemented(found.file->path(), ": ", found.tensor->Describe(),
                             " of shape ", DescribeShape(found.tensor->shape),
                             " is none that an OpenELM model with tied "
                             "embeddings has");
      }
    }
    return OkStatus();
  }

 private:
  Status Look(const std::string& name, std::span<const uint64_t> shape,
              CheckpointTensor& out) {
    const auto it = checkpoint_.tensors().find(name);
    if (it == checkpoint_.tensors().end()) {
      return DataLoss(checkpoint_.directory(), ": tensor \"", name,
                      "\" is missing, expected shape ", DescribeShape(shape));
    }
    out = it->second;
    const SafetensorsTensor& tensor = *out.tensor;
    if (!std::equal(tensor.shape.begin(), tensor.shape.end(), shape.begin(),
                    shape.end())) {
      return DataLoss(out.file->path(), ": tensor \"", name, "\" has shape ",
                      DescribeShape(tensor.shape), ", expected ",
                      DescribeShape(shape), " by ", kConfigName);
    }
    if (tensor.type == ElementType::kOther) {
      return Unimplemented(out.file->path(), ": tensor \"", name,
                           "\" is of type ", Describe(Json(tensor.type_name)),
                           ", known are F32, F16 and BF16");
    }
    used_.insert(it->first);
    return OkStatus();
  }
  Status Look(const std::string& name, std::initializer_list<uint64_t> shape,
              CheckpointTensor& out) {
    return Look(name, std::span(shape.begin(), shape.size()), out);
  }

  const Checkpoint& checkpoint_;
  std::string_view prefix_ = "transformer.";
  std::set<std::string_view> used_;
  Status status_;
};

}  // namespace

Result<Checkpoint> Checkpoint::Open(const std::string& directory) {
  Checkpoint out;
  out.directory_ = directory;
  struct stat info {};
  if (stat(directory.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return NotFound(directory, ": no such directory, expected one with ",
                    kConfigName, " and ", kSingleName);
  }
  FLASHELM_ASSIGN_OR_RETURN(std::string config,
                            ReadWholeFile(out.config_path(), kMaxConfigBytes));
  out.texts_.push_back({kConfigName, std::move(config)});
  const std::string prefix = directory + "/";
  if (Exists(prefix + kSingleName)) {
    out.files_.reserve(1);
    FLASHELM_RETURN_IF_ERROR(out.AddFile(kSingleName));
  } else if (Exists(prefix + kIndexName)) {
    FLASHELM_RETURN_IF_ERROR(out.OpenShards());
  } else {
    return NotFound(directory, ": neither ", kSingleName, " nor ", kIndexName,
                    " is there");
  }
  return out;
}

Status Checkpoint::AddFile(const std::string& name) {
  FLASHELM_ASSIGN_OR_RETURN(SafetensorsFile file,
                            SafetensorsFile::Open(directory_ + "/" + name));
  // The caller reserved room, so files keep the address that tensors note.
  files_.push_back(std::move(file));
  file_names_.push_back(name);
  for (const SafetensorsTensor& tensor : files_.back().tensors()) {
    const auto [it, is_new] =
        tensors_.insert({tensor.name, {&files_.back(), &tensor}});
    if (!is_new) {
      return DataLoss(files_.back().path(), ": ", tensor.Describe(),
                      " is also in ", it->second.file->path(),
                      ", expected in one file");
    }
  }
  return OkStatus();
}

Status Checkpoint::OpenShards() {
  const std::string path = directory_ + "/" + kIndexName;
  FLASHELM_ASSIGN_OR_RETURN(std::string text,
                            ReadWholeFile(path, kMaxIndexBytes));
  FLASHELM_ASSIGN_OR_RETURN(const Json index, ParseJson(text, path));
  texts_.push_back({kIndexName, std::move(text)});
  FLASHELM_ASSIGN_OR_RETURN(const Json* weight_map,
                            GetObject(index, "weight_map", path));
  std::set<std::string> names;
  for (const auto& [tensor, shard] : weight_map->items()) {
    if (!shard.is_string() ||
        !IsPlainFileName(shard.get_ref<const std::string&>())) {
      return DataLoss(path, ": tensor ", Describe(Json(tensor)),
                      " is said to be in ", Describe(shard),
                      ", expected the name of a file in the same directory");
    }
    names.insert(shard.get<std::string>());
  }
  if (names.empty() || names.size() > kMaxShards) {
    return DataLoss(path, ": names ", names.size(), " files, expected 1 to ",
                    kMaxShards);
  }
  files_.reserve(names.size());
  for (const std::string& name : names) {
    FLASHELM_RETURN_IF_ERROR(AddFile(name));
  }
  for (const auto& [name, shard] : weight_map->items()) {
    const std::string file = directory_ + "/" + shard.get<std::string>();
    const auto it = tensors_.find(name);
    if (it == tensors_.end() || it->second.file->path() != file) {
      return DataLoss(path, ": tensor ", Describe(Json(name)),
                      " is said to be in ", Describe(shard),
                      ", which does not hold it");
    }
  }
  for (const auto& [name, found] : tensors_) {
    if (!weight_map->contains(name)) {
      return DataLoss(path, ": does not list ", found.tensor->Describe(),
                      ", which is in ", found.file->path());
    }
  }
  return OkStatus();
}

Result<CheckpointWeights> FindCheckpointWeights(const ModelConfig& config,
                                                const Checkpoint& checkpoint) {
  CheckpointWeights weights;
  Finder finder(checkpoint);
  const uint64_t model_dim = config.model_dim;
  const uint64_t head_dim = config.head_dim;
  finder.Find("token_embeddings.weight", {config.vocab_size, model_dim},
              weights.embedding);
  weights.layers.resize(config.num_layers());
  for (uint32_t i = 0; i < config.num_layers(); ++i) {
    const LayerConfig& layer = config.layers[i];
    CheckpointLayer& out = weights.layers[i];
    const auto find = [&](std::string_view name,
                          std::initializer_list<uint64_t> shape,
                          CheckpointTensor& tensor) {
      finder.Find(StatusMessage::Join("layers.", i, ".", name, ".weight"),
                  shape, tensor);
    };
    find("attn_norm", {model_dim}, out.attention_norm);
    find("attn.q_norm", {head_dim}, out.query_norm);
    find("attn.k_norm", {head_dim}, out.key_norm);
    find("ffn_norm", {model_dim}, out.ffn_norm);
    find("attn.qkv_proj", {config.qkv_dim(layer), model_dim}, out.qkv);
    find("attn.out_proj", {model_dim, config.query_dim(layer)},
         out.attention_out);
    find("ffn.proj_1", {2 * uint64_t{layer.ffn_dim}, model_dim}, out.gate_up);
    find("ffn.proj_2", {model_dim, layer.ffn_dim}, out.down);
  }
  finder.Find("norm.weight", {model_dim}, weights.final_norm);
  FLASHELM_RETURN_IF_ERROR(finder.Finish());
  return weights;
}

}  // namespace flashelm
