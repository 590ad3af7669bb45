// A model file as the engine sees it: configuration, weights by role and
// tokenizer, before any weight is read.
#ifndef FLASHELM_CORE_MODEL_FILE_H_
#define FLASHELM_CORE_MODEL_FILE_H_

#include <string>

#include "core/base/status.h"
#include "core/model_config.h"
#include "core/model_layout.h"
#include "core/tokenizer.h"
#include "storage/verify.h"
#include "storage/weight_file.h"

namespace flashelm {

// Immutable, so thread-safe. Takes about as much memory as the tokenizer and
// ten times the manifest.
class ModelFile {
 public:
  // kNotFound, kDataLoss, kUnimplemented: as WeightFile::Open(), FindWeights()
  // and Tokenizer::Parse().
  static Result<ModelFile> Open(const std::string& path);
  // The same over a file that is open already, for tests that inject faults.
  static Result<ModelFile> Open(std::unique_ptr<RandomAccessFile> file);

  // Reads the whole file and compares every checksum; as VerifyFile().
  Result<VerifyReport> Verify(
      const CancelToken& cancel,
      const std::function<void(uint64_t)>& progress) const {
    return VerifyFile(weight_file_, cancel, progress);
  }

  const WeightFile& weight_file() const { return weight_file_; }
  const ModelConfig& config() const { return config_; }
  const ModelWeights& weights() const { return weights_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const std::string& path() const { return weight_file_.path(); }
  uint64_t file_bytes() const { return weight_file_.header().file_bytes; }
  // "bf16", or where matrices differ all there are, those of the layers first:
  // "q4+q8".
  std::string weights_name() const;
  // Whether the gates of its FFNs lie apart from the bundles.
  bool has_split_gates() const {
    return !weights_.layers.empty() && weights_.layers[0].has_split_gate();
  }
  // Whether it has no bundles: up rows and down columns lie apart, too.
  bool has_rows() const {
    return !weights_.layers.empty() && weights_.layers[0].has_split_down();
  }
  // Whether its neurons have what a calibration finds out about them.
  bool has_neuron_stats() const {
    return !weights_.layers.empty() && weights_.layers[0].importance;
  }
  // Whether any matrix is quantized.
  bool has_quantized() const { return has_quantized_; }
  // Whether any is of floats.
  bool has_floats() const { return has_floats_; }

 private:
  ModelFile(WeightFile weight_file, ModelConfig config, ModelWeights weights,
            Tokenizer tokenizer);

  WeightFile weight_file_;
  ModelConfig config_;
  ModelWeights weights_;
  Tokenizer tokenizer_;
  bool has_quantized_ = false;
  bool has_floats_ = false;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_MODEL_FILE_H_
