#include "storage/bundle_store.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "core/base/checked_math.h"
#include "core/base/types.h"

namespace flashelm {
namespace {

// How long a destructor waits for a device that does not answer.
constexpr std::chrono::nanoseconds kLastWait = std::chrono::seconds(2);
// How often a wait for it looks whether it is still wanted.
constexpr std::chrono::nanoseconds kCancelPeriod =
    std::chrono::milliseconds(20);

BundleCacheOptions CacheOptions(const Segment& segment, size_t layer,
                                const BundleStoreOptions& options) {
  BundleCacheOptions cache;
  cache.num_records = segment.num_records;
  cache.record_bytes = segment.stride_bytes;
  cache.num_slots = options.cache_slots[layer];
  cache.window_tokens = options.window_tokens;
  return cache;
}

uint64_t MaxRecords(const WeightFile& file,
                    std::span<const uint32_t> segments) {
  uint64_t max_records = 0;
  for (const uint32_t index : segments) {
    max_records = std::max(max_records, file.segments()[index].num_records);
  }
  return max_records;
}

uint64_t NanosecondsSince(std::chrono::steady_clock::time_point begin) {
  return static_cast<uint64_t>(
      std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin)
          .count());
}

Status FailedRead(const WeightFile& file, const Segment& segment,
                  uint64_t offset_bytes, const Status& status) {
  return Status(
      status.code(),
      StatusMessage::Join(file.path(), ": reading ", segment.Describe(),
                          " at byte ", offset_bytes, ": ", status.message()));
}

}  // namespace

uint64_t BundleStore::NumBytes(const WeightFile& file,
                               std::span<const uint32_t> segments,
                               const BundleStoreOptions& options) {
  uint64_t num_bytes = StagingArea::NumBytes(options.staging_bytes);
  for (size_t layer = 0; layer < segments.size(); ++layer) {
    num_bytes += BundleCache::NumBytes(
        CacheOptions(file.segments()[segments[layer]], layer, options));
  }
  const uint64_t max_records = MaxRecords(file, segments);
  return num_bytes + 2 * RoundUp(max_records * sizeof(uint32_t), kIoAlignment) +
         RoundUp(max_records * sizeof(Bundle), kIoAlignment);
}

BundleStore::BundleStore(const WeightFile& file,
                         const BundleStoreOptions& options, AsyncReader& reader,
                         RecordVerifier& verifier)
    : file_(file),
      reader_(reader),
      verifier_(verifier),
      read_timeout_(options.read_timeout),
      merges_reads_(options.merges_reads),
      busy_ns_at_start_(reader.stats().busy_ns),
      reads_(reader.depth()),
      order_(reader.depth()) {
  requests_.reserve(reads_.size());
  free_tags_.reserve(reads_.size());
  for (size_t tag = reads_.size(); tag > 0; --tag) {
    free_tags_.push_back(static_cast<uint32_t>(tag - 1));
  }
}

BundleStore::~BundleStore() {
  if (!staging_) return;
  if (reader_.Drain(std::min(read_timeout_, kLastWait))) {
    reader_.RegisterBuffer({});
  } else {
    // Whatever the device still writes goes nowhere else.
    reader_.Adopt(staging_->TakeMemory());
  }
}

