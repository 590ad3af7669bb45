#include "core/model_file.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace flashelm {
namespace {

// Those of the layers first.
template <class Visit>
void ForEachMatrix(const ModelWeights& weights, const Visit& visit) {
  for (const LayerWeights& layer : weights.layers) {
    for (const PartRef* part : {&layer.qkv, &layer.attention_out, &layer.gate,
                                &layer.up, &layer.down}) {
      visit(*part);
    }
  }
  visit(weights.embedding);
}

}  // namespace

ModelFile::ModelFile(WeightFile weight_file, ModelConfig config,
                     ModelWeights weights, Tokenizer tokenizer)
    : weight_file_(std::move(weight_file)),
      config_(std::move(config)),
      weights_(std::move(weights)),
      tokenizer_(std::move(tokenizer)) {
  ForEachMatrix(weights_, [&](const PartRef& part) {
    const bool is_quantized = IsQuantized(WeightTypeOf(part.encoding));
    has_quantized_ |= is_quantized;
    has_floats_ |= !is_quantized;
  });
}

Result<ModelFile> ModelFile::Open(const std::string& path) {
  auto file = OpenFile(path, CacheMode::kDirect);
  if (!file) {
    if (file.error().code() != StatusCode::kInvalidArgument) {
      return Unexpected(std::move(file.error()));
    }
    return InvalidArgument(file.error().message(),
                           " (`flashelm convert` makes a model file from a "
                           "checkpoint directory)");
  }
  return Open(std::move(*file));
}

Result<ModelFile> ModelFile::Open(std::unique_ptr<RandomAccessFile> file) {
  FLASHELM_ASSIGN_OR_RETURN(WeightFile weight_file,
                            WeightFile::Open(std::move(file)));
  const std::string& path = weight_file.path();
  FLASHELM_ASSIGN_OR_RETURN(
      ModelConfig config,
      ConfigFromJson(weight_file.config(),
                     StatusMessage::Join(path, ": config")));
  FLASHELM_ASSIGN_OR_RETURN(ModelWeights weights,
                            FindWeights(config, weight_file));
  FLASHELM_ASSIGN_OR_RETURN(const std::string tokenizer_bytes,
                            weight_file.ReadTokenizer());
  FLASHELM_ASSIGN_OR_RETURN(
      Tokenizer tokenizer,
      Tokenizer::Parse(tokenizer_bytes,
                       StatusMessage::Join(path, ": tokenizer")));
  if (tokenizer.vocab_size() > config.vocab_size) {
    return DataLoss(path, ": the tokenizer has ", tokenizer.vocab_size(),
                    " pieces, the model a vocabulary of ", config.vocab_size);
  }
  return ModelFile(std::move(weight_file), std::move(config),
                   std::move(weights), std::move(tokenizer));
}

std::string ModelFile::weights_name() const {
  std::vector<Encoding> found;
  ForEachMatrix(weights_, [&](const PartRef& part) {
    if (std::find(found.begin(), found.end(), part.encoding) == found.end()) {
      found.push_back(part.encoding);
    }
  });
  std::string name;
  for (const Encoding encoding : found) {
    if (!name.empty()) name += '+';
    name += EncodingName(encoding);
  }
  return name;
}

}  // namespace flashelm
