#include "core/convert/write_segments.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>

#include "core/base/memory.h"
#include "core/convert/convert_progress.h"
#include "core/convert/encode.h"
#include "core/model_layout.h"
#include "kernels/quantize.h"

namespace flashelm {
namespace {

// Values as the source has them, finished records, and between them, where that
// needs whole rows, f32 values. Each is far larger than the widest row that
// CheckConfig() lets through, 4 MiB.
constexpr uint64_t kRawBytes = uint64_t{24} << 20;
constexpr uint64_t kRecordBytes = uint64_t{32} << 20;
constexpr uint64_t kWideBytes = uint64_t{32} << 20;
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

uint64_t SourceBytes(const TensorEncodings& encodings) {
  uint64_t total_bytes = 0;
  for (const auto& [tensor, encoding] : encodings) {
    total_bytes += tensor->num_bytes;
  }
  return total_bytes;
}

// One conversion's segments.
class SegmentWriter {
 public:
  SegmentWriter(const CheckpointWeights& weights,
                const TensorEncodings& encodings, uint32_t model_dim,
                const ConvertOptions& options, ThreadPool& pool,
                WeightFileWriter& writer)
      : weights_(weights),
        encodings_(encodings),
        model_dim_(model_dim),
        pool_(pool),
        writer_(writer),
        progress_(options, "convert", SourceBytes(encodings)) {}

  Status WriteAll(const std::vector<Segment>& segments);
  std::map<std::string, QuantizationTotal> TakeQuantization() {
    return std::move(quantization_);
  }

 private:
  Status WriteSegment(const Segment& segment);
  Status WriteVectors(const Segment& segment,
                      std::span<const CheckpointTensor> vectors);
  // Rows of the matrix from `first_row` on.
  Status WriteRows(const Segment& segment, const CheckpointTensor& matrix,
                   uint64_t first_row);
  Status WriteColumns(const Segment& segment, const CheckpointTensor& matrix);
  Status WriteBundles(const Segment& segment, const CheckpointLayer& layer);

  // As many records as the buffers hold, with `source_bytes` for each.
  uint64_t BlockRecords(const Segment& segment, uint64_t source_bytes) const;
  // The same for neurons: a column block reads model_dim pieces, and the longer
  // they are, the less of every page is read in vain.
  uint64_t BlockColumns(const Segment& segment, uint64_t source_bytes) const;
  Status ReadElements(const CheckpointTensor& source, uint64_t first,
                      std::span<std::byte> out);
  // Reads `count` rows of `part.num_elements` from row `first` on and puts them
  // into that part of as many records.
  Status ReadRowsInto(const Segment& segment, const Part& part,
                      const CheckpointTensor& matrix, uint64_t first,
                      uint64_t count);
  // The same for `count` columns of a matrix of `num_columns`.
  Status ReadColumnsInto(const Segment& segment, const Part& part,
                         const CheckpointTensor& matrix, uint64_t num_columns,
                         uint64_t first, uint64_t count);

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