Status BundleStore::CheckOptions(const WeightFile& file,
                                 std::span<const uint32_t> segments,
                                 const BundleStoreOptions& options) {
  if (options.cache_slots.size() != segments.size()) {
    return InvalidArgument(file.path(), ": ", segments.size(), " layers, but ",
                           options.cache_slots.size(), " caches");
  }
  if (options.staging_bytes % kIoAlignment != 0 ||
      options.max_read_bytes % kIoAlignment != 0 ||
      options.max_read_bytes > options.staging_bytes) {
    return InvalidArgument(file.path(), ": reads of at most ",
                           options.max_read_bytes, " bytes into ",
                           options.staging_bytes, ", expected whole pages of ",
                           kIoAlignment, " and room for one read");
  }
  if (options.max_dense_read_bytes != 0 &&
      (options.max_dense_read_bytes % kIoAlignment != 0 ||
       options.max_dense_read_bytes < options.max_read_bytes ||
       options.max_dense_read_bytes > options.staging_bytes)) {
    return InvalidArgument(
        file.path(), ": dense reads of at most ", options.max_dense_read_bytes,
        " bytes, expected whole pages of ", kIoAlignment, ", ",
        options.max_read_bytes, " to ", options.staging_bytes, " bytes");
  }
  if (!(options.cost.request_ns >= 0) || !(options.cost.bytes_per_ns >= 0) ||
      !(options.cost.sequential_bytes_per_ns >= 0)) {
    return InvalidArgument(file.path(), ": reads that cost ",
                           options.cost.request_ns, " ns each, and 1 ns for ",
                           options.cost.bytes_per_ns, " bytes, or ",
                           options.cost.sequential_bytes_per_ns, " in order");
  }
  for (const uint32_t index : segments) {
    if (index >= file.segments().size()) {
      return InvalidArgument(file.path(), ": segment ", index, " of ",
                             file.segments().size());
    }
    const Segment& segment = file.segments()[index];
    if (segment.records_per_checksum != 1) {
      return Unimplemented(file.path(), ": ", segment.Describe(),
                           " has a checksum for every ",
                           segment.records_per_checksum,
                           " records, single ones cannot be verified");
    }
    if (ReadPlanner::MaxRecordBytes(segment) > options.max_read_bytes) {
      return InvalidArgument(file.path(), ": ", segment.Describe(),
                             " has records of ", segment.stride_bytes,
                             " bytes, more than reads of at most ",
                             options.max_read_bytes, " bring");
    }
  }
  return OkStatus();
}

Result<std::unique_ptr<BundleStore>> BundleStore::Create(
    const WeightFile& file, std::span<const uint32_t> segments,
    const BundleStoreOptions& options, AsyncReader& reader,
    RecordVerifier& verifier, MemoryBudget& budget) {
  FLASHELM_RETURN_IF_ERROR(CheckOptions(file, segments, options));
  std::unique_ptr<BundleStore> store(
      new BundleStore(file, options, reader, verifier));
  for (size_t layer = 0; layer < segments.size(); ++layer) {
    const Segment& segment = file.segments()[segments[layer]];
    auto cache =
        BundleCache::Create(CacheOptions(segment, layer, options), budget);
    if (!cache) {
      return Unexpected(
          Status(cache.error().code(),
                 StatusMessage::Join(file.path(), ": ", segment.Describe(),
                                     ": ", cache.error().message())));
    }
    store->layers_.push_back(
        {segments[layer],
         ReadPlanner(segment, options.cost, options.max_read_bytes),
         std::nullopt, std::move(*cache), BundleStats()});
    if (options.max_dense_read_bytes > 0) {
      store->layers_.back().dense_planner = ReadPlanner::Whole(
          segment, options.cost, options.max_dense_read_bytes);
    }
  }
  const uint64_t max_records = MaxRecords(file, segments);
  FLASHELM_ASSIGN_OR_RETURN(
      store->wanted_ids_, AlignedBuffer::Create(max_records * sizeof(uint32_t),
                                                budget, "wanted records"));
  FLASHELM_ASSIGN_OR_RETURN(
      store->missing_ids_, AlignedBuffer::Create(max_records * sizeof(uint32_t),
                                                 budget, "missing records"));
  FLASHELM_ASSIGN_OR_RETURN(store->bundle_table_,
                            AlignedBuffer::Create(max_records * sizeof(Bundle),
                                                  budget, "bundle table"));
  FLASHELM_ASSIGN_OR_RETURN(store->staging_,
                            StagingArea::Create(options.staging_bytes, budget));
  return store;
}

void BundleStore::RegisterBuffers() {
  reader_.RegisterBuffer(staging_->bytes());
}

