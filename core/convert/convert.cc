#include "core/convert/convert.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <map>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "core/base/memory.h"
#include "core/base/processors.h"
#include "core/base/thread_pool.h"
#include "core/convert/checkpoint.h"
#include "core/convert/encode.h"
#include "core/convert/hf_config.h"
#include "core/memory_plan.h"
#include "core/model_layout.h"
#include "kernels/quantize.h"
#include "storage/checksum.h"
#include "storage/json.h"
#include "storage/output_file.h"
#include "storage/weight_file_writer.h"

namespace flashelm {
namespace {

// Values as the source has them, finished records, and between them, where that
// needs whole rows, f32 values. Each is far larger than the widest row that
// CheckConfig() lets through, 4 MiB.
constexpr uint64_t kRawBytes = uint64_t{24} << 20;
constexpr uint64_t kRecordBytes = uint64_t{32} << 20;
constexpr uint64_t kWideBytes = uint64_t{32} << 20;
// One read of the pass over all files; whole elements of any type.
constexpr uint64_t kCheckBytes = uint64_t{4} << 20;
constexpr uint64_t kProgressBytes = uint64_t{1} << 20;
constexpr uint64_t kMaxTokenizerBytes = uint64_t{64} << 20;
// What a thread does at least, in bytes of the source.
constexpr uint64_t kMinBytesPerThread = uint64_t{64} << 10;

// Rows of that many bytes that are worth a thread of their own.
size_t GrainFor(uint64_t row_bytes) {
  return std::max<uint64_t>(1, kMinBytesPerThread / row_bytes);
}

// What the file says of a matrix of that segment; nothing for norms.
const char* MatrixKindName(SegmentKind kind) {
  switch (kind) {
    case SegmentKind::kEmbedding:
      return "embedding";
    case SegmentKind::kQkv:
    case SegmentKind::kAttentionOut:
      return "attention";
    case SegmentKind::kFfnGate:
    case SegmentKind::kFfnUp:
    case SegmentKind::kFfnDown:
    case SegmentKind::kFfn:
      return "ffn";
    case SegmentKind::kPredictor:
    case SegmentKind::kNorms:
    case SegmentKind::kFinalNorm:
      break;
  }
  return "norms";
}

MatrixEncodings EncodingsOf(const ConvertOptions& options) {
  const Encoding head =
      options.weights == Encoding::kQ4 ? Encoding::kQ8 : options.weights;
  return {options.embedding.value_or(head),
          options.attention.value_or(options.weights),
          options.ffn.value_or(options.weights)};
}

// Polls for cancellation and reports how far a stage is.
class Progress {
 public:
  Progress(const ConvertOptions& options, std::string_view stage,
           uint64_t total_bytes)
      : options_(options), stage_(stage), total_bytes_(total_bytes) {}

  // kCancelled: as asked.
  Status Poll() const {
    if (options_.cancel != nullptr && options_.cancel->IsCancelled()) {
      return Cancelled("conversion was cancelled");
    }
    return OkStatus();
  }
  void Add(uint64_t bytes) {
    done_bytes_ += bytes;
    if (!options_.progress) return;
    if (done_bytes_ - reported_bytes_ >= kProgressBytes ||
        done_bytes_ == total_bytes_) {
      reported_bytes_ = done_bytes_;
      options_.progress(stage_, done_bytes_, total_bytes_);
    }
  }

