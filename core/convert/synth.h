// Checkpoints with random weights, for benchmarks and tests.
#ifndef FLASHELM_CORE_CONVERT_SYNTH_H_
#define FLASHELM_CORE_CONVERT_SYNTH_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/base/cancel.h"
#include "core/base/status.h"
#include "core/convert/openelm_shapes.h"
#include "core/convert/safetensors.h"
#include "core/convert/synth_weights.h"
#include "core/model_config.h"

namespace flashelm {

struct SynthOptions {
  OpenElmShape shape;
  // What the files call the model, in README.md: "3B", for instance.
  std::string shape_name;
  ElementType dtype = ElementType::kBf16;  // Or kF32.
  uint64_t seed = 1;
  std::string activation = "swish";  // Or "relu".
  // With "relu" alone. The part of a layer's neurons that is active for a
  // token, by default 0.1, and the mean intersection over union of the active
  // sets of consecutive tokens, by default 0.3 or, where that is less than
  // unrelated sets have, halfway from theirs to 1. See synth_weights.h.
  std::optional<double> active_fraction;
  std::optional<double> locality;
  // Most bytes of tensors in one file, as the writer of the released files had
  // it; a larger tensor gets a file of its own.
  uint64_t max_shard_bytes = 5'000'000'000;
  // Threads that make numbers; 0: one per processor, at most 8.
  uint32_t num_threads = 0;
  // Polled between blocks; null when nobody will ask to stop. Outlives the
  // call.
  const CancelToken* cancel = nullptr;
  // Called from the calling thread, about once per MB, with bytes of weights.
  // May be empty.
  std::function<void(uint64_t done, uint64_t total)> progress;
};

// One safetensors file before it is written.
struct SynthFile {
  std::string name;                  // In the directory.
  std::vector<SynthTensor> tensors;  // In the order of the file: by name.
  std::string front;                 // Length and directory.
  uint64_t num_bytes = 0;            // Of the whole file.
};

// What would be written, without writing.
struct SynthPlan {
  ModelConfig config;
  std::optional<GateStatistics> gates;  // With "relu".
  double active_fraction = 0;           // With "relu".
  double locality = 0;                  // With "relu".
  std::vector<SynthFile> weights;       // More than one: with an index.
  uint64_t tensor_bytes = 0;            // Of all weights.
  // Names and texts of the small files; config.json is the last.
  struct TextFile {
    std::string name;
    std::string text;
  };
  std::vector<TextFile> texts;

  // Of all files.
  uint64_t total_bytes() const;
};

// kInvalidArgument: options that make no model, or that the activation does not
// have.
Result<SynthPlan> PlanSynth(const SynthOptions& options);

// Writes a checkpoint into `directory`: config.json, model.safetensors or its
// shards with their index, tokenizer.model, and a README.md that says that the
// weights are random. The directory is made unless an empty one is there. After
// an error nothing is left of it all. Equal options give equal weights,
// whatever the number of threads. Takes under 20 MiB of memory, whatever the
// shape. kInvalidArgument: the options; a directory that is not empty or cannot
// be written to. kNotFound: no place for the directory. kResourceExhausted: the
// disk has less room than the files take, which is known beforehand.
// kCancelled: as asked.
Result<SynthPlan> WriteSynth(const std::string& directory,
                             const SynthOptions& options);

}  // namespace flashelm

#endif  // FLASHELM_CORE_CONVERT_SYNTH_H_