Status BundleStore::Begin(uint32_t layer) {
  if (layer >= layers_.size()) {
    return InvalidArgument(file_.path(), ": bundles of layer ", layer, " of ",
                           layers_.size());
  }
  EndFetch();
  layer_ = layer;
  is_fetching_ = true;
  is_dense_ = false;
  const auto begin = Clock::now();
  layers_[layer].cache.BeginToken();
  layers_[layer].stats.memory_ns += NanosecondsSince(begin);
  ++layers_[layer].stats.num_tokens;
  return OkStatus();
}

Status BundleStore::Add(std::span<const uint32_t> ids) {
  if (!is_fetching_) {
    return Internal(file_.path(), ": bundles are added, none was begun");
  }
  const uint64_t num_records = segment().num_records;
  for (size_t i = 0; i < ids.size(); ++i) {
    const bool ascends = i > 0          ? ids[i] > ids[i - 1]
                         : ids_.empty() ? true
                                        : ids[i] > ids_.back();
    if (ids[i] >= num_records || !ascends) {
      return InvalidArgument(file_.path(), ": bundle ", ids[i], " of ",
                             num_records, "; ids have to ascend");
    }
  }
  const auto wanted = wanted_ids_.As<uint32_t>();
  std::copy(ids.begin(), ids.end(), wanted.begin() + ids_.size());
  ids_ = wanted.first(ids_.size() + ids.size());
  const auto missing = missing_ids_.As<uint32_t>();
  const auto begin = Clock::now();
  const size_t num_missing =
      layers_[layer_].cache.Use(ids, missing.subspan(missing_.size()));
  missing_ = missing.first(missing_.size() + num_missing);
  BundleStats& stats = layers_[layer_].stats;
  stats.memory_ns += NanosecondsSince(begin);
  stats.num_wanted += ids.size();
  stats.num_hits += ids.size() - num_missing;
  stats.num_misses += num_missing;
  ChoosePlanner();
  Poll();
  Status status = SubmitReads();
  if (!status.ok()) return Fail(std::move(status));
  return OkStatus();
}

Status BundleStore::Fetch(uint32_t layer, std::span<const uint32_t> ids) {
  FLASHELM_RETURN_IF_ERROR(Begin(layer));
  return Add(ids);
}

void BundleStore::ChoosePlanner() {
  Layer& layer = layers_[layer_];
  const auto left = missing_.subspan(num_submitted_);
  planner_ = &layer.planner;
  if (merges_reads_ && layer.dense_planner &&
      layer.dense_planner->PredictNs(left) < layer.planner.PredictNs(left)) {
    planner_ = &*layer.dense_planner;
  }
}

Result<std::optional<BundleStore::Batch>> BundleStore::Next() {
  if (!is_fetching_) {
    return Internal(file_.path(), ": bundles are asked for, none was begun");
  }
  ReleaseHeld();
  Poll();
  Status status = SubmitReads();
  if (!status.ok()) return Unexpected(Fail(std::move(status)));
  if (num_handed_out_ == ids_.size()) return std::nullopt;
  const auto bundles = bundle_table_.As<Bundle>();
  const BundleCache& cache = layers_[layer_].cache;
  size_t num_bundles = 0;
  // What has come is used while the rest is on its way.
  while (num_handed_out_ < ids_.size()) {
    const uint32_t id = ids_[num_handed_out_];
    if (num_taken_ == missing_.size() || id != missing_[num_taken_]) {
      bundles[num_bundles++] = {id, cache.Find(id)};
      ++num_handed_out_;
      continue;
    }
    if (num_bundles > 0 && !HasOldestEnded()) break;
    status = WaitForRead();
    if (status.ok()) status = TakeRead(num_bundles);
    // Before the caller computes.
    if (status.ok()) status = SubmitReads();
    if (!status.ok()) return Unexpected(Fail(std::move(status)));
  }
  return bundles.first(num_bundles);
}

bool BundleStore::HasOldestEnded() const {
  return num_in_order_ > 0 &&
         reads_[order_[first_in_order_]].state == ReadState::kEnded;
}

