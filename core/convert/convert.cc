#include "core/convert/convert.h"

#include <algorithm>
#include <filesystem>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "core/base/processors.h"
#include "core/base/thread_pool.h"
#include "core/convert/checkpoint.h"
#include "core/convert/hf_config.h"
#include "core/convert/source_check.h"
#include "core/convert/write_segments.h"
#include "core/memory_plan.h"
#include "core/model_layout.h"
#include "kernels/quantize.h"
#include "storage/checksum.h"
#include "storage/json.h"
#include "storage/output_file.h"
#include "storage/weight_file_writer.h"

namespace flashelm {
namespace {

// JSON is UTF-8, a name on a disk need not be.
std::string ToUtf8(const std::string& text) {
  const std::string dumped =
      Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
  return Json::parse(dumped).get<std::string>();
}

// The last component of a path, "." and a slash at the end resolved.
std::string BaseName(const std::string& path) {
  std::error_code error;
  std::filesystem::path full = std::filesystem::absolute(path, error);
  if (error) full = path;
  full = full.lexically_normal();
  if (!full.has_filename()) full = full.parent_path();
  return ToUtf8(full.filename().string());
}

Json DescribeText(std::string name, std::string_view text) {
  Xxh3Stream hash;
  hash.Update(std::as_bytes(std::span(text)));
  return DescribeFile(std::move(name), text.size(), hash);
}

Result<std::string> ReadTokenizer(const std::string& path,
                                  const ConvertOptions& options,
                                  uint32_t vocab_size) {
  auto bytes = ReadWholeFile(path, kMaxTokenizerBytes);
  if (!bytes && bytes.error().code() == StatusCode::kNotFound) {
    return NotFound(bytes.error().message(),
                    "; OpenELM uses the tokenizer.model of Meta's LLaMA, which "
                    "its checkpoints do not contain: supply that file (see "
                    "README)");
  }
  if (!bytes) return bytes;
  if (bytes->empty()) {
    return DataLoss(path,
                    ": the tokenizer has 0 bytes, expected a "
                    "SentencePiece model");
  }
  if (options.check_tokenizer) {
    FLASHELM_RETURN_IF_ERROR(options.check_tokenizer(*bytes, path, vocab_size));
  }
  return bytes;
}

}  // namespace

MatrixEncodings EncodingsOf(const ConvertOptions& options) {
  const Encoding head =
      options.weights == Encoding::kQ4 ? Encoding::kQ8 : options.weights;
  return {options.embedding.value_or(head),
          options.attention.value_or(options.weights),
          options.ffn.value_or(options.weights)};
}

WeightFileContents ContentsOf(const ModelConfig& config,
                              const ConvertOptions& options,
                              const std::string& source, Json files,
                              std::string tokenizer) {
  ModelLayout layout =
      MakeLayout(config, EncodingsOf(options), {.rows = options.rows});
  WeightFileContents contents;
  contents.config = ConfigToJson(config);
  contents.provenance = {
      {"converter",
       {{"name", "flashelm"}, {"version", ToUtf8(options.converter_version)}}},
      {"source", BaseName(source)},
      {"files", std::move(files)},
      {"weights", EncodingName(options.weights)}};
  contents.tokenizer = std::move(tokenizer);
  contents.segments = std::move(layout.segments);
  contents.tensors = std::move(layout.tensors);
  return contents;
}

Result<ConvertReport> Convert(const std::string& source_dir,
                              const std::string& out_path,
                              const ConvertOptions& options) {
  FLASHELM_ASSIGN_OR_RETURN(const Checkpoint checkpoint,
                            Checkpoint::Open(source_dir));
  ConvertReport report;
  FLASHELM_ASSIGN_OR_RETURN(
      report.config,
      ParseHfConfig(checkpoint.config_text(), checkpoint.config_path()));
  report.num_params = report.config.num_params();
  const MatrixEncodings encodings = EncodingsOf(options);
  FLASHELM_RETURN_IF_ERROR(CheckEncodings(report.config, encodings));
  FLASHELM_ASSIGN_OR_RETURN(const CheckpointWeights weights,
                            FindCheckpointWeights(report.config, checkpoint));
  const std::string tokenizer_path = options.tokenizer_path.empty()
                                         ? source_dir + "/tokenizer.model"
                                         : options.tokenizer_path;
  FLASHELM_ASSIGN_OR_RETURN(
      std::string tokenizer,
      ReadTokenizer(tokenizer_path, options, report.config.vocab_size));

  std::vector<std::string> source_paths = {tokenizer_path};
  Json files = Json::array();
  for (const Checkpoint::TextFile& text : checkpoint.texts()) {
    source_paths.push_back(source_dir + "/" + text.name);
    files.push_back(DescribeText(text.name, text.text));
    report.source_bytes += text.text.size();
  }
  for (const SafetensorsFile& file : checkpoint.files()) {
    source_paths.push_back(file.path());
  }
  FLASHELM_RETURN_IF_ERROR(CheckOutputPath(out_path, source_paths));

  const uint32_t num_threads =
      options.num_threads > 0
          ? options.num_threads
          : std::min(kMaxThreads, FindUsableProcessors().num_cores);
  FLASHELM_ASSIGN_OR_RETURN(const auto pool, ThreadPool::Create(num_threads));
  const TensorEncodings tensors = EncodingsOfTensors(weights, encodings);
  FLASHELM_RETURN_IF_ERROR(
      CheckSource(checkpoint, tensors, options, files, report));
  files.push_back(DescribeText(BaseName(tokenizer_path), tokenizer));
  report.source_bytes += tokenizer.size();
  if (report.num_nonfinite > 0 && !options.allow_nonfinite) {
    return DataLoss(source_dir, ": ", report.num_nonfinite,
                    " weights are NaN or infinite as ",
                    EncodingName(options.weights), ", the first in tensor \"",
                    report.first_nonfinite_tensor, "\", expected none");
  }
  if (report.num_unquantizable > 0) {
    return InvalidArgument(
        source_dir, ": ", report.num_unquantizable,
        " weights are NaN or above ", kMaxQuantized,
        " in magnitude, the first in tensor \"",
        report.first_unquantizable_tensor,
        "\": q8 and q4 have no such values, f32 and bf16 have");
  }

  WeightFileContents contents =
      ContentsOf(report.config, options, source_dir, std::move(files),
                 std::move(tokenizer));
  const std::vector<Segment> segments = contents.segments;
  if (report.num_nonfinite > 0) {
    contents.provenance["nonfinite_values"] = report.num_nonfinite;
  }
  Json provenance = contents.provenance;
  FLASHELM_ASSIGN_OR_RETURN(
      WeightFileWriter writer,
      WeightFileWriter::Create(out_path, std::move(contents)));
  FLASHELM_RETURN_IF_ERROR(WriteSegments(segments, report.config, weights,
                                         tensors, options, *pool, writer,
                                         report));
  for (const auto& [kind, total] : report.quantization) {
    provenance["quantization"][kind] = {{"mse", total.mean_squared_error()},
                                        {"relative", total.relative_error()}};
  }
  writer.set_provenance(std::move(provenance));
  FLASHELM_ASSIGN_OR_RETURN(report.file_bytes, writer.Finish());
  return report;
}

}  // namespace flashelm
