#include "core/model_layout.h"

#include <cassert>
#include <string_view>
#include <utility>

namespace flashelm {
namespace {

// Rows keep to cache lines, so a vector load crosses as few as it can.
constexpr uint64_t kRecordAlignment = 64;

// Two rooms that do not know each other.
static_assert(kElementsPerGroup == kQuantGroup);

// Adds a segment whose records hold the given parts, side by side.
class LayoutBuilder {
 public:
  struct PartSpec {
    const char* part;
    std::string tensor;
    uint64_t num_elements;
    std::optional<Encoding> encoding = std::nullopt;  // Other than the rest.
  };

  void Add(SegmentKind kind, std::optional<uint32_t> layer,
           uint64_t num_records, Encoding encoding,
           const std::vector<PartSpec>& parts) {
    Segment segment;
    segment.kind = kind;
    segment.layer = layer;
    segment.num_records = num_records;
    for (const PartSpec& spec : parts) {
      Part part{spec.part, spec.encoding.value_or(encoding),
                segment.stride_bytes, spec.num_elements};
      segment.stride_bytes += part.num_bytes();
      Tensor tensor{spec.tensor, num_records, spec.num_elements, {}};
      tensor.planes.push_back({static_cast<uint32_t>(layout.segments.size()),
                               static_cast<uint32_t>(segment.parts.size()),
                               EncodingBits(part.encoding), "none"});
      layout.tensors.push_back(std::move(tensor));
      segment.parts.push_back(std::move(part));
    }
    segment.stride_bytes = RoundUp(segment.stride_bytes, kRecordAlignment);
    layout.segments.push_back(std::move(segment));
  }

  ModelLayout layout;
};

std::string LayerTensor(uint32_t layer, std::string_view name) {
  return StatusMessage::Join("layers.", layer, ".", name);
}

}  // namespace

Status CheckEncodings(const ModelConfig& config,
                      const MatrixEncodings& encodings) {
  const auto check = [](Encoding encoding, const std::string& name,
                        uint64_t dim) -> Status {
    if (encoding == Encoding::kNibble) {
      return InvalidArgument("nibble refines q4, it is no encoding of its own");
    }
    if (encoding == Encoding::kU8) {
      return InvalidArgument("u8 is for predictors, no encoding of matrices");
    }
    if (!IsGrouped(encoding) || dim % kElementsPerGroup == 0) return OkStatus();
    return InvalidArgument(name, " of ", dim, " cannot be stored as ",
                           EncodingName(encoding),
                           ", which takes multiples of ", kElementsPerGroup,
                           "; bf16 and f32 take any");
  };
  for (const Encoding encoding :
       {encodings.embedding, encodings.attention, encodings.ffn}) {
    FLASHELM_RETURN_IF_ERROR(check(encoding, "model_dim", config.model_dim));
  }
  for (uint32_t i = 0; i < config.num_layers(); ++i) {
    FLASHELM_RETURN_IF_ERROR(check(encodings.attention,
                                   LayerTensor(i, "query_dim"),
                                   config.query_dim(config.layers[i])));
  }
  return OkStatus();
}

ModelLayout MakeLayout(const ModelConfig& config,
                       const MatrixEncodings& encodings,
                       const LayoutOptions& options) {
  using PartSpec = LayoutBuilder::PartSpec;
  const uint64_t model_dim = config.model_dim;
  const uint64_t head_dim = config.head_dim;
  LayoutBuilder builder;
  builder.Add(SegmentKind::kEmbedding, std::nullopt, config.vocab_size,
              encodings.embedding, {{"row", "token_embedding", model_dim}});
  for (uint32_t i = 0; i < config.num_layers(); ++i) {
    const LayerConfig& layer = config.layers[i];
    builder.Add(
        SegmentKind::kNorms, i, 1, Encoding::kF32,
        {{"attention_norm", LayerTensor(i, "attention_norm"), model_dim},
         {"query_norm", LayerTensor(i, "query_norm"), head_dim},
         {"key_norm", LayerTensor(i, "key_norm"), head_dim},
         {"ffn_norm", LayerTensor(i, "ffn_norm"), model_dim}});
    builder.Add(SegmentKind::kQkv, i, config.qkv_dim(layer),
                encodings.attention,
                {{"row", LayerTensor(i, "qkv"), model_dim}});
    builder.Add(
        SegmentKind::kAttentionOut, i, model_dim, encodings.attention,
        {{"row", LayerTensor(i, "attention_out"), config.query_dim(layer)}});
    if (options.neuron_stats) {
      std::vector<PartSpec> parts = {
          {"importance", LayerTensor(i, "ffn_importance"), layer.ffn_dim},
          {"frequency", LayerTensor(i, "ffn_frequency"), layer.ffn_dim}};
      const uint64_t predictor_bytes =
          options.predictor_bytes.empty() ? 0 : options.predictor_bytes[i];
      if (predictor_bytes > 0) {
        parts.push_back({"predictor", LayerTensor(i, "ffn_predictor"),
                         predictor_bytes, Encoding::kU8});
      }
      builder.Add(SegmentKind::kPredictor, i, 1, Encoding::kF32, parts);
    }
    const PartSpec gate = {"gate", LayerTensor(i, "ffn_gate"), model_dim};
    const PartSpec up = {"up", LayerTensor(i, "ffn_up"), model_dim};
    const PartSpec down = {"down", LayerTensor(i, "ffn_down"), model_dim};
    if (options.rows) {
      builder.Add(SegmentKind::kFfnGate, i, layer.ffn_dim, encodings.ffn,
                  {gate});
      builder.Add(SegmentKind::kFfnUp, i, layer.ffn_dim, encodings.ffn, {up});
      builder.Add(SegmentKind::kFfnDown, i, layer.ffn_dim, encodings.ffn,
                  {down});
    } else if (options.split_gate) {
      builder.Add(SegmentKind::kFfnGate, i, layer.ffn_dim, encodings.ffn,
                  {gate});
      builder.Add(SegmentKind::kFfn, i, layer.ffn_dim, encodings.ffn,
                  {up, down});
    } else {
      builder.Add(SegmentKind::kFfn, i, layer.ffn_dim, encodings.ffn,
                  {gate, up, down});
    }
  }
  builder.Add(SegmentKind::kFinalNorm, std::nullopt, 1, Encoding::kF32,
              {{"final_norm", "final_norm", model_dim}});
  return std::move(builder.layout);
}

namespace {

// Looks tensors up and compares what the file says with what the model needs.
class Finder {
 public:
  explicit Finder(const WeightFile& file)
      : file_(file), is_used_(file.segments().size(), false) {}

