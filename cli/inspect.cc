#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/verbs.h"
#include "core/base/format.h"
#include "core/memory_plan.h"
#include "core/model_file.h"

namespace flashelm::cli {
namespace {

using Json = nlohmann::ordered_json;

struct KindBytes {
  const char* name;
  uint64_t bytes = 0;
};

// Bytes of the weights by what they are for.
std::vector<KindBytes> BytesByKind(const WeightFile& file) {
  std::vector<KindBytes> kinds = {
      {"embedding"}, {"attention"}, {"ffn"}, {"norms"}};
  for (const Segment& segment : file.segments()) {
    size_t index = 0;
    switch (segment.kind) {
      case SegmentKind::kEmbedding:
        index = 0;
        break;
      case SegmentKind::kQkv:
      case SegmentKind::kAttentionOut:
        index = 1;
        break;
      case SegmentKind::kFfn:
        index = 2;
        break;
      case SegmentKind::kNorms:
      case SegmentKind::kFinalNorm:
        index = 3;
        break;
    }
    kinds[index].bytes += segment.num_bytes();
  }
  return kinds;
}

// Bytes of one neuron's gate row, up row and down column.
uint64_t BundleBytes(const WeightFile& file) {
  for (const Segment& segment : file.segments()) {
    if (segment.kind == SegmentKind::kFfn) return segment.stride_bytes;
  }
  return 0;
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
  for (const KindBytes& kind : BytesByKind(file)) {
    json["bytes"][kind.name] = kind.bytes;
  }
  json["bytes"]["weights"] = file.weight_bytes();
  for (uint32_t id = 0; id < kNumSections; ++id) {
    json["bytes"][std::string(kSectionNames[id])] =
        header.sections[id].stored_bytes;
  }
  json["bytes_per_bundle"] = BundleBytes(file);
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
  fmt::print("  weights      {}, bundles of {} bytes per neuron\n",
             model.weights_name(), BundleBytes(file));
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
  fmt::print("\n  bytes per token\n");
  for (const KindBytes& kind : BytesByKind(file)) {
    fmt::print("    {:<10} {:>14} {:>6.1f} %\n", kind.name, kind.bytes,
               100.0 * static_cast<double>(kind.bytes) /
                   static_cast<double>(file.weight_bytes()));
  }
  fmt::print("    {:<10} {:>14}\n", "all", file.weight_bytes());
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
