#include "bench/small_model.h"

#include <stdlib.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "core/convert/convert.h"
#include "core/convert/synth.h"

namespace flashelm {

Result<std::unique_ptr<SmallModel>> SmallModel::Write() {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path parent = fs::temp_directory_path(error);
  std::string directory = (parent / "flashelm-bench-XXXXXX").string();
  if (error || mkdtemp(directory.data()) == nullptr) {
    const int code = error ? error.value() : errno;
    return ErrnoStatus(code, "cannot make a temporary directory");
  }
  std::unique_ptr<SmallModel> model(new SmallModel(directory));
  SynthOptions synth;
  synth.shape.model_dim = 512;
  synth.shape.num_layers = 4;
  synth.shape.vocab_size = 4096;
  synth.shape.max_context = 512;
  synth.shape_name = "small";
  const std::string source = directory + "/source";
  if (const auto written = WriteSynth(source, synth); !written) {
    return Unexpected(written.error());
  }
  if (const auto made = Convert(source, model->path(), {}); !made) {
    return Unexpected(made.error());
  }
  return model;
}

Result<std::unique_ptr<SmallModel>> SmallModel::WriteUnlessGiven(
    std::string& path) {
  std::unique_ptr<SmallModel> small;
  if (!path.empty()) return small;
  FLASHELM_ASSIGN_OR_RETURN(small, Write());
  path = small->path();
  return small;
}

SmallModel::~SmallModel() {
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

}  // namespace flashelm
