#include "storage/weight_store.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <chrono>
#include <utility>

#include "storage/verify.h"

namespace flashelm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kLoadDepth = 4;
constexpr uint64_t kLoadBytes = uint64_t{1} << 20;

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

uint64_t ResidencyPlan::StreamedBytes(const std::vector<Segment>& segments,
                                      bool with_head) const {
  const auto streamed = [&](uint32_t index) {
    return (segments[index].num_records - resident_records[index]) *
           segments[index].stride_bytes;
  };
  uint64_t total = with_head ? streamed(head) : 0;
  for (const uint32_t index : sweep) total += streamed(index);
  return total;
}

uint64_t ResidencyPlan::ResidentBytes(
    const std::vector<Segment>& segments) const {
  uint64_t total = 0;
  for (size_t i = 0; i < segments.size(); ++i) {
    total += PageBytes(segments[i], resident_records[i]);
  }
  return total;
}

uint64_t WeightStoreOverheadBytes(const WeightFile& file,
                                  const ResidencyPlan& plan) {
  const uint64_t table_bytes = file.header().sections[kChecksums].raw_bytes;
  const Segment& head = file.segments()[plan.head];
  const bool needs_row = plan.resident_records[plan.head] < head.num_records;
  return RoundUp(table_bytes, kIoAlignment) +
         RoundUp(table_bytes / 32 + 1, kIoAlignment) +
         (needs_row
              ? PageBytes(head, std::min(head.unit_records(), head.num_records))
              : 0);
}

WeightStore::WeightStore(const WeightFile& file, ResidencyPlan plan,
                         AsyncReader& reader)
    : file_(file), plan_(std::move(plan)), reader_(reader) {
  steps_ = plan_.sweep;
  steps_.push_back(plan_.head);
  taken_.sweep = submitted_.sweep = 1;
}

WeightStore::~WeightStore() { Abort(); }

uint32_t WeightStore::MaxReadsInFlight(const ResidencyPlan& plan) {
  return std::max(plan.num_slots, kLoadDepth) + 1;
}