Status BundleStore::SubmitReads() {
  requests_.clear();
  uint64_t num_bytes = 0;
  while (num_submitted_ < missing_.size() && !free_tags_.empty()) {
    const auto left = missing_.subspan(num_submitted_);
    const PlannedRead plan =
        planner_->PlanFirst(merges_reads_ ? left : left.first(1));
    std::byte* const target = staging_->Take(plan.num_bytes);
    if (target == nullptr) break;
    const uint32_t tag = free_tags_.back();
    free_tags_.pop_back();
    Read& read = reads_[tag];
    read.state = ReadState::kInFlight;
    read.plan = plan;
    read.target = target;
    requests_.push_back(
        {plan.offset_bytes, std::span(target, plan.num_bytes), tag});
    num_submitted_ += plan.num_wanted;
    num_bytes += plan.num_bytes;
  }
  if (requests_.empty()) return OkStatus();
  Status status = reader_.Submit(requests_);
  if (!status.ok()) {
    for (const ReadRequest& request : requests_) Release(request.tag);
    return FailedRead(file_, segment(), requests_[0].offset_bytes, status);
  }
  for (const ReadRequest& request : requests_) {
    order_[(first_in_order_ + num_in_order_++) % order_.size()] = request.tag;
  }
  if (planner_ != &layers_[layer_].planner && !is_dense_) {
    is_dense_ = true;
    ++layers_[layer_].stats.num_dense_fetches;
  }
  layers_[layer_].stats.num_reads += requests_.size();
  layers_[layer_].stats.read_bytes += num_bytes;
  return OkStatus();
}

void BundleStore::Take(ReadCompletion completion) {
  Read& read = reads_[completion.tag];
  if (read.state == ReadState::kGivenUp) return Release(completion.tag);
  assert(read.state == ReadState::kInFlight);
  read.state = ReadState::kEnded;
  read.num_bytes = completion.num_bytes;
  read.status = std::move(completion.status);
}

void BundleStore::Poll() {
  while (auto completion = reader_.Wait(std::chrono::nanoseconds(0))) {
    Take(std::move(*completion));
  }
}

Status BundleStore::WaitForRead() {
  if (HasOldestEnded()) return OkStatus();
  const auto begin = Clock::now();
  Status status;
  while (!HasOldestEnded() && status.ok()) {
    if (cancel_ != nullptr && cancel_->IsCancelled()) {
      status = Cancelled("stopped while waiting for the device");
      break;
    }
    auto left = begin + read_timeout_ - Clock::now();
    if (cancel_ != nullptr) {
      left = std::min<Clock::duration>(left, kCancelPeriod);
    }
    auto completion = reader_.Wait(std::max(left, left.zero()));
    if (completion) {
      // One that was given up makes room for another.
      Take(std::move(*completion));
      status = SubmitReads();
    } else if (Clock::now() >= begin + read_timeout_) {
      status = NotAnswered();
    }
  }
  layers_[layer_].stats.io_wait_ns += NanosecondsSince(begin);
  return status;
}

Status BundleStore::NotAnswered() const {
  const double seconds = std::chrono::duration<double>(read_timeout_).count();
  for (const Read& read : reads_) {
    if (read.state != ReadState::kInFlight) continue;
    return FailedRead(file_, segment(), read.plan.offset_bytes,
                      Unavailable("not answered within ", seconds,
                                  " s: the device hangs or is gone"));
  }
  return FailedRead(
      file_, segment(),
      segment().offset_bytes +
          missing_[num_submitted_] * segment().stride_bytes,
      Unavailable("the device has not answered reads begun before within ",
                  seconds, " s, and no memory is left for another"));
}

Status BundleStore::CheckRead(Read& read) {
  const Status status = std::exchange(read.status, OkStatus());
  if (!status.ok()) {
    return FailedRead(file_, segment(), read.plan.offset_bytes, status);
  }
  if (read.num_bytes < read.plan.num_bytes) {
    return Unavailable(file_.path(), ": reading ", segment().Describe(),
                       " at byte ", read.plan.offset_bytes, " gave ",
                       read.num_bytes, " of ", read.plan.num_bytes,
                       " bytes: the file has become shorter since it was "
                       "opened, or the device failed");
  }
  return OkStatus();
}

