#include "storage/resident_loader.h"

#include <algorithm>

#include "storage/planar.h"

namespace flashelm {
namespace {

constexpr uint64_t kLoadBytes = uint64_t{1} << 20;

}  // namespace

ResidentLoader::ResidentLoader(const WeightFile& file,
                               const SweepSequence& sequence, SlotReads& reads,
                               uint32_t first_tag, RecordVerifier& verifier,
                               std::span<std::byte* const> targets)
    : file_(file),
      sequence_(sequence),
      reads_(reads),
      first_tag_(first_tag),
      verifier_(verifier),
      targets_(targets) {}

Status ResidentLoader::Load(const ResidencyPlan& plan,
                            const ProgressFunction& progress) {
  if (progress) progress_ = &progress;
  total_bytes_ = plan.ResidentBytes(file_.segments());
  for (uint32_t i = 0; i < file_.segments().size(); ++i) {
    if (plan.resident_records[i] == 0) continue;
    FLASHELM_RETURN_IF_ERROR(LoadSegment(i));
  }
  return CheckAll();
}

Status ResidentLoader::LoadRun(uint32_t segment, uint64_t first,
                               uint64_t count) {
  const SegmentResidency::Piece piece =
      sequence_.Residency(segment).PieceAt(first);
  FLASHELM_RETURN_IF_ERROR(
      BeginRun(segment, first, count, piece.first_resident));
  return CheckAll();
}

Status ResidentLoader::LoadSegment(uint32_t index) {
  const Segment& segment = file_.segments()[index];
  for (uint64_t record = 0; record < segment.num_records;) {
    const SegmentResidency::Piece piece =
        sequence_.Residency(index).PieceAt(record);
    record += piece.num_records;
    if (!piece.is_resident) continue;
    FLASHELM_RETURN_IF_ERROR(BeginRun(index, piece.first_record,
                                      piece.num_records, piece.first_resident));
  }
  return OkStatus();
}

Status ResidentLoader::BeginRun(uint32_t index, uint64_t first, uint64_t count,
                                uint64_t first_resident) {
  const Segment& segment = file_.segments()[index];
  const uint64_t unit = sequence_.LoadUnit(index);
  const uint64_t step =
      unit * std::max<uint64_t>(1, kLoadBytes / segment.stride_bytes / unit);
  std::byte* target = targets_[index] + first_resident * segment.stride_bytes;
  while (count > 0) {
    // No small read for what is left of a piece.
    const uint64_t now = count < 2 * step ? count : step;
    FLASHELM_RETURN_IF_ERROR(Submit({index, first, now, target}));
    first += now;
    count -= now;
    target += now * segment.stride_bytes;
  }
  return OkStatus();
}

Status ResidentLoader::CheckAll() {
  while (num_checked_ < num_submitted_) {
    FLASHELM_RETURN_IF_ERROR(CheckOne());
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
  if (reads_.is_cancelled()) {
    return Cancelled(file_.path(), ": loading stopped");
  }
  const uint64_t index = num_checked_++ % kDepth;
  const Chunk& chunk = chunks_[index];
  FLASHELM_RETURN_IF_ERROR(
      reads_.WaitFor(first_tag_ + static_cast<uint32_t>(index)));
  FLASHELM_RETURN_IF_ERROR(verifier_.VerifyOnce(chunk.segment, chunk.first,
                                                chunk.count, chunk.target));
  if (sequence_.IsPlanar(chunk.segment)) {
    MakePlanar(file_.segments()[chunk.segment], chunk.count, chunk.target);
  }
  num_bytes_ += RunPageBytes(file_.segments()[chunk.segment], chunk.count);
  if (progress_ != nullptr) (*progress_)(num_bytes_, total_bytes_);
  return OkStatus();
}

}  // namespace flashelm
