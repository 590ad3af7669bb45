// A checkpoint directory to a model file.
#ifndef FLASHELM_CORE_CONVERT_CONVERT_H_
#define FLASHELM_CORE_CONVERT_CONVERT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/cancel.h"
#include "core/base/status.h"
#include "core/model_config.h"
#include "core/model_layout.h"
#include "storage/json.h"
#include "storage/weight_file_writer.h"
#include "storage/weight_format.h"

namespace flashelm {

struct ConvertOptions {
  // Of the matrices: f32, bf16, q8 or q4; norm vectors are f32 in every file.
  // Narrowing to bf16 rounds to nearest, ties to even; q8 and q4 are as
  // QuantizeRow() makes them; equal or wider formats keep every value.
  Encoding weights = Encoding::kBf16;
  // Of some of them, where they differ. An embedding that nobody asked for is
  // q8 where `weights` is q4: it is small, and as output head its errors go
  // straight to the logits.
  std::optional<Encoding> embedding;
  std::optional<Encoding> attention;
  std::optional<Encoding> ffn;
  // Gate rows, up rows and down columns in a segment each, instead of bundles.
  bool rows = false;
  // Of computation; 0: one for each fast core. The file is the same with any.
  uint32_t num_threads = 0;
  // Empty: tokenizer.model in the checkpoint's directory.
  std::string tokenizer_path;
  // Take NaN and infinite weights over instead of refusing them.
  bool allow_nonfinite = false;
  // Polled between reads; null when nobody will ask to stop. Outlives the call.
  const CancelToken* cancel = nullptr;
  // Called from the converting thread, about once per MB, with the bytes of the
  // source that a stage has read: "check" hashes every file and looks for
  // values that are not finite, "convert" writes. May be empty.
  std::function<void(std::string_view stage, uint64_t done, uint64_t total)>
      progress;
  // Whether a tokenizer's bytes can be used with that vocabulary; `name` begins
  // its messages. May be empty: then any bytes are taken over.
  std::function<Status(std::string_view bytes, std::string_view name,
                       uint32_t vocab_size)>
      check_tokenizer;
  // Recorded in the file's provenance.
  std::string converter_version;
};

// What each kind of matrix becomes.
MatrixEncodings EncodingsOf(const ConvertOptions& options);

// The largest tokenizer that is taken over.
inline constexpr uint64_t kMaxTokenizerBytes = uint64_t{64} << 20;

// What a file holds before its weights are known. `source` names the
// checkpoint, `files` lists those that it has.
WeightFileContents ContentsOf(const ModelConfig& config,
                              const ConvertOptions& options,
                              const std::string& source, Json files,
                              std::string tokenizer);

// What quantising cost the matrices of one kind.
struct QuantizationTotal {
  double squared_error = 0;
  double squared_sum = 0;  // Of the weights as the source has them.
  uint64_t num_weights = 0;

  double mean_squared_error() const {
    return squared_error / static_cast<double>(num_weights);
  }
  // Of the weights' mean square.
  double relative_error() const {
    return squared_sum > 0 ? squared_error / squared_sum : 0;
  }
};

struct ConvertReport {
  ModelConfig config;
  uint64_t source_bytes = 0;  // Of all files read, each counted once.
  uint64_t file_bytes = 0;
  uint64_t num_params = 0;
  // Weights that are NaN or infinite in the file, also by rounding to bf16, and
  // the first tensor of the source that has one.
  uint64_t num_nonfinite = 0;
  std::string first_nonfinite_tensor;
  // The same for weights, NaN included, that the file could not hold as q8 or
  // q4. There are none in a file.
  uint64_t num_unquantizable = 0;
  std::string first_unquantizable_tensor;
  // By "embedding", "attention" and "ffn", as far as they are q8 or q4; also in
  // the file's provenance.
  std::map<std::string, QuantizationTotal> quantization;
};

// Writes `out_path` from the checkpoint in `source_dir`. Nothing is written
// before the configuration, every tensor's shape, the tokenizer and every value
// were checked, and the file appears under its name when it is complete; after
// an error there is none, and one that stood there stays as it was. Equal input
// gives equal bytes. Reads the source twice; takes about 64 MiB of memory, 96
// when it quantises, whatever the model's size, and the size of the tokenizer a
// few times over.
// kNotFound: a file of the source, the tokenizer or the output's directory.
// kDataLoss: a damaged source, one whose parts contradict each other, or values
// that are not finite. kUnimplemented: a model that is not OpenELM as released.
// kInvalidArgument: the output cannot be written or is a file of the source; q8
// or q4 for rows that are no whole groups or for weights that are NaN (where
// that is allowed), infinite, or above kMaxQuantized.
// kResourceExhausted: the disk is full. kUnavailable: a read failed.
// kCancelled: as asked.
Result<ConvertReport> Convert(const std::string& source_dir,
                              const std::string& out_path,
                              const ConvertOptions& options);

}  // namespace flashelm

#endif  // FLASHELM_CORE_CONVERT_CONVERT_H_
