#include "core/record_reader.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/base/checked_math.h"
#include "core/base/types.h"
#include "kernels/matmul.h"
#include "predictor/gate_selector.h"
#include "storage/verify.h"

namespace flashelm {
namespace {

// The sum of squares, in one order.
double SquaredNorm(std::span<const float> values) {
  std::array<double, 8> sums{};
  for (size_t i = 0; i < values.size(); ++i) {
    const double value = values[i];
    sums[i % sums.size()] += value * value;
  }
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

}  // namespace

Result<AlignedBuffer> LoadChecksums(const WeightFile& file,
                                    MemoryBudget& budget) {
  FLASHELM_ASSIGN_OR_RETURN(
      AlignedBuffer table,
      AlignedBuffer::Create(file.header().sections[kChecksums].raw_bytes,
                            budget, "checksums"));
  FLASHELM_RETURN_IF_ERROR(file.ReadChecksums(table.bytes()));
  return table;
}

uint64_t RecordReader::SlabRecords(const Segment& segment,
                                   uint64_t slab_bytes) {
  const uint64_t unit = segment.unit_records();
  const uint64_t units = slab_bytes / segment.stride_bytes / unit;
  return std::min(segment.num_records, unit * std::max<uint64_t>(1, units));
}

uint64_t RecordReader::MostSlabBytes(const WeightFile& file,
                                     uint64_t slab_bytes) {
  uint64_t most = 0;
  for (const Segment& segment : file.segments()) {
    most =
        std::max(most, SlabRecords(segment, slab_bytes) * segment.stride_bytes);
  }
  return RoundUp(most, kIoAlignment);
}

uint64_t RecordReader::NumBytes(const WeightFile& file, uint64_t slab_bytes) {
  return RoundUp(file.header().sections[kChecksums].raw_bytes, kIoAlignment) +
         MostSlabBytes(file, slab_bytes);
}

Result<RecordReader> RecordReader::Create(const WeightFile& file,
                                          MemoryBudget& budget,
                                          uint64_t slab_bytes) {
  slab_bytes = std::min(slab_bytes, kSlabBytes);
  RecordReader reader(file, slab_bytes);
  FLASHELM_ASSIGN_OR_RETURN(reader.table_, LoadChecksums(file, budget));
  FLASHELM_ASSIGN_OR_RETURN(
      reader.slab_, AlignedBuffer::Create(MostSlabBytes(file, slab_bytes),
                                          budget, "read buffer"));
  return reader;
}

Result<const std::byte*> RecordReader::Read(const Segment& segment,
                                            uint64_t first, uint64_t count,
                                            const CancelToken* cancel) {
  if (cancel != nullptr && cancel->IsCancelled()) {
    return Cancelled("calibration was cancelled");
  }
  // Slabs begin on pages, and a segment's last page belongs to it alone.
  FLASHELM_RETURN_IF_ERROR(ReadExactly(
      file_->file(), segment.offset_bytes + first * segment.stride_bytes,
      slab_.bytes().first(RoundUp(count * segment.stride_bytes, kIoAlignment)),
      segment.Describe()));
  const Status status = VerifyRecords(segment, first, count, slab_.data(),
                                      table_.bytes(), file_->path());
  if (!status.ok()) return DataLoss(status.message());
  return slab_.data();
}

Status ForEachRecord(
    const Segment& segment, RecordReader& reader, const CancelToken* cancel,
    const std::function<void(uint32_t, const std::byte*)>& visit) {
  const uint64_t slab = reader.SlabRecords(segment);
  for (uint64_t first = 0; first < segment.num_records; first += slab) {
    const uint64_t count = std::min(slab, segment.num_records - first);
    FLASHELM_ASSIGN_OR_RETURN(const std::byte* records,
                              reader.Read(segment, first, count, cancel));
    for (uint64_t i = 0; i < count; ++i) {
      visit(static_cast<uint32_t>(first + i),
            records + i * segment.stride_bytes);
    }
  }
  return OkStatus();
}

void DecodeRow(const PartRef& part, const std::byte* record,
               std::span<float> row) {
  // Once the row, added to zero.
  std::fill(row.begin(), row.end(), 0.0f);
  const float one = 1;
  AddScaledRows(ViewOfPart(record, part, /*stride_bytes=*/0), 1, row.size(),
                &one, 0, 1, row.data(), 0);
}

double RowNorm(const PartRef& part, const std::byte* record,
               std::span<float> scratch) {
  DecodeRow(part, record, scratch);
  return std::sqrt(SquaredNorm(scratch));
}

Status ForEachGateRow(
    const ModelFile& model, uint32_t layer, RecordReader& reader,
    const CancelToken* cancel,
    const std::function<void(uint32_t, std::span<const float>)>& visit) {
  const PartRef& gate = model.weights().layers[layer].gate;
  std::vector<float> row(model.config().model_dim);
  return ForEachRecord(model.weight_file().segments()[gate.segment], reader,
                       cancel, [&](uint32_t neuron, const std::byte* record) {
                         DecodeRow(gate, record, row);
                         visit(neuron, row);
                       });
}

Result<std::vector<float>> ReadImportance(const ModelFile& model,
                                          uint32_t layer, RecordReader& reader,
                                          const CancelToken* cancel) {
  const LayerWeights& weights = model.weights().layers[layer];
  std::vector<float> importance(model.config().layers[layer].ffn_dim);
  std::vector<float> row(model.config().model_dim);
  FLASHELM_RETURN_IF_ERROR(
      ForEachRecord(model.weight_file().segments()[weights.up.segment], reader,
                    cancel, [&](uint32_t neuron, const std::byte* record) {
                      importance[neuron] =
                          ImportanceOfNorms(RowNorm(weights.up, record, row) *
                                            RowNorm(weights.down, record, row));
                    }));
  for (size_t i = 0; i < importance.size(); ++i) {
    if (!std::isfinite(importance[i])) {
      return InvalidArgument(model.path(), ": neuron ", i, " of layer ", layer,
                             " has weights that are too large, NaN or "
                             "infinite");
    }
  }
  return importance;
}

}  // namespace flashelm
