#include "storage/weight_store.h"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <utility>

#include "core/base/checked_math.h"
#include "storage/planar.h"

namespace flashelm {
namespace {

// Resident records come in runs of at most about so many bytes while others
// stream: between two runs the store sees which reads have ended.
constexpr uint64_t kRunBytes = uint64_t{16} << 20;
// What keeps devices busy, as far as the ring goes.
constexpr uint64_t kLeastWindowBytes = uint64_t{8} << 20;
// And those of a mapping in so many chunks, which are verified as they are
// first used.
constexpr uint64_t kMappedChunks = 16;
// Records that were dropped are read again in runs of about so many bytes,
// enough to keep the device busy.
constexpr uint64_t kDroppedRunBytes = uint64_t{8} << 20;
// How long a destructor waits for a device that does not answer.
constexpr std::chrono::nanoseconds kLastWait = std::chrono::seconds(2);

Status CheckDepth(const WeightFile& file, const ResidencyPlan& plan,
                  const AsyncReader& reader) {
  const uint32_t most = WeightStore::MaxReadsInFlight(plan);
  if (reader.depth() >= most) return OkStatus();
  return InvalidArgument(file.path(), ": a reader of depth ", reader.depth(),
                         " for ", most, " reads in flight");
}

// Records of about `num_bytes`: whole units of so many records, at least one.
uint64_t RecordsOfRun(uint64_t num_bytes, uint64_t stride_bytes,
                      uint64_t unit_records) {
  return RoundUp(std::max<uint64_t>(1, num_bytes / stride_bytes), unit_records);
}

}  // namespace

uint64_t WeightStoreOverheadBytes(const WeightFile& file,
                                  const ResidencyPlan& plan) {
  const Segment& head = file.segments()[plan.head];
  const bool needs_row = plan.resident_records[plan.head] < head.num_records;
  return RecordVerifier::NumBytes(file) +
         (needs_row ? RunPageBytes(
                          head, std::min(head.unit_records(), head.num_records))
                    : 0);
}

WeightStore::WeightStore(const WeightFile& file, ResidencyPlan plan,
                         AsyncReader* reader, const WeightStoreOptions& options)
    : file_(file),
      plan_(std::move(plan)),
      reader_(reader),
      options_(options),
      sequence_(file, plan_),
      reads_(file, reader, plan_.num_slots, 1 + ResidentLoader::kDepth,
             options.read_timeout, options.trace),
      taken_(sequence_.NextSweep()),
      submitted_(taken_) {
  options_.before = nullptr;  // Create() alone looks at it.
}

WeightStore::~WeightStore() {
  if (reader_ == nullptr) return;
  // Drain() waits.
  EndReads(Wait::kNone);
  if (reads_.Drain(std::min(options_.read_timeout, kLastWait))) {
    reader_->RegisterBuffer({});
    return;
  }
  // Whatever the device still writes goes nowhere else.
  reader_->Adopt(std::move(ring_));
  for (uint32_t i = 0; i < ResidentLoader::kDepth; ++i) {
    if (!reads_.is_in_flight(row_buffer() + 1 + i)) continue;
    reader_->Adopt(std::move(resident_));
    // Others, which follow, have them as well once they are read.
    if (is_loading_) reader_->Adopt(std::move(permanent_->records));
    break;
  }
  if (reads_.is_in_flight(row_buffer())) reader_->Adopt(std::move(row_));
}

uint32_t WeightStore::MaxReadsInFlight(const ResidencyPlan& plan) {
  return plan.num_slots + ResidentLoader::kDepth + 1;
}

uint64_t WeightStore::UsualWindowBytes(const ResidencyPlan& plan) {
  return std::max(kLeastWindowBytes, plan.RingBytes() / 3 * 2);
}

Result<std::unique_ptr<WeightStore>> WeightStore::Create(
    const WeightFile& file, const ResidencyPlan& plan, AsyncReader& reader,
    MemoryBudget& budget, const WeightStoreOptions& options) {
  FLASHELM_RETURN_IF_ERROR(CheckResidencyPlan(file, plan));
  FLASHELM_RETURN_IF_ERROR(CheckDepth(file, plan, reader));
  std::unique_ptr<WeightStore> store(
      new WeightStore(file, plan, &reader, options));
  FLASHELM_RETURN_IF_ERROR(store->Allocate(budget, options.before));
  return store;
}

void WeightStore::RegisterBuffers() {
  if (reader_ != nullptr) reader_->RegisterBuffer(ring_.bytes());
}

Result<std::unique_ptr<WeightStore>> WeightStore::CreateMapped(
    const WeightFile& file, const ResidencyPlan& plan, MemoryBudget& budget,
    const WeightStoreOptions& options) {
  ResidencyPlan mapped = plan;
  mapped.num_slots = 0;
  mapped.slot_bytes = 0;
  mapped.planar.clear();
  mapped.resident_records.clear();
  for (const Segment& segment : file.segments()) {
    mapped.resident_records.push_back(segment.num_records);
  }
  FLASHELM_RETURN_IF_ERROR(CheckResidencyPlan(file, mapped));
  std::unique_ptr<WeightStore> store(
      new WeightStore(file, std::move(mapped), nullptr, options));
  store->permanent_ = std::make_shared<Permanent>();
  FLASHELM_ASSIGN_OR_RETURN(store->permanent_->verifier,
                            RecordVerifier::Create(file, budget));
  FLASHELM_ASSIGN_OR_RETURN(store->mapping_, FileMapping::Create(file.file()));
  for (const Segment& segment : file.segments()) {
    store->resident_data_.push_back(store->mapping_.data() +
                                    segment.offset_bytes);
  }
  return store;
}

Result<std::unique_ptr<WeightStore>> WeightStore::CreateStandIn(
    const WeightFile& file, const ResidencyPlan& plan,
    std::span<const std::byte> weights, StandInOptions options) {
  FLASHELM_RETURN_IF_ERROR(CheckResidencyPlan(file, plan));
  for (const Segment& segment : file.segments()) {
    if (weights.size() / 2 < segment.stride_bytes) {
      return InvalidArgument(file.path(), ": ", weights.size(),
                             " bytes stand in for records of ",
                             segment.stride_bytes, " bytes");
    }
  }
  AsyncReader* const reader = options.reader;
  std::unique_ptr<WeightStore> store(new WeightStore(file, plan, reader, {}));
  store->stand_in_ = weights;
  store->stand_in_options_ = std::move(options);
  if (reader != nullptr) {
    FLASHELM_RETURN_IF_ERROR(CheckDepth(file, plan, *reader));
    FLASHELM_RETURN_IF_ERROR(
        store->AllocateRing(*store->stand_in_options_.budget));
  }
  return store;
}

const std::byte* WeightStore::StandIn(const Segment& segment,
                                      uint64_t first_record,
                                      uint64_t count) const {
  constexpr uint64_t kAlignment = 64;
  const uint64_t offset =
      segment.offset_bytes + first_record * segment.stride_bytes;
  const uint64_t room = stand_in_.size() - count * segment.stride_bytes;
  return stand_in_.data() + RoundDown(offset % (room + 1), kAlignment);
}

Result<RecordRun> WeightStore::NextStandIn(uint32_t segment,
                                           uint64_t first_record) {
  const Segment& info = file_.segments()[segment];
  const SegmentResidency::Piece piece =
      sequence_.Residency(segment).PieceAt(first_record);
  uint64_t most = stand_in_.size() / 2;
  if (plan_.num_slots > 0) most = std::min(most, kRunBytes);
  uint64_t count = std::max<uint64_t>(1, most / info.stride_bytes);
  // There may not be the memory for a block.
  const bool is_planar = sequence_.IsPlanar(segment) &&
                         count >= std::min(info.num_records, kPlanarRecords);
  if (is_planar && count < piece.num_records) {
    count = RoundDown(count, kPlanarRecords);
  }
  count = std::min(count, piece.num_records);
  if (stand_in_options_.num_bytes != nullptr) {
    *stand_in_options_.num_bytes += count * info.stride_bytes;
  }
  return RecordRun{first_record, count, StandIn(info, first_record, count),
                   is_planar};
}

Status WeightStore::Allocate(MemoryBudget& budget, const WeightStore* before) {
  const std::vector<Segment>& segments = file_.segments();
  uint64_t permanent_bytes = 0;
  for (uint32_t i = 0; i < segments.size(); ++i) {
    if (!IsPermanent(i)) continue;
    permanent_bytes += RunPageBytes(segments[i], plan_.resident_records[i]);
  }
  if (before != nullptr) {
    permanent_ = before->permanent_;
    if (permanent_->records.size() != permanent_bytes) {
      return Internal(file_.path(), ": ", permanent_bytes,
                      " bytes are resident in every plan, but ",
                      permanent_->records.size(), " in the one before");
    }
  } else {
    permanent_ = std::make_shared<Permanent>();
    FLASHELM_ASSIGN_OR_RETURN(
        permanent_->records,
        AlignedBuffer::Create(permanent_bytes, budget, "norm vectors"));
    FLASHELM_ASSIGN_OR_RETURN(permanent_->verifier,
                              RecordVerifier::Create(file_, budget));
  }
  FLASHELM_ASSIGN_OR_RETURN(
      resident_,
      AlignedBuffer::Create(plan_.ResidentBytes(segments) - permanent_bytes,
                            budget, "resident weights"));
  std::byte* at = resident_.data();
  std::byte* permanent_at = permanent_->records.data();
  for (uint32_t i = 0; i < segments.size(); ++i) {
    std::byte*& next = IsPermanent(i) ? permanent_at : at;
    resident_targets_.push_back(next);
    resident_data_.push_back(next);
    num_loaded_.push_back(
        before != nullptr && IsPermanent(i) ? plan_.resident_records[i] : 0);
    next += RunPageBytes(segments[i], plan_.resident_records[i]);
  }
  return AllocateRing(budget);
}

Status WeightStore::AllocateRing(MemoryBudget& budget) {
  FLASHELM_ASSIGN_OR_RETURN(
      ring_, AlignedBuffer::Create(plan_.RingBytes(), budget, "read ring"));
  const Segment& head = file_.segments()[plan_.head];
  if (plan_.resident_records[plan_.head] < head.num_records) {
    FLASHELM_ASSIGN_OR_RETURN(
        row_,
        AlignedBuffer::Create(
            RunPageBytes(head, std::min(head.unit_records(), head.num_records)),
            budget, "embedding rows"));
  }
  ahead_.resize(plan_.num_slots);
  const uint64_t window = options_.window_bytes != 0 ? options_.window_bytes
                                                     : UsualWindowBytes(plan_);
  max_reading_ =
      std::max<uint64_t>(2, window / std::max<uint64_t>(1, plan_.slot_bytes));
  batch_.reserve(plan_.num_slots);
  return OkStatus();
}

Status WeightStore::Load(const CancelToken& cancel,
                         const ProgressFunction& progress) {
  const std::vector<Segment>& segments = file_.segments();
  if (reader_ == nullptr) {
    // The rest comes when it is used, in Next().
    for (uint32_t i = 0; i < segments.size(); ++i) {
      if (sequence_.Contains(i)) continue;
      FLASHELM_RETURN_IF_ERROR(verifier().VerifyOnce(
          i, 0, segments[i].num_records, resident_data_[i]));
    }
    return OkStatus();
  }
  FLASHELM_RETURN_IF_ERROR(WaitForLoads());
  is_loading_ = true;
  ResidentLoader loader(file_, sequence_, reads_, row_buffer() + 1, verifier(),
                        resident_targets_);
  reads_.set_cancel(&cancel);
  Status status = loader.Load(plan_, progress);
  resident_bytes_ = loader.num_bytes();
  if (!status.ok()) status = Fail(std::move(status));
  reads_.set_cancel(nullptr);
  if (!status.ok()) return status;
  is_loading_ = false;
  num_loaded_ = plan_.resident_records;
  after_load_ = reader_->stats();
  reads_.ResetWait();
  return OkStatus();
}

Status WeightStore::WaitForLoads() {
  const auto deadline = reads_.Deadline();
  for (uint32_t i = 0; i < ResidentLoader::kDepth; ++i) {
    while (reads_.is_in_flight(row_buffer() + 1 + i)) {
      Status status = reads_.TakeOne(deadline);
      if (status.code() == StatusCode::kUnavailable) {
        return Unavailable(file_.path(),
                           ": reads begun before: ", status.message());
      }
      FLASHELM_RETURN_IF_ERROR(std::move(status));
    }
  }
  return OkStatus();
}

Status WeightStore::DropResident() {
  if (reader_ == nullptr) return OkStatus();
  FLASHELM_RETURN_IF_ERROR(resident_.Discard());
  for (uint32_t i = 0; i < num_loaded_.size(); ++i) {
    if (!IsPermanent(i)) num_loaded_[i] = 0;
  }
  return OkStatus();
}

Status WeightStore::LoadDropped(uint32_t segment, uint64_t first_record,
                                uint64_t count, uint64_t first_resident) {
  FLASHELM_RETURN_IF_ERROR(WaitForLoads());
  ResidentLoader loader(file_, sequence_, reads_, row_buffer() + 1, verifier(),
                        resident_targets_);
  FLASHELM_RETURN_IF_ERROR(loader.LoadRun(segment, first_record, count));
  // A sweep goes through them in order; a row that was looked up is no
  // beginning of them.
  if (first_resident == num_loaded_[segment]) {
    num_loaded_[segment] += count;
  }
  return OkStatus();
}

void WeightStore::ReleaseHeldSlot() {
  if (held_slot_ != kNone) reads_.Release(std::exchange(held_slot_, kNone));
}

Status WeightStore::FillRing() {
  if (reader_ == nullptr) return OkStatus();
  // One slot stays for rows while their own buffer is not usable.
  const size_t reserve =
      reads_.is_given_up(row_buffer()) && row_tag_ == kNone ? 1 : 0;
  batch_.clear();
  while (reads_.num_free() > reserve && reads_.num_ahead() < max_reading_ &&
         sequence_.Settle(submitted_)) {
    const uint32_t slot = reads_.TakeFree(reuse_tuner_.latest_first());
    const uint64_t count = sequence_.ChunkRecords(submitted_);
    batch_.push_back(reads_.PrepareAhead(slot, sequence_, submitted_, count,
                                         SlotData(slot)));
    ahead_[(first_ahead_ + num_ahead_++) % ahead_.size()] = slot;
    submitted_.record += count;
  }
  return batch_.empty() ? OkStatus() : reads_.Submit(batch_);
}

uint32_t WeightStore::TakeAhead() {
  const uint32_t slot = ahead_[first_ahead_];
  first_ahead_ = (first_ahead_ + 1) % ahead_.size();
  --num_ahead_;
  return slot;
}

Status WeightStore::BeginSweep(bool with_head) {
  // A sweep that was read to its end leaves the cursor in the one after it.
  sequence_.Settle(taken_);
  if (taken_.sweep != sequence_.sweep() + 1) {
    return Fail(Internal(file_.path(), ": a sweep begins inside another"));
  }
  if (is_only_stand_in()) {
    sequence_.Begin(with_head);
    return OkStatus();
  }
  ReleaseHeldSlot();
  // Whether the sweep before had a head is known only until here.
  sequence_.Settle(submitted_);
  sequence_.Begin(with_head);
  if (options_.trace != nullptr) {
    options_.trace->BeginSweep(sequence_.sweep());
  }
  Status status = FillRing();
  return status.ok() ? status : Fail(std::move(status));
}

Status WeightStore::EndSweep() {
  if (is_only_stand_in()) {
    taken_ = submitted_ = sequence_.NextSweep();
    return OkStatus();
  }
  reuse_tuner_.OnPause();
  if (options_.trace != nullptr)
    options_.trace->EndStep(SlotReads::Clock::now());
  ReleaseHeldSlot();
  Status status = FillRing();
  return status.ok() ? status : Fail(std::move(status));
}

Status WeightStore::KeepReading() {
  if (plan_.num_slots == 0 || reader_ == nullptr) return OkStatus();
  reads_.Poll();
  Status status = FillRing();
  return status.ok() ? status : Fail(std::move(status));
}

Status WeightStore::CheckCancelled() {
  if (!reads_.is_cancelled()) return OkStatus();
  return Fail(Cancelled("stopped between two pieces of work"));
}

Result<RecordRun> WeightStore::Next(uint32_t segment, uint64_t first_record) {
  if (reads_.is_cancelled()) {
    return Unexpected(
        Fail(Cancelled("stopped before ", file_.segments()[segment].Describe(),
                       " record ", first_record)));
  }
  if (stand_in_options_.is_over && stand_in_options_.is_over()) {
    return Unexpected(Fail(Cancelled("the measurement is over")));
  }
  if (is_only_stand_in()) {
    return NextStandIn(segment, first_record);
  }
  const bool streams = plan_.num_slots > 0;
  if (options_.trace != nullptr) {
    // One clock reading per run, of some 50 microseconds.
    options_.trace->BeginStep(sequence_.StepOf(segment),
                              SlotReads::Clock::now());
  }
  if (streams) {
    ReleaseHeldSlot();
    FLASHELM_RETURN_IF_ERROR(KeepReading());
  }
  const Segment& info = file_.segments()[segment];
  if (first_record >= info.num_records) {
    return Unexpected(
        Fail(Internal(file_.path(), ": ", info.Describe(), " record ",
                      first_record, " of ", info.num_records)));
  }
  const SegmentResidency::Piece piece =
      sequence_.Residency(segment).PieceAt(first_record);
  uint64_t count = piece.num_records;
  if (piece.is_resident) {
    const bool is_planar = sequence_.IsPlanar(segment);
    if (!stand_in_.empty()) return NextStandIn(segment, first_record);
    const std::byte* data =
        resident_data_[segment] + piece.first_resident * info.stride_bytes;
    if (reader_ == nullptr) {
      count = std::min(count, kMappedChunks * plan_.chunk_records[segment]);
      Status status = verifier().VerifyOnce(segment, first_record, count, data);
      if (!status.ok()) return Unexpected(Fail(std::move(status)));
    } else if (streams) {
      count = std::min(count, RecordsOfRun(kRunBytes, info.stride_bytes,
                                           is_planar ? kPlanarRecords : 1));
    }
    const uint64_t loaded =
        reader_ == nullptr ? info.num_records : num_loaded_[segment];
    if (loaded > piece.first_resident) {
      count = std::min(count, loaded - piece.first_resident);
    } else {
      count = std::min(piece.num_records,
                       RecordsOfRun(kDroppedRunBytes, info.stride_bytes,
                                    sequence_.LoadUnit(segment)));
      Status status =
          LoadDropped(segment, first_record, count, piece.first_resident);
      if (!status.ok()) return Unexpected(Fail(std::move(status)));
    }
    return RecordRun{first_record, count, data, is_planar};
  }
  return NextStreamed(segment, first_record, count);
}

std::optional<RecordRun> WeightStore::FindResident(uint32_t segment) const {
  const uint64_t num_records = file_.segments()[segment].num_records;
  if (reader_ == nullptr || plan_.num_slots > 0 || !stand_in_.empty() ||
      num_loaded_[segment] < num_records) {
    return std::nullopt;
  }
  return RecordRun{0, num_records, resident_data_[segment],
                   sequence_.IsPlanar(segment)};
}

Result<RecordRun> WeightStore::NextStreamed(uint32_t segment,
                                            uint64_t first_record,
                                            uint64_t count) {
  const Segment& info = file_.segments()[segment];
  if (!sequence_.Settle(taken_) || taken_.sweep != sequence_.sweep() ||
      sequence_.SegmentAt(taken_.step) != segment ||
      taken_.record != first_record) {
    return Unexpected(
        Fail(Internal(file_.path(), ": ", info.Describe(), " record ",
                      first_record, " is not what the sweep reads next")));
  }
  // All slots may be those of reads that were given up.
  const auto deadline = reads_.Deadline();
  while (num_ahead_ == 0) {
    Status status = reads_.TakeOne(deadline);
    if (status.ok()) status = FillRing();
    if (!status.ok()) return Unexpected(Fail(std::move(status)));
  }
  const uint32_t slot = ahead_[first_ahead_];
  assert(reads_.segment(slot) == segment);
  // Reads may end in another order than they were begun in: a device that only
  // the oldest one is left to would have less and less to do.
  Status status = reads_.WaitFor(slot, [this] { return FillRing(); });
  if (status.ok()) {
    status = Verify(segment, first_record, count, SlotData(slot));
  }
  if (!status.ok()) return Unexpected(Fail(std::move(status)));
  if (stand_in_options_.num_bytes != nullptr) {
    *stand_in_options_.num_bytes += count * info.stride_bytes;
  }
  held_slot_ = TakeAhead();
  taken_.record += count;
  reuse_tuner_.OnTaken(count * info.stride_bytes, SlotReads::Clock::now());
  // Before the caller computes: the device has something to do meanwhile.
  status = FillRing();
  if (!status.ok()) return Unexpected(Fail(std::move(status)));
  return RecordRun{first_record, count, SlotData(slot)};
}

void WeightStore::EndReads(Wait wait) {
  reuse_tuner_.OnPause();
  if (reader_ != nullptr) {
    if (wait != Wait::kNone) reads_.WaitForAll(wait == Wait::kBriefly);
    ReleaseHeldSlot();
    if (row_tag_ != kNone && reads_.is_in_flight(row_tag_)) ForgetRow();
    while (num_ahead_ > 0) reads_.Release(TakeAhead());
    // Reads of Load(), whose targets stay.
    reads_.GiveUpAll();
  }
  taken_ = submitted_ = sequence_.NextSweep();
}

void WeightStore::Abort(StatusCode why) {
  EndReads(reads_.TakeTimedOut()           ? Wait::kNone
           : why == StatusCode::kCancelled ? Wait::kBriefly
                                           : Wait::kAsLongAsARead);
}

Status WeightStore::Fail(Status status) {
  Abort(status.code());
  return status;
}

void WeightStore::ForgetRow() {
  if (row_tag_ == kNone) return;
  const uint32_t tag = std::exchange(row_tag_, kNone);
  row_first_ = UINT64_MAX;
  if (tag < plan_.num_slots) {
    reads_.Release(tag);
  } else {
    reads_.GiveUp(tag);
  }
}

Status WeightStore::ChooseRowBuffer() {
  ForgetRow();
  // After a call that was cancelled, no slot need be free yet.
  const auto deadline = reads_.Deadline();
  while (reads_.num_free() == 0 && reads_.is_in_flight(row_buffer())) {
    Status status = reads_.TakeOne(deadline);
    if (status.code() == StatusCode::kUnavailable) {
      return Unavailable(file_.path(),
                         ": the device has not answered reads begun before, "
                         "and no buffer is left for another");
    }
    FLASHELM_RETURN_IF_ERROR(std::move(status));
  }
  row_tag_ = reads_.is_in_flight(row_buffer())
                 ? reads_.TakeFree(/*latest=*/true)
                 : row_buffer();
  return OkStatus();
}

Result<const std::byte*> WeightStore::FindHeadRecord(uint64_t record) {
  const uint32_t index = plan_.head;
  const Segment& head = file_.segments()[index];
  if (is_only_stand_in()) {
    return StandIn(head, record, 1);
  }
  // The whole checksum unit: also what a page run needs to be.
  const uint64_t unit = head.unit_records();
  const uint64_t first = RoundDown(record, unit);
  const uint64_t count = std::min(unit, head.num_records - first);
  const SegmentResidency::Piece piece =
      sequence_.Residency(index).PieceAt(record);
  if (piece.is_resident) {
    if (!stand_in_.empty()) return StandIn(head, record, 1);
    if (reader_ == nullptr) {
      FLASHELM_RETURN_IF_ERROR(verifier().VerifyOnce(
          index, first, count,
          resident_data_[index] + first * head.stride_bytes));
    } else if (piece.first_resident >= num_loaded_[index]) {
      Status status = LoadDropped(index, first, count,
                                  piece.first_resident - (record - first));
      if (!status.ok()) return Unexpected(Fail(std::move(status)));
    }
    return resident_data_[index] + piece.first_resident * head.stride_bytes;
  }
  if (first != row_first_) {
    reads_.Poll();
    Status status = ChooseRowBuffer();
    if (status.ok()) {
      const ReadRequest request =
          reads_.Prepare(row_tag_, index, first, count, RowData());
      status = reads_.Submit({&request, 1});
    }
    if (status.ok()) status = reads_.WaitFor(row_tag_);
    if (status.ok()) {
      status = Verify(index, first, count, RowData());
    }
    if (!status.ok()) {
      ForgetRow();
      return Unexpected(Fail(std::move(status)));
    }
    row_first_ = first;
  }
  return RowData() + (record - first) * head.stride_bytes;
}

const std::byte* WeightStore::ResidentRecord(uint32_t segment,
                                             uint64_t record) const {
  if (!stand_in_.empty()) return StandIn(file_.segments()[segment], record, 1);
  const SegmentResidency::Piece piece =
      sequence_.Residency(segment).PieceAt(record);
  assert(piece.is_resident);
  return resident_data_[segment] +
         piece.first_resident * file_.segments()[segment].stride_bytes;
}

WeightStoreStats WeightStore::stats() const {
  if (reader_ == nullptr) return {};
  const ReaderStats now = reader_->stats();
  return {now.num_bytes - after_load_.num_bytes,
          now.num_reads - after_load_.num_reads,
          now.busy_ns - after_load_.busy_ns,
          reads_.wait_ns(),
          resident_bytes_,
          reads_.unanswered_bytes()};
}

}  // namespace flashelm
