#include "core/convert/source_check.h"

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

#include "core/base/memory.h"
#include "core/convert/convert_progress.h"
#include "core/convert/encode.h"
#include "storage/file.h"

namespace flashelm {
namespace {

// One read of the pass over all files; whole elements of any type.
constexpr uint64_t kCheckBytes = uint64_t{4} << 20;

Status CheckTensor(const SafetensorsFile& file, const SafetensorsTensor& tensor,
                   const TensorEncodings& encodings,
                   std::span<std::byte> buffer, Xxh3Stream& hash,
                   ConvertProgress& progress, ConvertReport& report) {
  const auto encoding = encodings.find(&tensor);
  for (uint64_t at = 0; at < tensor.num_bytes;) {
    const auto piece =
        buffer.first(std::min<uint64_t>(buffer.size(), tensor.num_bytes - at));
    FLASHELM_RETURN_IF_ERROR(progress.Poll());
    FLASHELM_RETURN_IF_ERROR(
        ReadExactly(file.file(), tensor.offset_bytes + at, piece, tensor.name));
    hash.Update(piece);
    if (encoding != encodings.end()) {
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

}  // namespace

TensorEncodings EncodingsOfTensors(const CheckpointWeights& weights,
                                   const MatrixEncodings& matrices) {
  TensorEncodings encodings;
  encodings[weights.embedding.tensor] = matrices.embedding;
  encodings[weights.final_norm.tensor] = Encoding::kF32;
  for (const CheckpointLayer& layer : weights.layers) {
    for (const CheckpointTensor* vector :
         {&layer.attention_norm, &layer.query_norm, &layer.key_norm,
          &layer.ffn_norm}) {
      encodings[vector->tensor] = Encoding::kF32;
    }
    encodings[layer.qkv.tensor] = matrices.attention;
    encodings[layer.attention_out.tensor] = matrices.attention;
    encodings[layer.gate_up.tensor] = matrices.ffn;
    encodings[layer.down.tensor] = matrices.ffn;
  }
  return encodings;
}

Json DescribeFile(std::string name, uint64_t num_bytes,
                  const Xxh3Stream& hash) {
  return {{"name", std::move(name)},
          {"bytes", num_bytes},
          {"xxh3_128", hash.Digest128Hex()}};
}

Status CheckSource(const Checkpoint& checkpoint,
                   const TensorEncodings& encodings,
                   const ConvertOptions& options, Json& files,
                   ConvertReport& report) {
  MemoryBudget budget(kCheckBytes);
  FLASHELM_ASSIGN_OR_RETURN(
      const AlignedBuffer buffer,
      AlignedBuffer::Create(kCheckBytes, budget, "source bytes"));
  uint64_t total_bytes = 0;
  for (const SafetensorsFile& file : checkpoint.files()) {
    total_bytes += file.file().size_bytes();
  }
  ConvertProgress progress(options, "check", total_bytes);
  for (size_t i = 0; i < checkpoint.files().size(); ++i) {
    const SafetensorsFile& file = checkpoint.files()[i];
    Xxh3Stream hash;
    for (uint64_t at = 0; at < file.data_offset_bytes();) {
      const auto piece = buffer.bytes().first(
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
      FLASHELM_RETURN_IF_ERROR(CheckTensor(
          file, tensor, encodings, buffer.bytes(), hash, progress, report));
    }
    files.push_back(DescribeFile(checkpoint.file_names()[i],
                                 file.file().size_bytes(), hash));
  }
  report.source_bytes += total_bytes;
  return OkStatus();
}

}  // namespace flashelm