Status BundleStore::TakeRead(size_t& num_bundles) {
  Layer& layer = layers_[layer_];
  const Segment& info = segment();
  const auto bundles = bundle_table_.As<Bundle>();
  const uint32_t tag = order_[first_in_order_];
  Read& read = reads_[tag];
  FLASHELM_RETURN_IF_ERROR(CheckRead(read));
  const auto data_of = [&](uint32_t id) -> const std::byte* {
    return read.target + (info.offset_bytes + id * info.stride_bytes -
                          read.plan.offset_bytes);
  };
  for (const uint32_t id : missing_.subspan(num_taken_, read.plan.num_wanted)) {
    FLASHELM_RETURN_IF_ERROR(
        verifier_.VerifyOnce(layer.segment, id, 1, data_of(id)));
  }
  bool is_needed = false;
  const size_t end = num_taken_ + read.plan.num_wanted;
  const auto begin = Clock::now();
  while (num_taken_ < end) {
    const uint32_t id = ids_[num_handed_out_++];
    if (id != missing_[num_taken_]) {
      bundles[num_bundles++] = {id, layer.cache.Find(id)};
      continue;
    }
    ++num_taken_;
    const std::byte* data = data_of(id);
    // From its slot, so that the read's memory is free for another one.
    const std::byte* slot = layer.cache.Insert(id, data);
    if (slot == nullptr) is_needed = true;
    bundles[num_bundles++] = {id, slot != nullptr ? slot : data};
  }
  layer.stats.memory_ns += NanosecondsSince(begin);
  layer.stats.fresh_bytes += read.plan.num_wanted * info.stride_bytes;
  first_in_order_ = (first_in_order_ + 1) % order_.size();
  --num_in_order_;
  if (is_needed) {
    read.state = ReadState::kHeld;
  } else {
    Release(tag);
  }
  return OkStatus();
}

void BundleStore::Release(uint32_t tag) {
  staging_->Give(reads_[tag].target);
  reads_[tag].state = ReadState::kFree;
  free_tags_.push_back(tag);
}

void BundleStore::ReleaseHeld() {
  for (uint32_t tag = 0; tag < reads_.size(); ++tag) {
    if (reads_[tag].state == ReadState::kHeld) Release(tag);
  }
}

void BundleStore::EndFetch() {
  for (uint32_t tag = 0; tag < reads_.size(); ++tag) {
    Read& read = reads_[tag];
    if (read.state == ReadState::kInFlight) {
      read.state = ReadState::kGivenUp;
    } else if (read.state == ReadState::kEnded ||
               read.state == ReadState::kHeld) {
      Release(tag);
    }
  }
  is_fetching_ = false;
  ids_ = missing_ = {};
  num_submitted_ = num_taken_ = num_handed_out_ = num_in_order_ = 0;
}

Status BundleStore::Fail(Status status) {
  EndFetch();
  return status;
}

BundleStoreStats BundleStore::stats() const {
  BundleStoreStats total;
  for (const Layer& layer : layers_) {
    const BundleStats& stats = layer.stats;
    total.bundles.num_tokens += stats.num_tokens;
    total.bundles.num_wanted += stats.num_wanted;
    total.bundles.num_hits += stats.num_hits;
    total.bundles.num_misses += stats.num_misses;
    total.bundles.num_reads += stats.num_reads;
    total.bundles.read_bytes += stats.read_bytes;
    total.bundles.fresh_bytes += stats.fresh_bytes;
    total.bundles.io_wait_ns += stats.io_wait_ns;
    total.bundles.num_dense_fetches += stats.num_dense_fetches;
    total.bundles.memory_ns += stats.memory_ns;
  }
  total.io_busy_ns = reader_.stats().busy_ns - busy_ns_at_start_;
  return total;
}

}  // namespace flashelm
