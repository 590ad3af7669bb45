#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/verbs.h"
#include "core/base/format.h"
#include "core/memory_plan.h"
#include "core/model_file.h"

namespace flashelm::cli {
namespace {

using Json = nlohmann::ordered_json;

// The weights that serve one purpose.
struct Kind {
  const char* name;
  std::string encodings = {};  // "q4", or several with "+" between them.
  uint64_t bytes = 0;
  uint64_t num_weights = 0;
  // What quantising cost, if the converter said so.
  std::optional<double> mse = {};
  std::optional<double> relative = {};

  double bits_per_weight() const {
    return 8 * static_cast<double>(bytes) / static_cast<double>(num_weights);
  }
};

void AddSegment(const Segment& segment, Kind& kind) {
  kind.bytes += segment.num_bytes();
  for (const Part& part : segment.parts) {
    kind.num_weights += segment.num_records * part.num_elements;
    const std::string name(EncodingName(part.encoding));
    if (kind.encodings.find(name) == std::string::npos) {
      kind.encodings += (kind.encodings.empty() ? "" : "+") + name;
    }
  }
}

// A number that the provenance may hold; it is for people, and unchecked.
std::optional<double> QuantizationFigure(const WeightFile& file,
                                         const char* kind, const char* figure) {
  const auto* at = &file.provenance();
  for (const char* key : {"quantization", kind, figure}) {
    const auto found = at->find(key);  // The end, unless it is an object.
    if (found == at->end()) return std::nullopt;
    at = &*found;
  }
  if (!at->is_number()) return std::nullopt;
  return at->get<double>();
}

std::vector<Kind> Kinds(const WeightFile& file) {
  std::vector<Kind> kinds = {{"embedding"}, {"attention"}, {"ffn"}, {"norms"}};
  Kind predictor = {"predictor"};
  for (const Segment& segment : file.segments()) {
    switch (segment.kind) {
      case SegmentKind::kEmbedding:
        AddSegment(segment, kinds[0]);
        break;
      case SegmentKind::kQkv:
      case SegmentKind::kAttentionOut:
        AddSegment(segment, kinds[1]);
        break;
      case SegmentKind::kFfnGate:
      case SegmentKind::kFfnUp:
      case SegmentKind::kFfnDown:
      case SegmentKind::kFfn:
        AddSegment(segment, kinds[2]);
        break;
      case SegmentKind::kPredictor:
        AddSegment(segment, predictor);
        break;
      case SegmentKind::kNorms:
      case SegmentKind::kFinalNorm:
        AddSegment(segment, kinds[3]);
        break;
    }
  }
  if (predictor.bytes > 0) kinds.push_back(std::move(predictor));
  for (Kind& kind : kinds) {
    kind.mse = QuantizationFigure(file, kind.name, "mse");
    kind.relative = QuantizationFigure(file, kind.name, "relative");
  }
  return kinds;
}

// All of them together; without the errors, which are means of their own.
Kind Sum(const std::vector<Kind>& kinds) {
  Kind all{"all"};
  for (const Kind& kind : kinds) {
    all.bytes += kind.bytes;
    all.num_weights += kind.num_weights;
  }
  return all;
}

Json ToJson(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

// Bytes of a neuron in the segments of that kind; 0 where there are none.
uint64_t RecordBytes(const WeightFile& file, SegmentKind kind) {
  for (const Segment& segment : file.segments()) {
    if (segment.kind == kind) return segment.stride_bytes;
  }
  return 0;
}

// Of up row and down column, and of the gate row where that is in there.
uint64_t BundleBytes(const WeightFile& file) {
  return RecordBytes(file, SegmentKind::kFfn);
}

// Of a gate row that is in a segment of its own.
uint64_t SplitGateBytes(const WeightFile& file) {
  return RecordBytes(file, SegmentKind::kFfnGate);
}

Json ToJson(const ModelFile& model) {
  const ModelConfig& config = model.config();
  const WeightFile& file = model.weight_file();
  const FelmHeader& header = file.header();
  Json json;
  json["model_path"] = model.path();
  json["model_size_bytes"] = model.file_bytes();
  json["format_version"] = kFelmVersion;
  json["n_params"] = config.num_params();
  json["weights"] = model.weights_name();
  json["config"] = ConfigToJson(config);
  json["bytes"] = Json::object();
  const std::vector<Kind> kinds = Kinds(file);
  for (const Kind& kind : kinds) json["bytes"][kind.name] = kind.bytes;
  json["bytes"]["weights"] = file.weight_bytes();
  for (uint32_t id = 0; id < kNumSections; ++id) {
    json["bytes"][std::string(kSectionNames[id])] =
        header.sections[id].stored_bytes;
  }
  json["layout"] = model.has_rows() ? "rows" : "bundles";
  json["bytes_per_bundle"] =
      model.has_rows() ? Json(nullptr) : Json(BundleBytes(file));
  if (const uint64_t bytes = SplitGateBytes(file); bytes > 0) {
    json["bytes_per_gate_row"] = bytes;
  }
  for (const Kind& kind : kinds) {
    json["encodings"][kind.name] = kind.encodings;
    json["bits_per_weight"][kind.name] = kind.bits_per_weight();
    json["quantization_mse"][kind.name] = ToJson(kind.mse);
    json["quantization_relative_error"][kind.name] = ToJson(kind.relative);
  }
  json["bits_per_weight"]["all"] = Sum(kinds).bits_per_weight();
  json["tokenizer"] = {
      {"pieces", model.tokenizer().vocab_size()},
      {"bytes", header.sections[kTokenizer].raw_bytes},
      {"xxh3", fmt::format("{:016x}", header.sections[kTokenizer].checksum)}};
  json["weights_xxh3"] =
      fmt::format("{:016x}", header.sections[kChecksums].checksum);
  json["provenance"] = file.provenance();
  return json;
}

void Print(const ModelFile& model) {
  const ModelConfig& config = model.config();
  const WeightFile& file = model.weight_file();
  const FelmHeader& header = file.header();
  fmt::print("{}\n", model.path());
  fmt::print("  size         {} bytes ({})\n", model.file_bytes(),
             FormatBytes(model.file_bytes()));
  fmt::print("  parameters   {}\n", config.num_params());
  fmt::print("  weights      {}, ", model.weights_name());
  const uint64_t bytes = SplitGateBytes(file);
  if (model.has_rows()) {
    fmt::print("gate rows, up rows and down columns of {} bytes apart", bytes);
  } else {
    fmt::print("bundles of {} bytes per neuron", BundleBytes(file));
  }
  if (bytes > 0 && !model.has_rows()) {
    fmt::print(", gate rows of {} bytes apart", bytes);
  }
  fmt::print("\n");
  fmt::print(
      "  model        openelm, {} layers, model_dim {}, head_dim {}, "
      "{} query heads per kv head\n",
      config.num_layers(), config.model_dim, config.head_dim,
      config.num_gqa_groups);
  fmt::print("               vocabulary {}, context {}, rope base {}, {}\n",
             config.vocab_size, config.max_context, config.rope_theta,
             config.activation);
  fmt::print("  tokenizer    {} pieces, bos {}, eos {}, {:016x}\n",
             model.tokenizer().vocab_size(), config.bos_id, config.eos_id,
             header.sections[kTokenizer].checksum);
  fmt::print("  content hash {:016x}\n", header.sections[kChecksums].checksum);
  const auto figure = [](const std::optional<double>& value) {
    return value ? fmt::format("{:.3g}", *value) : std::string("-");
  };
  fmt::print("\n    {:<10} {:<8} {:>15} {:>8} {:>12} {:>11} {:>11}\n",
             "weights", "encoding", "bytes per token", "%", "bits/weight",
             "mse", "mse/mean sq");
  const std::vector<Kind> kinds = Kinds(file);
  for (const Kind& kind : kinds) {
    fmt::print("    {:<10} {:<8} {:>15} {:>8.1f} {:>12.3f} {:>11} {:>11}\n",
               kind.name, kind.encodings, kind.bytes,
               100.0 * static_cast<double>(kind.bytes) /
                   static_cast<double>(file.weight_bytes()),
               kind.bits_per_weight(), figure(kind.mse), figure(kind.relative));
  }
  const Kind all = Sum(kinds);
  fmt::print("    {:<10} {:<8} {:>15} {:>8} {:>12.3f}\n", all.name, "",
             all.bytes, "", all.bits_per_weight());
  fmt::print("\n  {:>5} {:>6} {:>9} {:>8}\n", "layer", "heads", "kv heads",
             "ffn_dim");
  for (uint32_t i = 0; i < config.num_layers(); ++i) {
    const LayerConfig& layer = config.layers[i];
    fmt::print("  {:>5} {:>6} {:>9} {:>8}\n", i, layer.num_heads,
               layer.num_kv_heads, layer.ffn_dim);
  }
  fmt::print("\n  provenance\n");
  for (const auto& [key, value] : file.provenance().items()) {
    if (key == "files" && value.is_array()) {
      for (const auto& source : value) fmt::print("    {}\n", source.dump());
    } else {
      fmt::print("    {}: {}\n", key, value.dump());
    }
  }
}

}  // namespace

Status RunInspect(const InspectArgs& args) {
  FLASHELM_ASSIGN_OR_RETURN(const ModelFile model, ModelFile::Open(args.model));
  if (args.json) {
    fmt::print("{}\n", ToJson(model).dump(2, ' ', false,
                                          Json::error_handler_t::replace));
  } else {
    Print(model);
  }
  return OkStatus();
}

}  // namespace flashelm::cli