  // On failure the first error stays and `ref` is left as it was.
  void Find(const std::string& name, uint64_t rows, uint64_t cols,
            SegmentKind kind, PartRef& ref,
            Encoding expected_vector = Encoding::kF32) {
    if (!status_.ok()) return;
    auto found = Find(name, rows, cols, kind, expected_vector);
    if (found) {
      ref = *found;
    } else {
      status_ = found.error();
    }
  }
  // Whether the file has a tensor of that name in a segment of that kind.
  bool Has(const std::string& name, SegmentKind kind) const {
    const Tensor* tensor = file_.FindTensor(name);
    return tensor != nullptr &&
           file_.segments()[tensor->planes[0].segment].kind == kind;
  }
  // The parts lie in the records of one segment, which holds nothing else.
  void ExpectOneSegment(std::string_view name,
                        const std::vector<PartRef>& refs) {
    if (!status_.ok()) return;
    const uint32_t segment = refs[0].segment;
    for (const PartRef& ref : refs) {
      if (ref.segment != segment) {
        status_ = DataLoss(file_.path(), ": ", name, " lies in segments ",
                           segment, " and ", ref.segment, ", expected one");
        return;
      }
    }
    if (is_used_[segment]) {
      status_ = DataLoss(file_.path(), ": segment ", segment,
                         " holds more than ", name);
    }
    is_used_[segment] = true;
  }
  void ExpectAllUsed() {
    for (size_t i = 0; i < is_used_.size() && status_.ok(); ++i) {
      if (!is_used_[i]) {
        status_ = DataLoss(file_.path(), ": segment ", i, ", ",
                           file_.segments()[i].Describe(),
                           ", belongs to no tensor of the model");
      }
    }
  }

