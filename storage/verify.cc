#include "storage/verify.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/base/memory.h"
#include "storage/checksum.h"

namespace flashelm {
namespace {

constexpr uint64_t kReadBytes = uint64_t{1} << 20;

uint64_t StoredChecksum(const Segment& segment, uint64_t index,
                        std::span<const std::byte> table) {
  uint64_t value = 0;
  const uint64_t bytes = ChecksumBytes(segment.checksum);
  std::memcpy(&value,
              table.data() + segment.first_checksum_byte + index * bytes,
              bytes);
  return value;
}

// The gap from the end of a segment to the next page has to be zero: it has no
// checksum, so anything else there is damage nobody would see.
Status VerifyPadding(const Segment& segment, std::span<const std::byte> padding,
                     const std::string& path) {
  for (size_t i = 0; i < padding.size(); ++i) {
    if (padding[i] != std::byte{0}) {
      return DataLoss(path, ": padding after ", segment.Describe(), ": byte ",
                      segment.offset_bytes + segment.num_bytes() + i,
                      " of the file is ", static_cast<int>(padding[i]),
                      ", expected 0");
    }
  }
  return OkStatus();
}

}  // namespace

Status VerifyRecords(const Segment& segment, uint64_t first, uint64_t count,
                     const std::byte* data, std::span<const std::byte> table,
                     const std::string& path) {
  const uint64_t last = first + count;
  for (uint64_t record = first; record < last;
       record += segment.records_per_checksum) {
    const uint64_t records =
        std::min(segment.records_per_checksum, last - record);
    const std::span<const std::byte> bytes(
        data + (record - first) * segment.stride_bytes,
        records * segment.stride_bytes);
    const uint64_t index = record / segment.records_per_checksum;
    const uint64_t computed = segment.checksum == ChecksumKind::kXxh3
                                  ? Xxh3(bytes)
                                  : Xxh3Low32(bytes);
    const uint64_t stored = StoredChecksum(segment, index, table);
    if (computed != stored) {
      return Unavailable(
          path, ": checksum mismatch in ", segment.Describe(), ", ",
          segment.kind == SegmentKind::kFfn ? "neuron " : "row ", record,
          ", byte ", segment.offset_bytes + record * segment.stride_bytes,
          " of the file: the bytes read have ", computed, ", written was ",
          stored);
    }
  }
  return OkStatus();
}

Result<VerifyReport> VerifyFile(const WeightFile& weights,
                                const CancelToken& cancel,
                                const std::function<void(uint64_t)>& progress) {
  VerifyReport report;
  const uint64_t table_bytes = weights.header().sections[kChecksums].raw_bytes;
  uint64_t buffer_bytes = 0;
  const auto run_records = [](const Segment& segment) {
    const uint64_t unit = segment.unit_records();
    const uint64_t units = kReadBytes / segment.stride_bytes / unit;
    return std::min(segment.num_records, unit * std::max<uint64_t>(1, units));
  };
  for (const Segment& segment : weights.segments()) {
    buffer_bytes =
        std::max(buffer_bytes, run_records(segment) * segment.stride_bytes);
  }
  MemoryBudget unlimited(UINT64_MAX);
  FLASHELM_ASSIGN_OR_RETURN(
      const AlignedBuffer table,
      AlignedBuffer::Create(table_bytes, unlimited, "checksums"));
  FLASHELM_ASSIGN_OR_RETURN(
      const AlignedBuffer buffer,
      AlignedBuffer::Create(buffer_bytes, unlimited, "read buffer"));
  FLASHELM_RETURN_IF_ERROR(weights.ReadChecksums(table.bytes()));
  FLASHELM_RETURN_IF_ERROR([&]() -> Status {
    auto tokenizer = weights.ReadTokenizer();
    return tokenizer ? OkStatus() : tokenizer.error();
  }());

  for (const Segment& segment : weights.segments()) {
    const uint64_t run = run_records(segment);
    for (uint64_t first = 0; first < segment.num_records; first += run) {
      if (cancel.IsCancelled()) {
        return Cancelled(weights.path(), ": verification stopped");
      }
      const uint64_t count = std::min(run, segment.num_records - first);
      const uint64_t bytes = count * segment.stride_bytes;
      const std::span<std::byte> target =
          buffer.bytes().first(RoundUp(bytes, kIoAlignment));
      FLASHELM_RETURN_IF_ERROR(ReadExactly(
          weights.file(), segment.offset_bytes + first * segment.stride_bytes,
          target, segment.Describe()));
      const Status status = VerifyRecords(segment, first, count, target.data(),
                                          table.bytes(), weights.path());
      // The same mismatch that is a failed read to a running model is, found
      // by looking for it, a damaged file.
      if (!status.ok()) return DataLoss(status.message());
      if (first + count == segment.num_records) {
        FLASHELM_RETURN_IF_ERROR(
            VerifyPadding(segment, target.subspan(bytes), weights.path()));
      }
      report.num_bytes += bytes;
      report.num_checksums += CeilDiv(count, segment.records_per_checksum);
      if (progress) progress(report.num_bytes);
    }
  }
  return report;
}

}  // namespace flashelm
