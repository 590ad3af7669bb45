#include "core/convert/planned_model.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "core/convert/hf_config.h"
#include "core/convert/openelm_shapes.h"
#include "core/convert/source_check.h"
#include "core/convert/synth_tokenizer.h"
#include "storage/file.h"

namespace flashelm {
namespace {

constexpr uint64_t kMaxConfigBytes = uint64_t{1} << 20;
// Of MakeTokenizerModel().
constexpr uint32_t kMaxVocabulary = 1u << 17;

// The front of a file, in memory.
class PlannedFile : public RandomAccessFile {
 public:
  PlannedFile(WeightFileFront front, std::string path)
      : front_(std::move(front)), path_(std::move(path)) {}

  Result<size_t> ReadAt(uint64_t offset,
                        std::span<std::byte> target) const override {
    if (offset > front_.bytes.size() ||
        target.size() > front_.bytes.size() - offset) {
      return Unavailable(path_, ": no weights yet; a plan alone can be made");
    }
    std::memcpy(target.data(), front_.bytes.data() + offset, target.size());
    return target.size();
  }
  uint64_t size_bytes() const override { return front_.file_bytes; }
  const std::string& path() const override { return path_; }
  bool direct_io() const override { return true; }

 private:
  const WeightFileFront front_;
  const std::string path_;
};

}  // namespace

Result<ModelFile> PlanModelFile(std::string_view config_text,
                                const std::string& name,
                                const ConvertOptions& options,
                                std::string tokenizer) {
  FLASHELM_ASSIGN_OR_RETURN(const ModelConfig config,
                            ParseHfConfig(config_text, name));
  FLASHELM_RETURN_IF_ERROR(CheckEncodings(config, EncodingsOf(options)));
  if (!options.tokenizer_path.empty()) {
    FLASHELM_ASSIGN_OR_RETURN(
        tokenizer, ReadWholeFile(options.tokenizer_path, kMaxTokenizerBytes));
  } else if (tokenizer.empty()) {
    FLASHELM_ASSIGN_OR_RETURN(
        tokenizer,
        MakeTokenizerModel(std::min(config.vocab_size, kMaxVocabulary)));
  }
  // A checkpoint has these, whatever is in them.
  Json files = Json::array();
  for (const char* file :
       {"config.json", "model.safetensors", "tokenizer.model"}) {
    files.push_back(DescribeFile(file, config_text.size(), Xxh3Stream()));
  }
  FLASHELM_ASSIGN_OR_RETURN(
      WeightFileFront front,
      MakeWeightFileFront(ContentsOf(config, options, name, std::move(files),
                                     std::move(tokenizer))));
  return ModelFile::Open(std::make_unique<PlannedFile>(std::move(front), name));
}

Result<ModelFile> PlanModelFileAt(const std::string& path,
                                  const ConvertOptions& options) {
  namespace fs = std::filesystem;
  std::error_code error;
  const bool is_directory = fs::is_directory(path, error);
  const fs::path directory =
      is_directory ? fs::path(path) : fs::path(path).parent_path();
  const std::string config =
      is_directory ? (directory / "config.json").string() : path;
  FLASHELM_ASSIGN_OR_RETURN(const std::string text,
                            ReadWholeFile(config, kMaxConfigBytes));
  const std::string beside = (directory / "tokenizer.model").string();
  std::string tokenizer;
  if (options.tokenizer_path.empty() && fs::exists(beside, error)) {
    FLASHELM_ASSIGN_OR_RETURN(tokenizer,
                              ReadWholeFile(beside, kMaxTokenizerBytes));
  }
  return PlanModelFile(text, config, options, std::move(tokenizer));
}

Result<ModelFile> PlanModelFileOfShape(std::string_view shape,
                                       const ConvertOptions& options) {
  FLASHELM_ASSIGN_OR_RETURN(const OpenElmShape dimensions,
                            PublishedShape(shape));
  FLASHELM_ASSIGN_OR_RETURN(const Json config,
                            MakeHfConfig(dimensions, "swish", "bfloat16"));
  return PlanModelFile(config.dump(), "OpenELM-" + std::string(shape), options);
}

bool IsCheckpointConfig(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return true;
  if (!std::filesystem::is_regular_file(path, error)) return false;
  std::ifstream file(path);
  char first = 0;
  return file >> first && first == '{';
}

}  // namespace flashelm
