// How an OpenELM model is laid out in a model file: which segments there are,
// what their records hold, and which tensor is where.
#ifndef FLASHELM_CORE_MODEL_LAYOUT_H_
#define FLASHELM_CORE_MODEL_LAYOUT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/model_config.h"
#include "kernels/activation.h"
#include "kernels/weight_view.h"
#include "storage/weight_file.h"
#include "storage/weight_format.h"

namespace flashelm {

// How the matrices of a model are stored; norm vectors are f32.
struct MatrixEncodings {
  Encoding embedding = Encoding::kBf16;
  Encoding attention = Encoding::kBf16;  // Both matrices.
  Encoding ffn = Encoding::kBf16;        // All parts of a bundle.

  static MatrixEncodings All(Encoding encoding) {
    return {encoding, encoding, encoding};
  }
};

// kInvalidArgument: an encoding stores groups, and the rows of a matrix are not
// whole ones, with the name of the dimension; or it is of refining planes only.
Status CheckEncodings(const ModelConfig& config,
                      const MatrixEncodings& encodings);

// Other layouts than whole bundles. A conversion makes rows alone; for what a
// file has that was prepared for choosing neurons, see
// convert/calibrated_file.h.
struct LayoutOptions {
  // No bundles: the gate rows, up rows and down columns of a layer lie in a
  // segment each. The baseline that bundles are measured against.
  bool rows = false;
  // The gate rows of a layer in a segment of their own; its bundles hold up row
  // and down column.
  bool split_gate = false;
  // A predictor segment for each layer, with the importance and the frequency
  // of its neurons.
  bool neuron_stats = false;
  // For each layer: bytes of a predictor, in that segment too; 0, or none at
  // all: no predictor.
  std::vector<uint64_t> predictor_bytes = {};
};

// Segments and tensors in the order in which a token uses them, as a converter
// writes them, for encodings that were checked. Offsets and checksums are left
// to the writer.
struct ModelLayout {
  std::vector<Segment> segments;
  std::vector<Tensor> tensors;
};
ModelLayout MakeLayout(const ModelConfig& config,
                       const MatrixEncodings& encodings,
                       const LayoutOptions& options = {});

// Where one matrix or vector of the model lies: a part of a segment's records.
struct PartRef {
  uint32_t segment = 0;
  uint64_t offset_bytes = 0;         // Inside the record.
  uint64_t scales_offset_bytes = 0;  // The same, where the encoding has scales.
  Encoding encoding = Encoding::kF32;
};

// The activation and an encoding as kernels know them.
Activation ActivationOf(const ModelConfig& config);
// For parts that FindWeights() found.
WeightType WeightTypeOf(Encoding encoding);

// That part of records which begin at `records`, every `stride_bytes`.
WeightView ViewOfPart(const std::byte* records, const PartRef& part,
                      uint64_t stride_bytes);

// The same, found by name in a file and checked against its configuration.
struct LayerWeights {
  // All four in one record of one segment.
  PartRef attention_norm;  // [model_dim]
  PartRef query_norm;      // [head_dim]
  PartRef key_norm;        // [head_dim]
  PartRef ffn_norm;        // [model_dim]
  PartRef qkv;             // [qkv_dim, model_dim]
  PartRef attention_out;   // [model_dim, query_dim]
  // In the bundles of one segment, but for a gate that is split off: that has
  // a segment to itself. Or each in a segment of its own.
  PartRef gate;  // [ffn_dim, model_dim]
  PartRef up;    // [ffn_dim, model_dim]
  PartRef down;  // [ffn_dim, model_dim]: column i of the matrix is record i.
  // [ffn_dim], f32: norm of a neuron's up row times norm of its down column.
  // Only where the file was calibrated.
  std::optional<PartRef> importance;
  // [ffn_dim], f32, from 0 to 1: of the tokens that the file was calibrated on,
  // those for which a neuron was active. Where there is an importance.
  std::optional<PartRef> frequency;
  // As predictor/predictor_file.h has it; where one was trained.
  std::optional<PartRef> predictor;
  uint64_t predictor_bytes = 0;

  bool has_split_gate() const { return gate.segment != up.segment; }
  // Whether there are no bundles; then the gate is split off, too.
  bool has_split_down() const { return down.segment != up.segment; }
  // Where all but gates that are split off lies, in the order of use: bundles,
  // or up rows and down columns.
  std::vector<uint32_t> neuron_segments() const {
    if (!has_split_down()) return {down.segment};
    return {up.segment, down.segment};
  }
};
struct ModelWeights {
  PartRef embedding;  // [vocab_size, model_dim]
  std::vector<LayerWeights> layers;
  PartRef final_norm;  // [model_dim]
};

// kDataLoss: a tensor is missing, or has another shape than the configuration
// says. kUnimplemented: a tensor in planes that this engine does not combine.
Result<ModelWeights> FindWeights(const ModelConfig& config,
                                 const WeightFile& file);

}  // namespace flashelm

#endif  // FLASHELM_CORE_MODEL_LAYOUT_H_
