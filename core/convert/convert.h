// A checkpoint directory to a model file.
#ifndef FLASHELM_CORE_CONVERT_CONVERT_H_
#define FLASHELM_CORE_CONVERT_CONVERT_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "core/base/cancel.h"
#include "core/base/status.h"
#include "core/model_config.h"
#include "storage/weight_format.h"

namespace flashelm {

struct ConvertOptions {
  // Of the matrices; norm vectors are f32 in every file. Narrowing rounds to
  // nearest, ties to even; equal or wider formats keep every value.
  Encoding weights = Encoding::kBf16;
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

struct ConvertReport {
  ModelConfig config;
  uint64_t source_bytes = 0;  // Of all files read, each counted once.
  uint64_t file_bytes = 0;
  uint64_t num_params = 0;
  // Weights that are NaN or infinite in the file, also by rounding to bf16, and
  // the first tensor of the source that has one.
  uint64_t num_nonfinite = 0;
  std::string first_nonfinite_tensor;
};

// Writes `out_path` from the checkpoint in `source_dir`. Nothing is written
// before the configuration, every tensor's shape, the tokenizer and every value
// were checked, and the file appears under its name when it is complete; after
// an error there is none, and one that stood there stays as it was. Equal input
// gives equal bytes. Reads the source twice; takes about 64 MiB of memory,
// whatever the model's size, and the size of the tokenizer a few times over.
// kNotFound: a file of the source, the tokenizer or the output's directory.
// kDataLoss: a damaged source, one whose parts contradict each other, or values
// that are not finite. kUnimplemented: a model that is not OpenELM as released.
// kInvalidArgument: the output cannot be written or is a file of the source.
// kResourceExhausted: the disk is full. kUnavailable: a read failed.
// kCancelled: as asked.
Result<ConvertReport> Convert(const std::string& source_dir,
                              const std::string& out_path,
                              const ConvertOptions& options);

}  // namespace flashelm

#endif  // FLASHELM_CORE_CONVERT_CONVERT_H_
