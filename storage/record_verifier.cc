#include "storage/record_verifier.h"

#include "core/base/checked_math.h"
#include "core/base/types.h"
#include "storage/verify.h"

namespace flashelm {
namespace {

uint64_t TableBytes(const WeightFile& file) {
  return file.header().sections[kChecksums].raw_bytes;
}

uint64_t VerifiedBytes(const WeightFile& file) {
  return TableBytes(file) / 32 + 1;
}

}  // namespace

uint64_t RecordVerifier::NumBytes(const WeightFile& file) {
  return RoundUp(TableBytes(file), kIoAlignment) +
         RoundUp(VerifiedBytes(file), kIoAlignment);
}

Result<RecordVerifier> RecordVerifier::Create(const WeightFile& file,
                                              MemoryBudget& budget) {
  RecordVerifier verifier(file);
  FLASHELM_ASSIGN_OR_RETURN(
      verifier.checksums_,
      AlignedBuffer::Create(TableBytes(file), budget, "checksums"));
  FLASHELM_ASSIGN_OR_RETURN(
      verifier.verified_,
      AlignedBuffer::Create(VerifiedBytes(file), budget, "verified bits"));
  FLASHELM_RETURN_IF_ERROR(file.ReadChecksums(verifier.checksums_.bytes()));
  return verifier;
}

Status RecordVerifier::VerifyOnce(uint32_t segment, uint64_t first,
                                  uint64_t count, const std::byte* data) {
  const Segment& info = file_->segments()[segment];
  const uint64_t words = ChecksumBytes(info.checksum) / 4;
  const uint64_t base = info.first_checksum_byte / 4;
  const auto bits = verified_.As<uint8_t>();
  const uint64_t begin = base + first / info.records_per_checksum * words;
  const uint64_t end =
      base + CeilDiv(first + count, info.records_per_checksum) * words;
  bool is_verified = true;
  for (uint64_t bit = begin; bit < end && is_verified; ++bit) {
    is_verified = (bits[bit / 8] >> (bit % 8) & 1) != 0;
  }
  if (is_verified) return OkStatus();
  FLASHELM_RETURN_IF_ERROR(VerifyRecords(info, first, count, data,
                                         checksums_.bytes(), file_->path()));
  for (uint64_t bit = begin; bit < end; ++bit) {
    bits[bit / 8] |= static_cast<uint8_t>(1u << (bit % 8));
  }
  return OkStatus();
}

}  // namespace flashelm
