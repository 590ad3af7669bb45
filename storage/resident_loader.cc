#include "storage/resident_loader.h"

#include <algorithm>

namespace flashelm {
namespace {

constexpr uint64_t kLoadBytes = uint64_t{1} << 20;

}  // namespace

ResidentLoader::ResidentLoader(const WeightFile& file,
                               const ResidencyPlan& plan,
                               const SweepSequence& sequence, SlotReads& reads,
                               uint32_t first_tag, RecordVerifier& verifier,
                               const ProgressFunction& progress)
    : file_(file),
      plan_(plan),
      sequence_(sequence),
      reads_(reads),
      first_tag_(first_tag),
      verifier_(verifier),
      progress_(progress),
      total_bytes_(plan.ResidentBytes(file.segments())) {}

Status ResidentLoader::Load(std::byte* target, const CancelToken& cancel) {
  for (uint32_t i = 0; i < file_.segments().size(); ++i) {
    FLASHELM_RETURN_IF_ERROR(LoadSegment(i, target, cancel));
    target += RunPageBytes(file_.segments()[i], plan_.resident_records[i]);
  }
  while (num_checked_ < num_submitted_) {
    FLASHELM_RETURN_IF_ERROR(CheckOne());
  }
  return OkStatus();
}

Status ResidentLoader::LoadSegment(uint32_t index, std::byte* target,
                                   const CancelToken& cancel) {
  const Segment& segment = file_.segments()[index];
  const uint64_t unit = segment.unit_records();
  const uint64_t step =
      unit * std::max<uint64_t>(1, kLoadBytes / segment.stride_bytes / unit);
  for (uint64_t record = 0; record < segment.num_records;) {
    if (cancel.IsCancelled()) {
      return Cancelled(file_.path(), ": loading stopped");
    }
    const SegmentResidency::Piece piece =
        sequence_.Residency(index).PieceAt(record);
    // No small read for what is left of a piece.
    const uint64_t count =
        piece.num_records < 2 * step ? piece.num_records : step;
    record += count;
    if (!piece.is_resident) continue;
    FLASHELM_RETURN_IF_ERROR(
        Submit({index, piece.first_record, count,
                target + piece.first_resident * segment.stride_bytes}));
  }
  return OkStatus();
}

Status ResidentLoader::Submit(const Chunk& chunk) {
  if (num_submitted_ - num_checked_ == kDepth) {
    FLASHELM_RETURN_IF_ERROR(CheckOne());
  }
  const uint64_t index = num_submitted_++ % kDepth;
  chunks_[index] = chunk;
  const ReadRequest request =
      reads_.Prepare(first_tag_ + static_cast<uint32_t>(index), chunk.segment,
                     chunk.first, chunk.count, chunk.target);
  return reads_.Submit({&request, 1});
}

Status ResidentLoader::CheckOne() {
  const uint64_t index = num_checked_++ % kDepth;
  const Chunk& chunk = chunks_[index];
  FLASHELM_RETURN_IF_ERROR(
      reads_.WaitFor(first_tag_ + static_cast<uint32_t>(index)));
  FLASHELM_RETURN_IF_ERROR(verifier_.VerifyOnce(chunk.segment, chunk.first,
                                                chunk.count, chunk.target));
  num_bytes_ += RunPageBytes(file_.segments()[chunk.segment], chunk.count);
  if (progress_) progress_(num_bytes_, total_bytes_);
  return OkStatus();
}

}  // namespace flashelm