Result<std::unique_ptr<WeightStore>> WeightStore::Create(
    const WeightFile& file, const ResidencyPlan& plan, AsyncReader& reader,
    MemoryBudget& budget) {
  const std::vector<Segment>& segments = file.segments();
  if (plan.resident_records.size() != segments.size() ||
      plan.chunk_records.size() != segments.size() ||
      plan.head >= segments.size() || reader.depth() < MaxReadsInFlight(plan)) {
    return InvalidArgument(
        file.path(), ": a residency plan for ", plan.resident_records.size(),
        " of ", segments.size(), " segments, with a reader of depth ",
        reader.depth());
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
  for (size_t i = 0; i < segments.size(); ++i) {
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
  std::unique_ptr<WeightStore> store(new WeightStore(file, plan, reader));
  FLASHELM_RETURN_IF_ERROR(store->Allocate(budget));
  FLASHELM_RETURN_IF_ERROR(file.ReadChecksums(store->checksums_.bytes()));
  return store;
}

Status WeightStore::Allocate(MemoryBudget& budget) {
  const std::vector<Segment>& segments = file_.segments();
  resident_at_.resize(segments.size());
  uint64_t at = 0;
  for (size_t i = 0; i < segments.size(); ++i) {
    resident_at_[i] = at;
    at += PageBytes(segments[i], plan_.resident_records[i]);
  }
  FLASHELM_ASSIGN_OR_RETURN(
      resident_, AlignedBuffer::Create(at, budget, "resident weights"));
  FLASHELM_ASSIGN_OR_RETURN(
      ring_, AlignedBuffer::Create(plan_.RingBytes(), budget, "read ring"));
  const uint64_t table_bytes = file_.header().sections[kChecksums].raw_bytes;
  FLASHELM_ASSIGN_OR_RETURN(
      checksums_, AlignedBuffer::Create(table_bytes, budget, "checksums"));
  FLASHELM_ASSIGN_OR_RETURN(
      verified_,
      AlignedBuffer::Create(table_bytes / 32 + 1, budget, "verified bits"));
  const Segment& head = segments[plan_.head];
  if (plan_.resident_records[plan_.head] < head.num_records) {
    FLASHELM_ASSIGN_OR_RETURN(
        row_,
        AlignedBuffer::Create(
            PageBytes(head, std::min(head.unit_records(), head.num_records)),
            budget, "embedding rows"));
  }
  reads_.resize(MaxReadsInFlight(plan_));
  return OkStatus();
}

Status WeightStore::Load(const CancelToken& cancel,
                         const ProgressFunction& progress) {
  const std::vector<Segment>& segments = file_.segments();
  uint64_t total = 0;
  for (size_t i = 0; i < segments.size(); ++i) {
    total += PageBytes(segments[i], plan_.resident_records[i]);
  }
  struct Chunk {
    uint32_t segment;
    uint64_t first;
    uint64_t count;
  };
  // Reads run kLoadDepth ahead of the check of what they brought.
  std::array<Chunk, kLoadDepth> chunks;
  uint64_t num_submitted = 0;
  uint64_t num_checked = 0;
  const auto target = [&](const Chunk& chunk) {
    return resident_.data() + resident_at_[chunk.segment] +
           chunk.first * segments[chunk.segment].stride_bytes;
  };
  const auto check_one = [&]() -> Status {
    const uint32_t tag = static_cast<uint32_t>(num_checked++ % kLoadDepth);
    const Chunk& chunk = chunks[tag];
    FLASHELM_RETURN_IF_ERROR(WaitFor(tag));
    FLASHELM_RETURN_IF_ERROR(
        VerifyOnce(chunk.segment, chunk.first, chunk.count, target(chunk)));
    resident_bytes_ += PageBytes(segments[chunk.segment], chunk.count);
    if (progress) progress(resident_bytes_, total);
    return OkStatus();
  };
  const auto load = [&]() -> Status {
    for (uint32_t i = 0; i < segments.size(); ++i) {
      const Segment& segment = segments[i];
      const uint64_t unit = segment.unit_records();
      const uint64_t step =
          unit *
          std::max<uint64_t>(1, kLoadBytes / segment.stride_bytes / unit);
      const uint64_t resident = plan_.resident_records[i];
      for (uint64_t first = 0; first < resident; first += step) {
        if (cancel.IsCancelled()) {
          return Cancelled(file_.path(), ": loading stopped");
        }
        if (num_submitted - num_checked == kLoadDepth) {
          FLASHELM_RETURN_IF_ERROR(check_one());
        }
        const uint32_t tag =
            static_cast<uint32_t>(num_submitted++ % kLoadDepth);
        chunks[tag] = {i, first, std::min(step, resident - first)};
        FLASHELM_RETURN_IF_ERROR(
            SubmitRead(tag, i, first, chunks[tag].count, target(chunks[tag])));
      }
    }
    while (num_checked < num_submitted) {
      FLASHELM_RETURN_IF_ERROR(check_one());
    }
    return OkStatus();
  };
  resident_bytes_ = 0;
  Status status = load();
  if (!status.ok()) return Fail(std::move(status));
  after_load_ = reader_.stats();
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
    cursor.record = std::max(cursor.record, plan_.resident_records[index]);
    if (cursor.record < file_.segments()[index].num_records) return true;
    ++cursor.step;
    cursor.record = 0;
  }
}

uint64_t WeightStore::ChunkRecords(const Cursor& cursor) const {
  const uint32_t index = steps_[cursor.step];
  return std::min(plan_.chunk_records[index],
                  file_.segments()[index].num_records - cursor.record);
}

Status WeightStore::SubmitRead(uint32_t tag, uint32_t segment, uint64_t first,
                               uint64_t count, std::byte* target) {
  const Segment& info = file_.segments()[segment];
  Read& read = reads_[tag];
  read.is_done = false;
  read.segment = segment;
  read.offset_bytes = info.offset_bytes + first * info.stride_bytes;
  read.expected_bytes = PageBytes(info, count);
  const ReadRequest request{read.offset_bytes,
                            std::span(target, read.expected_bytes), tag};
  return reader_.Submit({&request, 1});
}

Status WeightStore::WaitFor(uint32_t tag) {
  Read& wanted = reads_[tag];
  if (!wanted.is_done) {
    const auto begin = Clock::now();
    while (!wanted.is_done) {
      auto completion = reader_.Wait(std::chrono::hours(1));
      if (!completion) return Unavailable("timeout");
      Read& read = reads_[completion->tag];
      read.is_done = true;
      read.num_bytes = completion->num_bytes;
      read.status = std::move(completion->status);
    }
    io_wait_ns_ += static_cast<uint64_t>(
        std::chrono::nanoseconds(Clock::now() - begin).count());
  }
  if (!wanted.status.ok()) {
    const Status status = std::exchange(wanted.status, OkStatus());
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

Status WeightStore::VerifyOnce(uint32_t segment, uint64_t first, uint64_t count,
                               const std::byte* data) {
  const Segment& info = file_.segments()[segment];
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
                                         checksums_.bytes(), file_.path()));
  for (uint64_t bit = begin; bit < end; ++bit) {
    bits[bit / 8] |= static_cast<uint8_t>(1u << (bit % 8));
  }
  return OkStatus();
}

Status WeightStore::FillRing() {
  holds_slot_ = false;
  while (num_submitted_ - num_taken_ < plan_.num_slots && Settle(submitted_)) {
    const uint32_t slot =
        static_cast<uint32_t>(num_submitted_ % plan_.num_slots);
    const uint64_t count = ChunkRecords(submitted_);
    FLASHELM_RETURN_IF_ERROR(
        SubmitRead(slot, steps_[submitted_.step], submitted_.record, count,
                   ring_.data() + slot * plan_.slot_bytes));
    submitted_.record += count;
    ++num_submitted_;
  }
  return OkStatus();
}

Status WeightStore::BeginSweep(bool with_head) {
  // A sweep that was read to its end leaves the cursor in the one after it.
  Settle(taken_);
  if (taken_.sweep != sweep_ + 1) {
    return Fail(Internal(file_.path(), ": a sweep begins inside another"));
  }
  // Whether the sweep before had a head is known only until here.
  Settle(submitted_);
  ++sweep_;
  with_head_ = with_head;
  Status status = FillRing();
  return status.ok() ? status : Fail(std::move(status));
}

Result<RecordRun> WeightStore::Next(uint32_t segment, uint64_t first_record) {
  if (holds_slot_) {
    Status status = FillRing();
    if (!status.ok()) return Unexpected(Fail(std::move(status)));
  }
  const uint64_t resident = plan_.resident_records[segment];
  if (first_record < resident) {
    return RecordRun{first_record, resident - first_record,
                     ResidentRecord(segment, first_record)};
  }
  if (!Settle(taken_) || taken_.sweep != sweep_ ||
      steps_[taken_.step] != segment || taken_.record != first_record) {
    return Unexpected(Fail(Internal(
        file_.path(), ": ", file_.segments()[segment].Describe(), " record ",
        first_record, " is not what the sweep reads next")));
  }
  const uint32_t slot = static_cast<uint32_t>(num_taken_ % plan_.num_slots);
  const std::byte* data = ring_.data() + slot * plan_.slot_bytes;
  const uint64_t count = ChunkRecords(taken_);
  assert(reads_[slot].segment == segment);
  Status status = WaitFor(slot);
  if (status.ok()) status = VerifyOnce(segment, first_record, count, data);
  if (!status.ok()) return Unexpected(Fail(std::move(status)));
  taken_.record += count;
  ++num_taken_;
  holds_slot_ = true;
  return RecordRun{first_record, count, data};
}

void WeightStore::Abort() {
  reader_.Drain(std::chrono::hours(1));
  taken_ = submitted_ = Cursor{sweep_ + 1, 0, 0};
  num_taken_ = num_submitted_ = 0;
  holds_slot_ = false;
}

Status WeightStore::Fail(Status status) {
  Abort();
  return status;
}

Result<const std::byte*> WeightStore::FindHeadRecord(uint64_t record) {
  const uint32_t index = plan_.head;
  if (record < plan_.resident_records[index]) {
    return ResidentRecord(index, record);
  }
  // The whole checksum unit: also what a page run needs to be.
  const Segment& head = file_.segments()[index];
  const uint64_t unit = head.unit_records();
  const uint64_t first = RoundDown(record, unit);
  if (first != row_first_) {
    row_first_ = UINT64_MAX;
    const uint64_t count = std::min(unit, head.num_records - first);
    const uint32_t tag = static_cast<uint32_t>(reads_.size() - 1);
    Status status = SubmitRead(tag, index, first, count, row_.data());
    if (status.ok()) status = WaitFor(tag);
    if (status.ok()) status = VerifyOnce(index, first, count, row_.data());
    if (!status.ok()) return Unexpected(Fail(std::move(status)));
    row_first_ = first;
  }
  return row_.data() + (record - first) * head.stride_bytes;
}

const std::byte* WeightStore::ResidentRecord(uint32_t segment,
                                             uint64_t record) const {
  assert(record < plan_.resident_records[segment]);
  return resident_.data() + resident_at_[segment] +
         record * file_.segments()[segment].stride_bytes;
}

WeightStoreStats WeightStore::stats() const {
  const ReaderStats now = reader_.stats();
  return {now.num_bytes - after_load_.num_bytes,
          now.num_reads - after_load_.num_reads,
          now.busy_ns - after_load_.busy_ns, io_wait_ns_, resident_bytes_};
}

}  // namespace flashelm