 private:
  const ConvertOptions& options_;
  const std::string_view stage_;
  const uint64_t total_bytes_;
  uint64_t done_bytes_ = 0;
  uint64_t reported_bytes_ = 0;
};

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

Json DescribeFile(std::string name, uint64_t num_bytes,
                  const Xxh3Stream& hash) {
  return {{"name", std::move(name)},
          {"bytes", num_bytes},
          {"xxh3_128", hash.Digest128Hex()}};
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

// One conversion, from checked sources to the file.
class Converter {
 public:
  Converter(const Checkpoint& checkpoint, const ModelConfig& config,
            const CheckpointWeights& weights, const ConvertOptions& options,
            ThreadPool& pool)
      : checkpoint_(checkpoint),
        config_(config),
        weights_(weights),
        options_(options),
        pool_(pool) {
    NoteEncodings(EncodingsOf(options));
  }

  // Reads every byte of the weight files once: their hashes for `files`, and
  // how many values cannot be stored for `report`.
  Status CheckFiles(Json& files, ConvertReport& report);
  // Writes the records of all segments; what that cost goes to `report`.
  Status WriteSegments(const std::vector<Segment>& segments,
                       WeightFileWriter& writer, ConvertReport& report);

 private:
  void NoteEncodings(const MatrixEncodings& matrices);
  Status CheckTensor(const SafetensorsFile& file,
                     const SafetensorsTensor& tensor, Xxh3Stream& hash,
                     Progress& progress, ConvertReport& report);
  Status WriteSegment(const Segment& segment, WeightFileWriter& writer,
                      Progress& progress);
  Status WriteVectors(const Segment& segment,
                      std::span<const CheckpointTensor> vectors,
                      WeightFileWriter& writer, Progress& progress);
  // Rows of the matrix from `first_row` on.
  Status WriteRows(const Segment& segment, const CheckpointTensor& matrix,
                   uint64_t first_row, WeightFileWriter& writer,
                   Progress& progress);
  Status WriteColumns(const Segment& segment, const CheckpointTensor& matrix,
                      WeightFileWriter& writer, Progress& progress);
  Status WriteBundles(const Segment& segment, const CheckpointLayer& layer,
                      WeightFileWriter& writer, Progress& progress);

  // As many records as the buffers hold, with `source_bytes` for each.
  uint64_t BlockRecords(const Segment& segment, uint64_t source_bytes) const;
  // The same for neurons: a column block reads model_dim pieces, and the longer
  // they are, the less of every page is read in vain.
  uint64_t BlockColumns(const Segment& segment, uint64_t source_bytes) const;
  Status ReadElements(const CheckpointTensor& source, uint64_t first,
                      std::span<std::byte> out, Progress& progress);
  // Reads `count` rows of `part.num_elements` from row `first` on and puts them
  // into that part of as many records.
  Status ReadRowsInto(const Segment& segment, const Part& part,
                      const CheckpointTensor& matrix, uint64_t first,
                      uint64_t count, Progress& progress);
  // The same for `count` columns of a matrix of `num_columns`.
  Status ReadColumnsInto(const Segment& segment, const Part& part,
                         const CheckpointTensor& matrix, uint64_t num_columns,
                         uint64_t first, uint64_t count, Progress& progress);

  // Where the rows or columns that were read go, one to each record: to their
  // part of it, or, when that is quantised, to wide_ as f32.
  struct Target {
    Encoding encoding;
    std::byte* data;
    uint64_t stride_bytes;
  };
  Target TargetOf(const Segment& segment, const Part& part) const;
  // Does the rest: quantises the first `count` rows of wide_, where `part` is
  // quantised.
  void Finish(const Segment& segment, const Part& part, uint64_t count);

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const CheckpointWeights& weights_;
  const ConvertOptions& options_;
  ThreadPool& pool_;
  // What each tensor that the model needs becomes.
  std::map<const SafetensorsTensor*, Encoding> encodings_;
  MemoryBudget budget_{kRawBytes + kRecordBytes + kWideBytes};
  AlignedBuffer raw_;
  AlignedBuffer records_;
  AlignedBuffer wide_;  // Only to quantise.
  std::vector<QuantizationError> errors_;
  std::map<std::string, QuantizationTotal> quantization_;
};

void Converter::NoteEncodings(const MatrixEncodings& matrices) {
  encodings_[weights_.embedding.tensor] = matrices.embedding;
  encodings_[weights_.final_norm.tensor] = Encoding::kF32;
  for (const CheckpointLayer& layer : weights_.layers) {
    for (const CheckpointTensor* vector :
         {&layer.attention_norm, &layer.query_norm, &layer.key_norm,
          &layer.ffn_norm}) {
      encodings_[vector->tensor] = Encoding::kF32;
    }
    encodings_[layer.qkv.tensor] = matrices.attention;
    encodings_[layer.attention_out.tensor] = matrices.attention;
    encodings_[layer.gate_up.tensor] = matrices.ffn;
    encodings_[layer.down.tensor] = matrices.ffn;
  }
}

Status Converter::CheckFiles(Json& files, ConvertReport& report) {
  FLASHELM_ASSIGN_OR_RETURN(
      raw_, AlignedBuffer::Create(kCheckBytes, budget_, "source bytes"));
  uint64_t total_bytes = 0;
  for (const SafetensorsFile& file : checkpoint_.files()) {
    total_bytes += file.file().size_bytes();
  }
  Progress progress(options_, "check", total_bytes);
  for (size_t i = 0; i < checkpoint_.files().size(); ++i) {
    const SafetensorsFile& file = checkpoint_.files()[i];
    Xxh3Stream hash;
    for (uint64_t at = 0; at < file.data_offset_bytes();) {
      const auto piece = raw_.bytes().first(
          std::min(kCheckBytes, file.data_offset_bytes() - at));
      FLASHELM_RETURN_IF_ERROR(progress.Poll());
      FLASHELM_RETURN_IF_ERROR(
          ReadExactly(file.file(), at, piece, "the directory"));
      hash.Update(piece);
      progress.Add(piece.size());
      at += piece.size();
    }
    // Tensors follow each other without a gap, so this is the whole file.
    for (const SafetensorsTensor& tensor : file.tensors()) {
      FLASHELM_RETURN_IF_ERROR(
          CheckTensor(file, tensor, hash, progress, report));
    }
    files.push_back(DescribeFile(checkpoint_.file_names()[i],
                                 file.file().size_bytes(), hash));
  }
  report.source_bytes += total_bytes;
  raw_ = AlignedBuffer();
  return OkStatus();
}

Status Converter::CheckTensor(const SafetensorsFile& file,
                              const SafetensorsTensor& tensor, Xxh3Stream& hash,
                              Progress& progress, ConvertReport& report) {
  const auto encoding = encodings_.find(&tensor);
  for (uint64_t at = 0; at < tensor.num_bytes;) {
    const auto piece =
        raw_.bytes().first(std::min(kCheckBytes, tensor.num_bytes - at));
    FLASHELM_RETURN_IF_ERROR(progress.Poll());
    FLASHELM_RETURN_IF_ERROR(
        ReadExactly(file.file(), tensor.offset_bytes + at, piece, tensor.name));
    hash.Update(piece);
    if (encoding != encodings_.end()) {
      const size_t count = piece.size() / ElementBytes(tensor.type);
      const auto note = [&](uint64_t found, uint64_t& sum, std::string& first) {
        if (found > 0 && sum == 0) first = tensor.name;
        sum += found;
      };
      note(CountNonFiniteEncoded(tensor.type, piece.data(), count,
                                 encoding->second),
           report.num_nonfinite, report.first_nonfinite_tensor);
      if (IsGrouped(encoding->second)) {
        note(CountUnquantizable(tensor.type, piece.data(), count),
             report.num_unquantizable, report.first_unquantizable_tensor);
      }
    }
    progress.Add(piece.size());
    at += piece.size();
  }
  return OkStatus();
}

Status Converter::WriteSegments(const std::vector<Segment>& segments,
                                WeightFileWriter& writer,
                                ConvertReport& report) {
  FLASHELM_ASSIGN_OR_RETURN(
      raw_, AlignedBuffer::Create(kRawBytes, budget_, "source values"));
  FLASHELM_ASSIGN_OR_RETURN(
      records_, AlignedBuffer::Create(kRecordBytes, budget_, "records"));
  uint64_t total_bytes = 0;
  bool is_quantizing = false;
  for (const auto& [tensor, encoding] : encodings_) {
    total_bytes += tensor->num_bytes;
    is_quantizing |= IsGrouped(encoding);
  }
  if (is_quantizing) {
    FLASHELM_ASSIGN_OR_RETURN(
        wide_, AlignedBuffer::Create(kWideBytes, budget_, "f32 values"));
  }
  Progress progress(options_, "convert", total_bytes);
  for (const Segment& segment : segments) {
    FLASHELM_RETURN_IF_ERROR(WriteSegment(segment, writer, progress));
  }
  report.quantization = std::move(quantization_);
  return progress.Poll();
}

Status Converter::WriteSegment(const Segment& segment, WeightFileWriter& writer,
                               Progress& progress) {
  const Part& last = segment.parts.back();
  if (last.offset_bytes + last.num_bytes() < segment.stride_bytes) {
    // Bytes between the last part and the next record are zero in the file.
    const auto used = records_.bytes().first(
        std::min<uint64_t>(records_.size(), segment.num_bytes()));
    std::fill(used.begin(), used.end(), std::byte{0});
  }
  const CheckpointLayer& layer = weights_.layers[segment.layer.value_or(0)];
  switch (segment.kind) {
    case SegmentKind::kEmbedding:
      return WriteRows(segment, weights_.embedding, 0, writer, progress);
    case SegmentKind::kNorms: {
      const std::array vectors = {layer.attention_norm, layer.query_norm,
                                  layer.key_norm, layer.ffn_norm};
      return WriteVectors(segment, vectors, writer, progress);
    }
    case SegmentKind::kQkv:
      return WriteRows(segment, layer.qkv, 0, writer, progress);
    case SegmentKind::kAttentionOut:
      return WriteRows(segment, layer.attention_out, 0, writer, progress);
    case SegmentKind::kFfnGate:
      return WriteRows(segment, layer.gate_up, 0, writer, progress);
    case SegmentKind::kFfnUp:
      return WriteRows(segment, layer.gate_up, segment.num_records, writer,
                       progress);
    case SegmentKind::kFfnDown:
      return WriteColumns(segment, layer.down, writer, progress);
    case SegmentKind::kFfn:
      return WriteBundles(segment, layer, writer, progress);
    case SegmentKind::kFinalNorm:
      return WriteVectors(segment, {&weights_.final_norm, 1}, writer, progress);
    case SegmentKind::kPredictor:
      break;  // Made from a finished file.
  }
  return Internal(segment.Describe(), ": not known to the converter");
}

Status Converter::WriteVectors(const Segment& segment,
                               std::span<const CheckpointTensor> vectors,
                               WeightFileWriter& writer, Progress& progress) {
  if (segment.parts.size() != vectors.size()) {
    return Internal(segment.Describe(), ": ", segment.parts.size(),
                    " parts, expected ", vectors.size());
  }
  for (size_t i = 0; i < vectors.size(); ++i) {
    FLASHELM_RETURN_IF_ERROR(
        ReadRowsInto(segment, segment.parts[i], vectors[i], 0, 1, progress));
  }
  return writer.Append(records_.bytes().first(segment.stride_bytes));
}

Status Converter::WriteRows(const Segment& segment,
                            const CheckpointTensor& matrix, uint64_t first_row,
                            WeightFileWriter& writer, Progress& progress) {
  const Part& part = segment.parts[0];
  const uint64_t block = BlockRecords(
      segment, part.num_elements * ElementBytes(matrix.tensor->type));
  for (uint64_t first = 0; first < segment.num_records; first += block) {
    const uint64_t count = std::min(block, segment.num_records - first);
    FLASHELM_RETURN_IF_ERROR(ReadRowsInto(segment, part, matrix,
                                          first_row + first, count, progress));
    FLASHELM_RETURN_IF_ERROR(
        writer.Append(records_.bytes().first(count * segment.stride_bytes)));
  }
  return OkStatus();
}

Status Converter::WriteColumns(const Segment& segment,
                               const CheckpointTensor& matrix,
                               WeightFileWriter& writer, Progress& progress) {
  const uint64_t block = BlockColumns(
      segment, config_.model_dim * ElementBytes(matrix.tensor->type));
  for (uint64_t first = 0; first < segment.num_records; first += block) {
    const uint64_t count = std::min(block, segment.num_records - first);
    FLASHELM_RETURN_IF_ERROR(ReadColumnsInto(segment, segment.parts[0], matrix,
                                             segment.num_records, first, count,
                                             progress));
    FLASHELM_RETURN_IF_ERROR(
        writer.Append(records_.bytes().first(count * segment.stride_bytes)));
  }
  return OkStatus();
}

Status Converter::WriteBundles(const Segment& segment,
                               const CheckpointLayer& layer,
                               WeightFileWriter& writer, Progress& progress) {
  const uint64_t ffn_dim = segment.num_records;
  const uint64_t element_bytes =
      std::max(ElementBytes(layer.gate_up.tensor->type),
               ElementBytes(layer.down.tensor->type));
  const uint64_t block =
      BlockColumns(segment, config_.model_dim * element_bytes);
  for (uint64_t first = 0; first < ffn_dim; first += block) {
    const uint64_t count = std::min(block, ffn_dim - first);
    FLASHELM_RETURN_IF_ERROR(ReadRowsInto(
        segment, segment.parts[0], layer.gate_up, first, count, progress));
    FLASHELM_RETURN_IF_ERROR(ReadRowsInto(segment, segment.parts[1],
                                          layer.gate_up, ffn_dim + first, count,
                                          progress));
    FLASHELM_RETURN_IF_ERROR(ReadColumnsInto(segment, segment.parts[2],
                                             layer.down, ffn_dim, first, count,
                                             progress));
    FLASHELM_RETURN_IF_ERROR(
        writer.Append(records_.bytes().first(count * segment.stride_bytes)));
  }
  return OkStatus();
}

uint64_t Converter::BlockRecords(const Segment& segment,
                                 uint64_t source_bytes) const {
  uint64_t block =
      std::min(kRawBytes / source_bytes, kRecordBytes / segment.stride_bytes);
  for (const Part& part : segment.parts) {
    if (!IsGrouped(part.encoding)) continue;
    block = std::min(block, kWideBytes / (part.num_elements * sizeof(float)));
  }
  return block;
}

uint64_t Converter::BlockColumns(const Segment& segment,
                                 uint64_t source_bytes) const {
  const uint64_t block = BlockRecords(segment, source_bytes);
  return block > kEncodeColumns ? block - block % kEncodeColumns : block;
}

Converter::Target Converter::TargetOf(const Segment& segment,
                                      const Part& part) const {
  if (IsGrouped(part.encoding)) {
    return {Encoding::kF32, wide_.data(), part.num_elements * sizeof(float)};
  }
  return {part.encoding, records_.data() + part.offset_bytes,
          segment.stride_bytes};
}

void Converter::Finish(const Segment& segment, const Part& part,
                       uint64_t count) {
  if (!IsGrouped(part.encoding)) return;
  const WeightType type = WeightTypeOf(part.encoding);
  const auto* values = reinterpret_cast<const float*>(wide_.data());
  errors_.resize(count);
  pool_.ParallelFor(
      count, GrainFor(part.num_elements * sizeof(float)),
      [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) {
          errors_[i] = QuantizeRow(
              type, values + i * part.num_elements, part.num_elements,
              records_.data() + i * segment.stride_bytes + part.offset_bytes);
        }
      });
  QuantizationTotal& total = quantization_[MatrixKindName(segment.kind)];
  // In one order, whichever thread has found them.
  for (const QuantizationError& error : errors_) {
    total.squared_error += error.squared_error;
    total.squared_sum += error.squared_sum;
  }
  total.num_weights += count * part.num_elements;
}

Status Converter::ReadElements(const CheckpointTensor& source, uint64_t first,
                               std::span<std::byte> out, Progress& progress) {
  FLASHELM_RETURN_IF_ERROR(progress.Poll());
  FLASHELM_RETURN_IF_ERROR(source.file->ReadRaw(*source.tensor, first, out));
  progress.Add(out.size());
  return OkStatus();
}

Status Converter::ReadRowsInto(const Segment& segment, const Part& part,
                               const CheckpointTensor& matrix, uint64_t first,
                               uint64_t count, Progress& progress) {
  const ElementType type = matrix.tensor->type;
  const uint64_t row_bytes = part.num_elements * ElementBytes(type);
  FLASHELM_RETURN_IF_ERROR(ReadElements(matrix, first * part.num_elements,
                                        raw_.bytes().first(count * row_bytes),
                                        progress));
  const Target target = TargetOf(segment, part);
  pool_.ParallelFor(count, GrainFor(row_bytes), [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      Encode(type, raw_.data() + i * row_bytes, part.num_elements,
             target.encoding, target.data + i * target.stride_bytes);
    }
  });
  Finish(segment, part, count);
  return OkStatus();
}

Status Converter::ReadColumnsInto(const Segment& segment, const Part& part,
                                  const CheckpointTensor& matrix,
                                  uint64_t num_columns, uint64_t first,
                                  uint64_t count, Progress& progress) {
  const ElementType type = matrix.tensor->type;
  const uint64_t rows = part.num_elements;
  const uint64_t piece_bytes = count * ElementBytes(type);
  for (uint64_t row = 0; row < rows; ++row) {
    FLASHELM_RETURN_IF_ERROR(ReadElements(
        matrix, row * num_columns + first,
        raw_.bytes().subspan(row * piece_bytes, piece_bytes), progress));
  }
  const Target target = TargetOf(segment, part);
  pool_.ParallelFor(count, kEncodeColumns, [&](size_t begin, size_t end) {
    for (size_t at = begin; at < end; at += kEncodeColumns) {
      EncodeColumns(type, raw_.data() + at * ElementBytes(type), piece_bytes,
                    rows, std::min(kEncodeColumns, end - at), target.encoding,
                    target.data + at * target.stride_bytes,
                    target.stride_bytes);
    }
  });
  Finish(segment, part, count);
  return OkStatus();
}

}  // namespace

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
  WeightFileContents contents;
  FLASHELM_ASSIGN_OR_RETURN(
      contents.tokenizer,
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
  Converter converter(checkpoint, report.config, weights, options, *pool);
  FLASHELM_RETURN_IF_ERROR(converter.CheckFiles(files, report));
  files.push_back(DescribeText(BaseName(tokenizer_path), contents.tokenizer));
  report.source_bytes += contents.tokenizer.size();
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

  ModelLayout layout =
      MakeLayout(report.config, encodings, {.rows = options.rows});
  contents.config = ConfigToJson(report.config);
  contents.provenance = {
      {"converter",
       {{"name", "flashelm"}, {"version", ToUtf8(options.converter_version)}}},
      {"source", BaseName(source_dir)},
      {"files", std::move(files)},
      {"weights", EncodingName(options.weights)}};
  if (report.num_nonfinite > 0) {
    contents.provenance["nonfinite_values"] = report.num_nonfinite;
  }
  Json provenance = contents.provenance;
  contents.segments = layout.segments;
  contents.tensors = std::move(layout.tensors);
  FLASHELM_ASSIGN_OR_RETURN(
      WeightFileWriter writer,
      WeightFileWriter::Create(out_path, std::move(contents)));
  FLASHELM_RETURN_IF_ERROR(
      converter.WriteSegments(layout.segments, writer, report));
  for (const auto& [kind, total] : report.quantization) {
    provenance["quantization"][kind] = {{"mse", total.mean_squared_error()},
                                        {"relative", total.relative_error()}};
  }
  writer.set_provenance(std::move(provenance));
  FLASHELM_ASSIGN_OR_RETURN(report.file_bytes, writer.Finish());
  return report;
}

}  // namespace flashelm
