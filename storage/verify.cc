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

// Between what is in a file, bytes [begin, end) have to be zero: they have no
// checksum, so anything else there is damage nobody would see. `buffer`: whole
// pages, at least one.
Status VerifyGap(const RandomAccessFile& file, uint64_t begin, uint64_t end,
                 std::string_view before, std::span<std::byte> buffer) {
  for (uint64_t page = RoundDown(begin, kIoAlignment); page < end;) {
    const std::span<std::byte> pages = buffer.first(
        std::min<uint64_t>(buffer.size(), RoundUp(end, kIoAlignment) - page));
    FLASHELM_RETURN_IF_ERROR(ReadExactly(file, page, pages, "padding"));
    const uint64_t last = std::min(end, page + pages.size());
    for (uint64_t at = std::max(begin, page); at < last; ++at) {
      if (pages[at - page] != std::byte{0}) {
        return DataLoss(file.path(), ": padding after ", before, ": byte ", at,
                        " of the file is ", static_cast<int>(pages[at - page]),
                        ", expected 0");
      }
    }
    page += pages.size();
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
      return Unavailable(path, ": checksum mismatch in ", segment.Describe(),
                         ", ", HasNeurons(segment.kind) ? "neuron " : "row ",
                         record, ", byte ",
                         segment.offset_bytes + record * segment.stride_bytes,
                         " of the file: the bytes read have ", computed,
                         ", written was ", stored);
    }
  }
  return OkStatus();
}

Result<VerifyReport> VerifyFile(const WeightFile& weights,
                                const CancelToken& cancel,
                                const std::function<void(uint64_t)>& progress) {
  VerifyReport report;
  const uint64_t table_bytes = weights.header().sections[kChecksums].raw_bytes;
  uint64_t buffer_bytes = kIoAlignment;
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

  // Everything in file order, and the gaps between.
  uint64_t end = kFelmHeaderBytes;
  std::string before = "the header";
  const auto pass_gap = [&](uint64_t next) {
    return VerifyGap(weights.file(), end, next, before, buffer.bytes());
  };
  for (uint32_t id = 0; id < kNumSections; ++id) {
    const Section& section = weights.header().sections[id];
    FLASHELM_RETURN_IF_ERROR(pass_gap(section.offset_bytes));
    end = section.offset_bytes + section.stored_bytes;
    before = StatusMessage::Join("section ", kSectionNames[id]);
  }
  for (const Segment& segment : weights.segments()) {
    FLASHELM_RETURN_IF_ERROR(pass_gap(segment.offset_bytes));
    end = segment.offset_bytes + segment.num_bytes();
    before = segment.Describe();
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
      report.num_bytes += bytes;
      report.num_checksums += CeilDiv(count, segment.records_per_checksum);
      if (progress) progress(report.num_bytes);
    }
  }
  FLASHELM_RETURN_IF_ERROR(pass_gap(weights.header().file_bytes));
  return report;
}

}  // namespace flashelm