  const CheckpointWeights& weights_;
  const TensorEncodings& encodings_;
  const uint64_t model_dim_;
  ThreadPool& pool_;
  WeightFileWriter& writer_;
  ConvertProgress progress_;
  MemoryBudget budget_{kRawBytes + kRecordBytes + kWideBytes};
  AlignedBuffer raw_;
  AlignedBuffer records_;
  AlignedBuffer wide_;  // Only to quantise.
  std::vector<QuantizationError> errors_;
  std::map<std::string, QuantizationTotal> quantization_;
};

Status SegmentWriter::WriteAll(const std::vector<Segment>& segments) {
  FLASHELM_ASSIGN_OR_RETURN(
      raw_, AlignedBuffer::Create(kRawBytes, budget_, "source values"));
  FLASHELM_ASSIGN_OR_RETURN(
      records_, AlignedBuffer::Create(kRecordBytes, budget_, "records"));
  const auto is_quantized = [](const auto& entry) {
    return IsGrouped(entry.second);
  };
  if (std::ranges::any_of(encodings_, is_quantized)) {
    FLASHELM_ASSIGN_OR_RETURN(
        wide_, AlignedBuffer::Create(kWideBytes, budget_, "f32 values"));
  }
  for (const Segment& segment : segments) {
    FLASHELM_RETURN_IF_ERROR(WriteSegment(segment));
  }
  return progress_.Poll();
}

Status SegmentWriter::WriteSegment(const Segment& segment) {
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
      return WriteRows(segment, weights_.embedding, 0);
    case SegmentKind::kNorms: {
      const std::array vectors = {layer.attention_norm, layer.query_norm,
                                  layer.key_norm, layer.ffn_norm};
      return WriteVectors(segment, vectors);
    }
    case SegmentKind::kQkv:
      return WriteRows(segment, layer.qkv, 0);
    case SegmentKind::kAttentionOut:
      return WriteRows(segment, layer.attention_out, 0);
    case SegmentKind::kFfnGate:
      return WriteRows(segment, layer.gate_up, 0);
    case SegmentKind::kFfnUp:
      return WriteRows(segment, layer.gate_up, segment.num_records);
    case SegmentKind::kFfnDown:
      return WriteColumns(segment, layer.down);
    case SegmentKind::kFfn:
      return WriteBundles(segment, layer);
    case SegmentKind::kFinalNorm:
      return WriteVectors(segment, {&weights_.final_norm, 1});
    case SegmentKind::kPredictor:
      break;  // Made from a finished file.
  }
  return Internal(segment.Describe(), ": not known to the converter");
}

Status SegmentWriter::WriteVectors(const Segment& segment,
                                   std::span<const CheckpointTensor> vectors) {
  if (segment.parts.size() != vectors.size()) {
    return Internal(segment.Describe(), ": ", segment.parts.size(),
                    " parts, expected ", vectors.size());
  }
  for (size_t i = 0; i < vectors.size(); ++i) {
    FLASHELM_RETURN_IF_ERROR(
        ReadRowsInto(segment, segment.parts[i], vectors[i], 0, 1));
  }
  return writer_.Append(records_.bytes().first(segment.stride_bytes));
}

Status SegmentWriter::WriteRows(const Segment& segment,
                                const CheckpointTensor& matrix,
                                uint64_t first_row) {
  const Part& part = segment.parts[0];
  const uint64_t block = BlockRecords(
      segment, part.num_elements * ElementBytes(matrix.tensor->type));
  for (uint64_t first = 0; first < segment.num_records; first += block) {
    const uint64_t count = std::min(block, segment.num_records - first);
    FLASHELM_RETURN_IF_ERROR(
        ReadRowsInto(segment, part, matrix, first_row + first, count));
    FLASHELM_RETURN_IF_ERROR(
        writer_.Append(records_.bytes().first(count * segment.stride_bytes)));
  }
  return OkStatus();
}

Status SegmentWriter::WriteColumns(const Segment& segment,
                                   const CheckpointTensor& matrix) {
  const uint64_t block =
      BlockColumns(segment, model_dim_ * ElementBytes(matrix.tensor->type));
  for (uint64_t first = 0; first < segment.num_records; first += block) {
    const uint64_t count = std::min(block, segment.num_records - first);
    FLASHELM_RETURN_IF_ERROR(ReadColumnsInto(
        segment, segment.parts[0], matrix, segment.num_records, first, count));
    FLASHELM_RETURN_IF_ERROR(
        writer_.Append(records_.bytes().first(count * segment.stride_bytes)));
  }
  return OkStatus();
}

Status SegmentWriter::WriteBundles(const Segment& segment,
                                   const CheckpointLayer& layer) {
  const uint64_t ffn_dim = segment.num_records;
  const uint64_t element_bytes =
      std::max(ElementBytes(layer.gate_up.tensor->type),
               ElementBytes(layer.down.tensor->type));
  const uint64_t block = BlockColumns(segment, model_dim_ * element_bytes);
  for (uint64_t first = 0; first < ffn_dim; first += block) {
    const uint64_t count = std::min(block, ffn_dim - first);
    FLASHELM_RETURN_IF_ERROR(
        ReadRowsInto(segment, segment.parts[0], layer.gate_up, first, count));
    FLASHELM_RETURN_IF_ERROR(ReadRowsInto(
        segment, segment.parts[1], layer.gate_up, ffn_dim + first, count));
    FLASHELM_RETURN_IF_ERROR(ReadColumnsInto(
        segment, segment.parts[2], layer.down, ffn_dim, first, count));
    FLASHELM_RETURN_IF_ERROR(
        writer_.Append(records_.bytes().first(count * segment.stride_bytes)));
  }
  return OkStatus();
}

uint64_t SegmentWriter::BlockRecords(const Segment& segment,
                                     uint64_t source_bytes) const {
  uint64_t block =
      std::min(kRawBytes / source_bytes, kRecordBytes / segment.stride_bytes);
  for (const Part& part : segment.parts) {
    if (!IsGrouped(part.encoding)) continue;
    block = std::min(block, kWideBytes / (part.num_elements * sizeof(float)));
  }
  return block;
}

uint64_t SegmentWriter::BlockColumns(const Segment& segment,
                                     uint64_t source_bytes) const {
  const uint64_t block = BlockRecords(segment, source_bytes);
  return block > kEncodeColumns ? block - block % kEncodeColumns : block;
}

SegmentWriter::Target SegmentWriter::TargetOf(const Segment& segment,
                                              const Part& part) const {
  if (IsGrouped(part.encoding)) {
    return {Encoding::kF32, wide_.data(), part.num_elements * sizeof(float)};
  }
  return {part.encoding, records_.data() + part.offset_bytes,
          segment.stride_bytes};
}

void SegmentWriter::Finish(const Segment& segment, const Part& part,
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

Status SegmentWriter::ReadElements(const CheckpointTensor& source,
                                   uint64_t first, std::span<std::byte> out) {
  FLASHELM_RETURN_IF_ERROR(progress_.Poll());
  FLASHELM_RETURN_IF_ERROR(source.file->ReadRaw(*source.tensor, first, out));
  progress_.Add(out.size());
  return OkStatus();
}

Status SegmentWriter::ReadRowsInto(const Segment& segment, const Part& part,
                                   const CheckpointTensor& matrix,
                                   uint64_t first, uint64_t count) {
  const ElementType type = matrix.tensor->type;
  const uint64_t row_bytes = part.num_elements * ElementBytes(type);
  FLASHELM_RETURN_IF_ERROR(ReadElements(matrix, first * part.num_elements,
                                        raw_.bytes().first(count * row_bytes)));
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

Status SegmentWriter::ReadColumnsInto(const Segment& segment, const Part& part,
                                      const CheckpointTensor& matrix,
                                      uint64_t num_columns, uint64_t first,
                                      uint64_t count) {
  const ElementType type = matrix.tensor->type;
  const uint64_t rows = part.num_elements;
  const uint64_t piece_bytes = count * ElementBytes(type);
  for (uint64_t row = 0; row < rows; ++row) {
    FLASHELM_RETURN_IF_ERROR(
        ReadElements(matrix, row * num_columns + first,
                     raw_.bytes().subspan(row * piece_bytes, piece_bytes)));
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

Status WriteSegments(const std::vector<Segment>& segments,
                     const ModelConfig& config,
                     const CheckpointWeights& weights,
                     const TensorEncodings& encodings,
                     const ConvertOptions& options, ThreadPool& pool,
                     WeightFileWriter& writer, ConvertReport& report) {
  SegmentWriter segment_writer(weights, encodings, config.model_dim, options,
                               pool, writer);
  FLASHELM_RETURN_IF_ERROR(segment_writer.WriteAll(segments));
  report.quantization = segment_writer.TakeQuantization();
  return OkStatus();
}

}  // namespace flashelm