  Status TakeStatus() { return std::move(status_); }

 private:
  Result<PartRef> Find(const std::string& name, uint64_t rows, uint64_t cols,
                       SegmentKind kind, Encoding expected_vector) const {
    const Tensor* tensor = file_.FindTensor(name);
    if (tensor == nullptr) {
      return DataLoss(file_.path(), ": tensor \"", name, "\" is missing");
    }
    if (tensor->rows != rows || tensor->cols != cols) {
      return DataLoss(file_.path(), ": tensor \"", name, "\" has shape [",
                      tensor->rows, ", ", tensor->cols, "], expected [", rows,
                      ", ", cols, "]");
    }
    if (tensor->planes.size() != 1 || tensor->planes[0].combine != "none") {
      return Unimplemented(file_.path(), ": tensor \"", name, "\" in ",
                           tensor->planes.size(), " planes combined by \"",
                           tensor->planes.back().combine,
                           "\", this version computes with 1");
    }
    const Plane& plane = tensor->planes[0];
    const Segment& segment = file_.segments()[plane.segment];
    if (segment.kind != kind) {
      return DataLoss(file_.path(), ": tensor \"", name, "\" lies in a ",
                      SegmentKindName(segment.kind), " segment, expected ",
                      SegmentKindName(kind));
    }
    const Part& part = segment.parts[plane.part];
    const bool is_vector = kind == SegmentKind::kNorms ||
                           kind == SegmentKind::kFinalNorm ||
                           kind == SegmentKind::kPredictor;
    if (is_vector ? part.encoding != expected_vector
                  : part.encoding == Encoding::kU8) {
      return Unimplemented(
          file_.path(), ": tensor \"", name, "\" is ",
          EncodingName(part.encoding), ", expected ",
          is_vector ? EncodingName(expected_vector) : "one of a matrix");
    }
    return PartRef{plane.segment, part.offset_bytes, part.scales_offset_bytes(),
                   part.encoding};
  }

