// Reading the weights of a file from front to back, past any engine.
#ifndef FLASHELM_CORE_RECORD_READER_H_
#define FLASHELM_CORE_RECORD_READER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/base/cancel.h"
#include "core/base/memory.h"
#include "core/base/status.h"
#include "core/model_file.h"
#include "core/model_layout.h"
#include "storage/weight_file.h"

namespace flashelm {

// The file's checksums; as much memory as they take. Errors as
// WeightFile::ReadChecksums().
Result<AlignedBuffer> LoadChecksums(const WeightFile& file,
                                    MemoryBudget& budget);

// Reads records of any segment into a buffer of its own, and compares them with
// their checksums. The file and the budget outlive it. One thread.
class RecordReader {
 public:
  // The most that one read brings, unless a checksum covers more.
  static constexpr uint64_t kSlabBytes = uint64_t{8} << 20;

  // Bytes of memory that Create() takes, for slabs of at most `slab_bytes`.
  static uint64_t NumBytes(const WeightFile& file,
                           uint64_t slab_bytes = kSlabBytes);
  static Result<RecordReader> Create(const WeightFile& file,
                                     MemoryBudget& budget,
                                     uint64_t slab_bytes = kSlabBytes);

  // Records that one Read() may bring.
  uint64_t SlabRecords(const Segment& segment) const {
    return SlabRecords(segment, slab_bytes_);
  }

  // Records [first, first + count) of a segment, until the next call; `first`
  // is a multiple of SlabRecords(), and `count` as much, or what is left.
  // kDataLoss: damaged, since nobody will try again. kUnavailable: a read
  // failed. kCancelled: as asked by `cancel`, which may be null.
  Result<const std::byte*> Read(const Segment& segment, uint64_t first,
                                uint64_t count, const CancelToken* cancel);

  const std::span<const std::byte> checksums() const { return table_.bytes(); }

 private:
  RecordReader(const WeightFile& file, uint64_t slab_bytes)
      : file_(&file), slab_bytes_(slab_bytes) {}
  static uint64_t SlabRecords(const Segment& segment, uint64_t slab_bytes);
  static uint64_t MostSlabBytes(const WeightFile& file, uint64_t slab_bytes);

  const WeightFile* file_;
  uint64_t slab_bytes_;
  AlignedBuffer table_;
  AlignedBuffer slab_;
};

// visit(index, record) for all records of a segment, in the file's order;
// `visit` returns nothing. Errors as RecordReader::Read().
Status ForEachRecord(
    const Segment& segment, RecordReader& reader, const CancelToken* cancel,
    const std::function<void(uint32_t, const std::byte*)>& visit);

// A row of a matrix of any encoding: part `part` of the record, decoded, which
// is exact.
void DecodeRow(const PartRef& part, const std::byte* record,
               std::span<float> row);

// The L2 norm of a row, decoded into `scratch` of its length. In one order.
double RowNorm(const PartRef& part, const std::byte* record,
               std::span<float> scratch);

// visit(neuron, row) for all gate rows of a layer, decoded, in the file's
// order; `visit` returns nothing. Errors as RecordReader::Read().
Status ForEachGateRow(
    const ModelFile& model, uint32_t layer, RecordReader& reader,
    const CancelToken* cancel,
    const std::function<void(uint32_t, std::span<const float>)>& visit);

// [ffn_dim], in the file's order: norm of a neuron's up row times norm of its
// down column. Errors as RecordReader::Read(). kInvalidArgument: not finite.
Result<std::vector<float>> ReadImportance(const ModelFile& model,
                                          uint32_t layer, RecordReader& reader,
                                          const CancelToken* cancel);

}  // namespace flashelm

#endif  // FLASHELM_CORE_RECORD_READER_H_
