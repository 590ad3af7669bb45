#include "storage/weight_store.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <chrono>
#include <utility>

namespace flashelm {
namespace {

constexpr uint32_t kLoadDepth = 8;
constexpr uint64_t kLoadBytes = uint64_t{1} << 20;
// Resident records come in runs of about so many bytes while others stream:
// between two runs the store sees which reads have ended.
constexpr uint64_t kRunBytes = uint64_t{4} << 20;
// How long a destructor waits for a device that does not answer.
constexpr std::chrono::nanoseconds kLastWait = std::chrono::seconds(2);

// Bytes of the file that hold records [first, first + count): whole pages, as
// runs begin at a page and a segment's last page is padded.
uint64_t PageBytes(const Segment& segment, uint64_t count) {
  return RoundUp(count * segment.stride_bytes, kIoAlignment);
}

bool IsWholeUnits(const Segment& segment, uint64_t records) {
  return records % segment.unit_records() == 0 ||
         records == segment.num_records;
}

}  // namespace

uint64_t WeightStoreOverheadBytes(const WeightFile& file,
                                  const ResidencyPlan& plan) {
  const Segment& head = file.segments()[plan.head];
  const bool needs_row = plan.resident_records[plan.head] < head.num_records;
  return RecordVerifier::NumBytes(file) +
         (needs_row
              ? PageBytes(head, std::min(head.unit_records(), head.num_records))
              : 0);
}

WeightStore::WeightStore(const WeightFile& file, ResidencyPlan plan,
                         AsyncReader* reader, const WeightStoreOptions& options)
    : file_(file),
      plan_(std::move(plan)),
      reader_(reader),
      options_(options),
      steps_(plan_.sweep) {
  steps_.push_back(plan_.head);
  step_of_.resize(file.segments().size());
  for (uint32_t step = 0; step < steps_.size(); ++step) {
    step_of_[steps_[step]] = step;
  }
  for (uint32_t i = 0; i < step_of_.size(); ++i) {
    residency_.push_back(plan_.Residency(file.segments(), i));
  }
  taken_.sweep = submitted_.sweep = 1;
}

WeightStore::~WeightStore() {
  if (reader_ == nullptr) return;
  // Drain() waits.
  EndReads(/*wait=*/false);
  if (reader_->Drain(std::min(options_.read_timeout, kLastWait))) {
    reader_->RegisterBuffer({});
    return;
  }
  // Whatever the device still writes goes nowhere else.
  resident_.Leak();
  ring_.Leak();
  row_.Leak();
}

uint32_t WeightStore::MaxReadsInFlight(const ResidencyPlan& plan) {
  return std::max(plan.num_slots, kLoadDepth) + 1;
}

Status WeightStore::CheckPlan(const WeightFile& file,
                              const ResidencyPlan& plan) {
  const std::vector<Segment>& segments = file.segments();
  if (plan.resident_records.size() != segments.size() ||
      plan.chunk_records.size() != segments.size() ||
      plan.head >= segments.size()) {
    return InvalidArgument(file.path(), ": a residency plan for ",
                           plan.resident_records.size(), " of ",
                           segments.size(), " segments");
  }
  if (plan.slot_bytes % kIoAlignment != 0 ||
      !CheckedMul(plan.num_slots, plan.slot_bytes)) {
    return InvalidArgument(file.path(), ": a ring of ", plan.num_slots,
                           " slots of ", plan.slot_bytes,
                           " bytes, expected whole pages of ", kIoAlignment);
  }
  std::vector<bool> in_sweep(segments.size(), false);
  in_sweep[plan.head] = true;
  for (const uint32_t index : plan.sweep) {
    if (index >= segments.size() || in_sweep[index]) {
      return InvalidArgument(file.path(), ": segment ", index,
                             " twice in a sweep, or none");
    }
    in_sweep[index] = true;
  }
  std::vector<bool> is_apart(segments.size(), false);
  for (const uint32_t index : plan.apart) {
    if (index >= segments.size() || in_sweep[index] ||
        plan.resident_records[index] > 0) {
      return InvalidArgument(file.path(), ": segment ", index,
                             " is read apart and by a sweep, or there is none");
    }
    is_apart[index] = true;
  }
  for (size_t i = 0; i < segments.size(); ++i) {
    if (is_apart[i]) continue;
    const Segment& segment = segments[i];
    const uint64_t resident = plan.resident_records[i];
    const uint64_t chunk = plan.chunk_records[i];
    const bool streams = resident < segment.num_records;
    if (resident > segment.num_records || !IsWholeUnits(segment, resident) ||
        (streams && (!in_sweep[i] || plan.num_slots == 0 || chunk == 0 ||
                     !IsWholeUnits(segment, chunk) ||
                     PageBytes(segment, std::min(chunk, segment.num_records)) >
                         plan.slot_bytes))) {
      return InvalidArgument(file.path(), ": ", segment.Describe(), " with ",
                             resident, " resident records of ",
                             segment.num_records, " and chunks of ", chunk,
                             " for slots of ", plan.slot_bytes, " bytes");
    }
  }
  return OkStatus();
}

Result<std::unique_ptr<WeightStore>> WeightStore::Create(
    const WeightFile& file, const ResidencyPlan& plan, AsyncReader& reader,
    MemoryBudget& budget, const WeightStoreOptions& options) {
  FLASHELM_RETURN_IF_ERROR(CheckPlan(file, plan));
  if (reader.depth() < MaxReadsInFlight(plan)) {
    return InvalidArgument(file.path(), ": a reader of depth ", reader.depth(),
                           " for ", MaxReadsInFlight(plan), " reads in flight");
  }
  std::unique_ptr<WeightStore> store(
      new WeightStore(file, plan, &reader, options));
  FLASHELM_RETURN_IF_ERROR(store->Allocate(budget));
  reader.RegisterBuffer(store->ring_.bytes());
  return store;
}

Result<std::unique_ptr<WeightStore>> WeightStore::CreateMapped(
    const WeightFile& file, const ResidencyPlan& plan, MemoryBudget& budget,
    const WeightStoreOptions& options) {
  ResidencyPlan mapped = plan;
  mapped.num_slots = 0;
  mapped.slot_bytes = 0;
  mapped.resident_records.clear();
  for (const Segment& segment : file.segments()) {
    mapped.resident_records.push_back(segment.num_records);
  }
  FLASHELM_RETURN_IF_ERROR(CheckPlan(file, mapped));
  std::unique_ptr<WeightStore> store(
      new WeightStore(file, std::move(mapped), nullptr, options));
  FLASHELM_ASSIGN_OR_RETURN(store->verifier_,
                            RecordVerifier::Create(file, budget));
  FLASHELM_ASSIGN_OR_RETURN(store->mapping_, FileMapping::Create(file.file()));
  for (const Segment& segment : file.segments()) {
    store->resident_data_.push_back(store->mapping_.data() +
                                    segment.offset_bytes);
  }
  return store;
}

Status WeightStore::Allocate(MemoryBudget& budget) {
  const std::vector<Segment>& segments = file_.segments();
  FLASHELM_ASSIGN_OR_RETURN(
      resident_, AlignedBuffer::Create(plan_.ResidentBytes(segments), budget,
                                       "resident weights"));
  const std::byte* at = resident_.data();
  for (size_t i = 0; i < segments.size(); ++i) {
    resident_data_.push_back(at);
    at += PageBytes(segments[i], plan_.resident_records[i]);
  }
  FLASHELM_ASSIGN_OR_RETURN(
      ring_, AlignedBuffer::Create(plan_.RingBytes(), budget, "read ring"));
  FLASHELM_ASSIGN_OR_RETURN(verifier_, RecordVerifier::Create(file_, budget));
  const Segment& head = segments[plan_.head];
  if (plan_.resident_records[plan_.head] < head.num_records) {
    FLASHELM_ASSIGN_OR_RETURN(
        row_,
        AlignedBuffer::Create(
            PageBytes(head, std::min(head.unit_records(), head.num_records)),
            budget, "embedding rows"));
  }
  reads_.resize(plan_.num_slots + 1 + kLoadDepth);
  ahead_.resize(plan_.num_slots);
  max_reading_ = std::max<uint64_t>(
      2, options_.window_bytes / std::max<uint64_t>(1, plan_.slot_bytes));
  batch_.reserve(plan_.num_slots);
  // Taken from the end: slot 0 first.
  for (uint32_t slot = plan_.num_slots; slot > 0; --slot) {
    free_slots_.push_back(slot - 1);
  }
  return OkStatus();
}

Status WeightStore::Load(const CancelToken& cancel,
                         const ProgressFunction& progress) {
  const std::vector<Segment>& segments = file_.segments();
  if (reader_ == nullptr) {
    // The rest comes when it is used, in Next().
    for (uint32_t i = 0; i < segments.size(); ++i) {
      if (steps_[step_of_[i]] == i) continue;
      FLASHELM_RETURN_IF_ERROR(verifier_->VerifyOnce(
          i, 0, segments[i].num_records, resident_data_[i]));
    }
    return OkStatus();
  }
  const uint64_t total = plan_.ResidentBytes(segments);
  struct Chunk {
    uint32_t segment;
    uint64_t first;
    uint64_t count;
    std::byte* target;
  };
  const uint32_t first_tag = plan_.num_slots + 1;
  // Reads of a call before that were not answered.
  const auto deadline = Clock::now() + options_.read_timeout;
  while (reader_->num_in_flight() > 0) {
    FLASHELM_RETURN_IF_ERROR(TakeOne(deadline));
  }
  // Reads run kLoadDepth ahead of the check of what they brought.
  std::array<Chunk, kLoadDepth> chunks;
  uint64_t num_submitted = 0;
  uint64_t num_checked = 0;
  const auto check_one = [&]() -> Status {
    const uint64_t index = num_checked++ % kLoadDepth;
    const Chunk& chunk = chunks[index];
    FLASHELM_RETURN_IF_ERROR(WaitFor(first_tag + static_cast<uint32_t>(index)));
    FLASHELM_RETURN_IF_ERROR(verifier_->VerifyOnce(chunk.segment, chunk.first,
                                                   chunk.count, chunk.target));
    resident_bytes_ += PageBytes(segments[chunk.segment], chunk.count);
    if (progress) progress(resident_bytes_, total);
    return OkStatus();
  };
  const auto load = [&]() -> Status {
    std::byte* at = resident_.data();
    for (uint32_t i = 0; i < segments.size(); ++i) {
      const Segment& segment = segments[i];
      const uint64_t unit = segment.unit_records();
      const uint64_t step =
          unit *
          std::max<uint64_t>(1, kLoadBytes / segment.stride_bytes / unit);
      for (uint64_t record = 0; record < segment.num_records;) {
        if (cancel.IsCancelled()) {
          return Cancelled(file_.path(), ": loading stopped");
        }
        const SegmentResidency::Piece piece = residency_[i].PieceAt(record);
        // No small read for what is left of a piece.
        const uint64_t count =
            piece.num_records < 2 * step ? piece.num_records : step;
        record += count;
        if (!piece.is_resident) continue;
        if (num_submitted - num_checked == kLoadDepth) {
          FLASHELM_RETURN_IF_ERROR(check_one());
        }
        const uint64_t index = num_submitted++ % kLoadDepth;
        Chunk& chunk = chunks[index];
        chunk = {i, piece.first_record, count,
                 at + piece.first_resident * segment.stride_bytes};
        FLASHELM_RETURN_IF_ERROR(
            Submit(Prepare(first_tag + static_cast<uint32_t>(index), i,
                           chunk.first, count, chunk.target)));
      }
      at += PageBytes(segment, plan_.resident_records[i]);
    }
    while (num_checked < num_submitted) {
      FLASHELM_RETURN_IF_ERROR(check_one());
    }
    return OkStatus();
  };
  resident_bytes_ = 0;
  Status status = load();
  if (!status.ok()) return Fail(std::move(status));
  after_load_ = reader_->stats();
  io_wait_ns_ = 0;
  return OkStatus();
}

bool WeightStore::Settle(Cursor& cursor) const {
  const size_t head_step = steps_.size() - 1;
  while (true) {
    if (cursor.step > head_step) {
      cursor = Cursor{cursor.sweep + 1, 0, 0};
    }
    if (cursor.step == head_step) {
      if (cursor.sweep > sweep_) return false;
      if (!with_head_) {
        cursor = Cursor{cursor.sweep + 1, 0, 0};
        continue;
      }
    }
    const uint32_t index = steps_[cursor.step];
    cursor.record = residency_[index].NextStreamed(cursor.record);
    if (cursor.record < file_.segments()[index].num_records) return true;
    ++cursor.step;
    cursor.record = 0;
  }
}

uint64_t WeightStore::ChunkRecords(const Cursor& cursor) const {
  return residency_[steps_[cursor.step]].PieceAt(cursor.record).num_records;
}

ReadRequest WeightStore::Prepare(uint32_t tag, uint32_t segment, uint64_t first,
                                 uint64_t count, std::byte* target) {
  const Segment& info = file_.segments()[segment];
  Read& read = reads_[tag];
  assert(!read.in_flight);
  read.in_flight = true;
  read.segment = segment;
  read.offset_bytes = info.offset_bytes + first * info.stride_bytes;
  read.expected_bytes = PageBytes(info, count);
  return {read.offset_bytes, std::span(target, read.expected_bytes), tag};
}

Status WeightStore::Submit(const ReadRequest& request) {
  Status status = reader_->Submit({&request, 1});
  if (!status.ok()) reads_[request.tag].in_flight = false;
  return status;
}

void WeightStore::Take(ReadCompletion completion) {
  Read& read = reads_[completion.tag];
  read.in_flight = false;
  if (read.given_up) {
    read.given_up = false;
    if (completion.tag < plan_.num_slots) ReleaseSlot(completion.tag);
    return;
  }
  if (std::exchange(read.is_ahead, false)) --num_reading_;
  read.num_bytes = completion.num_bytes;
  read.status = std::move(completion.status);
  if (options_.trace != nullptr && completion.tag < plan_.num_slots) {
    options_.trace->AddRead(read.chunk.sweep, read.chunk.step, read.num_bytes,
                            completion.begin, completion.end);
  }
}

void WeightStore::Poll() {
  while (auto completion = reader_->Wait(std::chrono::nanoseconds(0))) {
    Take(std::move(*completion));
  }
}

Status WeightStore::TakeOne(Clock::time_point deadline) {
  const auto left = deadline - Clock::now();
  auto completion = reader_->Wait(std::max(left, left.zero()));
  if (completion) {
    Take(std::move(*completion));
    return OkStatus();
  }
  if (Clock::now() < deadline) return OkStatus();
  timed_out_ = true;
  return Unavailable(
      "not answered within ",
      std::chrono::duration<double>(options_.read_timeout).count(),
      " s: the device hangs or is gone");
}

Status WeightStore::WaitFor(uint32_t tag) {
  Read& wanted = reads_[tag];
  Status status;
  if (wanted.in_flight) Poll();
  if (wanted.in_flight) {
    const auto begin = Clock::now();
    while (wanted.in_flight && status.ok()) {
      status = TakeOne(begin + options_.read_timeout);
    }
    const auto end = Clock::now();
    io_wait_ns_ +=
        static_cast<uint64_t>(std::chrono::nanoseconds(end - begin).count());
    if (options_.trace != nullptr) options_.trace->AddWait(end - begin);
  }
  if (status.ok()) status = std::exchange(wanted.status, OkStatus());
  if (!status.ok()) {
    return Status(status.code(),
                  StatusMessage::Join(
                      file_.path(), ": reading ",
                      file_.segments()[wanted.segment].Describe(), " at byte ",
                      wanted.offset_bytes, ": ", status.message()));
  }
  if (wanted.num_bytes < wanted.expected_bytes) {
    return Unavailable(file_.path(), ": reading ",
                       file_.segments()[wanted.segment].Describe(), " at byte ",
                       wanted.offset_bytes, " gave ", wanted.num_bytes, " of ",
                       wanted.expected_bytes,
                       " bytes: the file has become shorter since it was "
                       "opened, or the device failed");
  }
  return OkStatus();
}

void WeightStore::ReleaseSlot(uint32_t slot) {
  if (reads_[slot].in_flight) {
    reads_[slot].given_up = true;
    if (std::exchange(reads_[slot].is_ahead, false)) --num_reading_;
  } else {
    free_slots_.push_back(slot);
  }
}

uint32_t WeightStore::TakeFreeSlot() {
  const auto at =
      reuse_tuner_.latest_first() ? free_slots_.end() - 1 : free_slots_.begin();
  const uint32_t slot = *at;
  free_slots_.erase(at);
  return slot;
}

void WeightStore::ReleaseHeldSlot() {
  if (held_slot_ != kNone) ReleaseSlot(std::exchange(held_slot_, kNone));
}

Status WeightStore::FillRing() {
  if (reader_ == nullptr) return OkStatus();
  // One slot stays for rows while their own buffer is not usable.
  const size_t reserve =
      reads_[plan_.num_slots].given_up && row_tag_ == kNone ? 1 : 0;
  batch_.clear();
  while (free_slots_.size() > reserve && num_reading_ < max_reading_ &&
         Settle(submitted_)) {
    const uint32_t slot = TakeFreeSlot();
    const uint64_t count = ChunkRecords(submitted_);
    reads_[slot].chunk = submitted_;
    batch_.push_back(Prepare(slot, steps_[submitted_.step], submitted_.record,
                             count, SlotData(slot)));
    ahead_[(first_ahead_ + num_ahead_++) % ahead_.size()] = slot;
    reads_[slot].is_ahead = true;
    ++num_reading_;
    submitted_.record += count;
  }
  if (batch_.empty()) return OkStatus();
  Status status = reader_->Submit(batch_);
  if (!status.ok()) {
    for (const ReadRequest& request : batch_) {
      reads_[request.tag].in_flight = false;
      reads_[request.tag].is_ahead = false;
      --num_reading_;
    }
  }
  return status;
}

Status WeightStore::BeginSweep(bool with_head) {
  // A sweep that was read to its end leaves the cursor in the one after it.
  Settle(taken_);
  if (taken_.sweep != sweep_ + 1) {
    return Fail(Internal(file_.path(), ": a sweep begins inside another"));
  }
  ReleaseHeldSlot();
  // Whether the sweep before had a head is known only until here.
  Settle(submitted_);
  ++sweep_;
  with_head_ = with_head;
  if (options_.trace != nullptr) options_.trace->BeginSweep(sweep_);
  Status status = FillRing();
  return status.ok() ? status : Fail(std::move(status));
}

Status WeightStore::EndSweep() {
  reuse_tuner_.OnPause();
  if (options_.trace != nullptr) options_.trace->EndStep(Clock::now());
  ReleaseHeldSlot();
  Status status = FillRing();
  return status.ok() ? status : Fail(std::move(status));
}

Result<RecordRun> WeightStore::Next(uint32_t segment, uint64_t first_record) {
  const bool streams = plan_.num_slots > 0;
  if (options_.trace != nullptr) {
    // One clock reading per run, of some 50 microseconds.
    options_.trace->BeginStep(step_of_[segment], Clock::now());
  }
  if (streams) {
    ReleaseHeldSlot();
    Poll();
    Status status = FillRing();
    if (!status.ok()) return Unexpected(Fail(std::move(status)));
  }
  const Segment& info = file_.segments()[segment];
  if (first_record >= info.num_records) {
    return Unexpected(
        Fail(Internal(file_.path(), ": ", info.Describe(), " record ",
                      first_record, " of ", info.num_records)));
  }
  const SegmentResidency::Piece piece =
      residency_[segment].PieceAt(first_record);
  uint64_t count = piece.num_records;
  if (piece.is_resident) {
    const std::byte* data =
        resident_data_[segment] + piece.first_resident * info.stride_bytes;
    if (reader_ == nullptr) {
      count = std::min(count, plan_.chunk_records[segment]);
      Status status = verifier_->VerifyOnce(segment, first_record, count, data);
      if (!status.ok()) return Unexpected(Fail(std::move(status)));
    } else if (streams) {
      count =
          std::min(count, std::max<uint64_t>(1, kRunBytes / info.stride_bytes));
    }
    return RecordRun{first_record, count, data};
  }
  if (!Settle(taken_) || taken_.sweep != sweep_ ||
      steps_[taken_.step] != segment || taken_.record != first_record) {
    return Unexpected(
        Fail(Internal(file_.path(), ": ", info.Describe(), " record ",
                      first_record, " is not what the sweep reads next")));
  }
  // All slots may be those of reads that were given up.
  const auto deadline = Clock::now() + options_.read_timeout;
  while (num_ahead_ == 0) {
    Status status = TakeOne(deadline);
    if (status.ok()) status = FillRing();
    if (!status.ok()) return Unexpected(Fail(std::move(status)));
  }
  const uint32_t slot = ahead_[first_ahead_];
  assert(reads_[slot].segment == segment);
  Status status = WaitFor(slot);
  if (status.ok()) {
    status =
        verifier_->VerifyOnce(segment, first_record, count, SlotData(slot));
  }
  if (!status.ok()) return Unexpected(Fail(std::move(status)));
  first_ahead_ = (first_ahead_ + 1) % ahead_.size();
  --num_ahead_;
  taken_.record += count;
  held_slot_ = slot;
  reuse_tuner_.OnTaken(count * info.stride_bytes, Clock::now());
  // Before the caller computes: the device has something to do meanwhile.
  status = FillRing();
  if (!status.ok()) return Unexpected(Fail(std::move(status)));
  return RecordRun{first_record, count, SlotData(slot)};
}

void WeightStore::EndReads(bool wait) {
  reuse_tuner_.OnPause();
  if (reader_ != nullptr) {
    const auto deadline = Clock::now() + options_.read_timeout;
    const auto is_awaited = [](const Read& read) {
      return read.in_flight && !read.given_up;
    };
    while (wait && std::ranges::any_of(reads_, is_awaited) &&
           TakeOne(deadline).ok()) {
    }
    ReleaseHeldSlot();
    if (row_tag_ != kNone && reads_[row_tag_].in_flight) ForgetRow();
    while (num_ahead_ > 0) {
      ReleaseSlot(ahead_[first_ahead_]);
      first_ahead_ = (first_ahead_ + 1) % ahead_.size();
      --num_ahead_;
    }
    // Reads of Load(), whose targets stay.
    for (Read& read : reads_) read.given_up = read.in_flight;
  }
  taken_ = submitted_ = Cursor{sweep_ + 1, 0, 0};
}

void WeightStore::Abort() { EndReads(/*wait=*/true); }

Status WeightStore::Fail(Status status) {
  EndReads(/*wait=*/!std::exchange(timed_out_, false));
  return status;
}

void WeightStore::ForgetRow() {
  if (row_tag_ == kNone) return;
  const uint32_t tag = std::exchange(row_tag_, kNone);
  row_first_ = UINT64_MAX;
  if (tag < plan_.num_slots) {
    ReleaseSlot(tag);
  } else {
    reads_[tag].given_up = reads_[tag].in_flight;
  }
}

Status WeightStore::ChooseRowBuffer() {
  ForgetRow();
  if (!reads_[plan_.num_slots].in_flight) {
    row_tag_ = plan_.num_slots;
    return OkStatus();
  }
  if (free_slots_.empty()) {
    timed_out_ = true;
    return Unavailable(file_.path(),
                       ": the device has not answered reads begun before, and "
                       "no buffer is left for another");
  }
  row_tag_ = free_slots_.back();
  free_slots_.pop_back();
  return OkStatus();
}

Result<const std::byte*> WeightStore::FindHeadRecord(uint64_t record) {
  const uint32_t index = plan_.head;
  const Segment& head = file_.segments()[index];
  // The whole checksum unit: also what a page run needs to be.
  const uint64_t unit = head.unit_records();
  const uint64_t first = RoundDown(record, unit);
  const uint64_t count = std::min(unit, head.num_records - first);
  const SegmentResidency::Piece piece = residency_[index].PieceAt(record);
  if (piece.is_resident) {
    if (reader_ == nullptr) {
      FLASHELM_RETURN_IF_ERROR(verifier_->VerifyOnce(
          index, first, count, ResidentRecord(index, first)));
    }
    return resident_data_[index] + piece.first_resident * head.stride_bytes;
  }
  if (first != row_first_) {
    Poll();
    Status status = ChooseRowBuffer();
    if (status.ok()) {
      status = Submit(Prepare(row_tag_, index, first, count, RowData()));
    }
    if (status.ok()) status = WaitFor(row_tag_);
    if (status.ok()) {
      status = verifier_->VerifyOnce(index, first, count, RowData());
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
  const SegmentResidency::Piece piece = residency_[segment].PieceAt(record);
  assert(piece.is_resident);
  return resident_data_[segment] +
         piece.first_resident * file_.segments()[segment].stride_bytes;
}

WeightStoreStats WeightStore::stats() const {
  if (reader_ == nullptr) return {};
  const ReaderStats now = reader_->stats();
  return {now.num_bytes - after_load_.num_bytes,
          now.num_reads - after_load_.num_reads,
          now.busy_ns - after_load_.busy_ns, io_wait_ns_, resident_bytes_};
}

}  // namespace flashelm