  const WeightFile& file_;
  std::vector<bool> is_used_;  // By segment.
  Status status_;
};

}  // namespace

Result<ModelWeights> FindWeights(const ModelConfig& config,
                                 const WeightFile& file) {
  ModelWeights weights;
  Finder finder(file);
  const uint64_t model_dim = config.model_dim;
  const uint64_t head_dim = config.head_dim;
  finder.Find("token_embedding", config.vocab_size, model_dim,
              SegmentKind::kEmbedding, weights.embedding);
  finder.ExpectOneSegment("token_embedding", {weights.embedding});
  weights.layers.resize(config.num_layers());
  for (uint32_t i = 0; i < config.num_layers(); ++i) {
    const LayerConfig& layer = config.layers[i];
    LayerWeights& out = weights.layers[i];
    const auto find = [&](const char* name, uint64_t rows, uint64_t cols,
                          SegmentKind kind, PartRef& ref) {
      finder.Find(LayerTensor(i, name), rows, cols, kind, ref);
    };
    find("attention_norm", 1, model_dim, SegmentKind::kNorms,
         out.attention_norm);
    find("query_norm", 1, head_dim, SegmentKind::kNorms, out.query_norm);
    find("key_norm", 1, head_dim, SegmentKind::kNorms, out.key_norm);
    find("ffn_norm", 1, model_dim, SegmentKind::kNorms, out.ffn_norm);
    find("qkv", config.qkv_dim(layer), model_dim, SegmentKind::kQkv, out.qkv);
    find("attention_out", model_dim, config.query_dim(layer),
         SegmentKind::kAttentionOut, out.attention_out);
    const std::string gate = LayerTensor(i, "ffn_gate");
    const std::string up = LayerTensor(i, "ffn_up");
    const bool is_rows = finder.Has(up, SegmentKind::kFfnUp);
    const bool is_split = is_rows || finder.Has(gate, SegmentKind::kFfnGate);
    find("ffn_gate", layer.ffn_dim, model_dim,
         is_split ? SegmentKind::kFfnGate : SegmentKind::kFfn, out.gate);
    find("ffn_up", layer.ffn_dim, model_dim,
         is_rows ? SegmentKind::kFfnUp : SegmentKind::kFfn, out.up);
    find("ffn_down", layer.ffn_dim, model_dim,
         is_rows ? SegmentKind::kFfnDown : SegmentKind::kFfn, out.down);
    finder.ExpectOneSegment(LayerTensor(i, "qkv"), {out.qkv});
    finder.ExpectOneSegment(LayerTensor(i, "attention_out"),
                            {out.attention_out});
    if (is_rows) {
      finder.ExpectOneSegment(gate, {out.gate});
      finder.ExpectOneSegment(up, {out.up});
      finder.ExpectOneSegment(LayerTensor(i, "ffn_down"), {out.down});
    } else if (is_split) {
      finder.ExpectOneSegment(gate, {out.gate});
      finder.ExpectOneSegment(LayerTensor(i, "ffn"), {out.up, out.down});
    } else {
      finder.ExpectOneSegment(LayerTensor(i, "ffn"),
                              {out.gate, out.up, out.down});
    }
    const std::string importance = LayerTensor(i, "ffn_importance");
    if (file.FindTensor(importance) != nullptr) {
      out.importance.emplace();
      find("ffn_importance", 1, layer.ffn_dim, SegmentKind::kPredictor,
           *out.importance);
      std::vector<PartRef> parts = {*out.importance};
      if (file.FindTensor(LayerTensor(i, "ffn_frequency")) != nullptr) {
        out.frequency.emplace();
        find("ffn_frequency", 1, layer.ffn_dim, SegmentKind::kPredictor,
             *out.frequency);
        parts.push_back(*out.frequency);
      }
      const std::string predictor = LayerTensor(i, "ffn_predictor");
      if (const Tensor* tensor = file.FindTensor(predictor)) {
        out.predictor.emplace();
        out.predictor_bytes = tensor->cols;
        finder.Find(predictor, 1, tensor->cols, SegmentKind::kPredictor,
                    *out.predictor, Encoding::kU8);
        parts.push_back(*out.predictor);
      }
      finder.ExpectOneSegment(importance, parts);
    }
    finder.ExpectOneSegment(
        LayerTensor(i, "norms"),
        {out.attention_norm, out.query_norm, out.key_norm, out.ffn_norm});
  }
  finder.Find("final_norm", 1, model_dim, SegmentKind::kFinalNorm,
              weights.final_norm);
  finder.ExpectOneSegment("final_norm", {weights.final_norm});
  finder.ExpectAllUsed();
  FLASHELM_RETURN_IF_ERROR(finder.TakeStatus());
  // The engine asks the first one for the form of all.
  const LayerWeights& first = weights.layers.at(0);
  for (size_t i = 1; i < weights.layers.size(); ++i) {
    const LayerWeights& layer = weights.layers[i];
    if (layer.has_split_gate() == first.has_split_gate() &&
        layer.has_split_down() == first.has_split_down() &&
        layer.importance.has_value() == first.importance.has_value() &&
        layer.predictor.has_value() == first.predictor.has_value()) {
      continue;
    }
    return Unimplemented(file.path(), ": layers 0 and ", i,
                         " have their neurons in segments of other kinds; "
                         "this version takes the same for all layers");
  }
  return weights;
}

Activation ActivationOf(const ModelConfig& config) {
  return config.activation == "relu" ? Activation::kRelu : Activation::kSilu;
}

WeightType WeightTypeOf(Encoding encoding) {
  switch (encoding) {
    case Encoding::kF32:
      return WeightType::kF32;
    case Encoding::kBf16:
      return WeightType::kBf16;
    case Encoding::kQ8:
      return WeightType::kQ8;
    case Encoding::kQ4:
      return WeightType::kQ4;
    case Encoding::kNibble:
    case Encoding::kU8:
      break;
  }
  assert(false);  // Never in a matrix that the engine takes.
  return WeightType::kF32;
}

WeightView ViewOfPart(const std::byte* records, const PartRef& part,
                      uint64_t stride_bytes) {
  const WeightType type = WeightTypeOf(part.encoding);
  return {records + part.offset_bytes, stride_bytes, type,
          IsQuantized(type) ? records + part.scales_offset_bytes : nullptr};
}

}  // namespace flashelm
