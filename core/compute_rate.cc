#include "core/compute_rate.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "core/base/memory.h"
#include "core/base/process_memory.h"
#include "core/base/processors.h"
#include "core/base/thread.h"
#include "core/base/thread_pool.h"
#include "core/base/types.h"
#include "core/kv_cache.h"
#include "core/scratch.h"
#include "core/transformer.h"
#include "storage/open_reader.h"
#include "storage/weight_store.h"

namespace flashelm {
namespace {

using Clock = std::chrono::steady_clock;

// A buffer so much larger than the last-level cache is hardly ever in it, and
// one of so many bytes is not where a machine does not say how large that is.
constexpr uint64_t kCacheTimes = 4;
constexpr uint64_t kBufferBytes = uint64_t{256} << 20;

// More tokens than this are computed in groups anyway.
constexpr uint32_t kMaxTokens = 64;
// Where tokens stand, so that attention goes to as many positions.
constexpr uint32_t kPosition = 128;
// Small numbers in every encoding: 0.0115 as f32 and bf16, 1.06 as a scale.
constexpr int kWeightByte = 0x3c;

uint64_t LargestRecordBytes(const ModelFile& model) {
  uint64_t most = 0;
  for (const Segment& segment : model.weight_file().segments()) {
    most = std::max(most, segment.stride_bytes);
  }
  return most;
}

// What a forward pass runs on, but for the file.
class StandInModel {
 public:
  static Result<std::unique_ptr<StandInModel>> Create(
      const ModelFile& model, const MemoryPlan& plan, StandInWeights& weights,
      const ComputeRateOptions& options,
      std::optional<IoBackend> io = std::nullopt) {
    std::unique_ptr<StandInModel> made(new StandInModel);
    made->weights_ = weights.Within(model, plan);
    if (io) FLASHELM_RETURN_IF_ERROR(made->OpenReaderFor(model, plan, *io));
    FLASHELM_RETURN_IF_ERROR(made->Allocate(model, plan, options));
    return made;
  }

  ~StandInModel() {
    // Reads that do not end keep their targets in the reader.
    store_.reset();
    EndReader(std::move(reader_), std::make_shared<std::atomic<uint64_t>>(0));
  }
  StandInModel(const StandInModel&) = delete;
  StandInModel& operator=(const StandInModel&) = delete;

  // Bytes of weights times tokens, per second, until is_done(the time that went
  // by), which is asked between runs of weights.
  Result<double> Measure(uint32_t num_tokens,
                         const std::function<bool(Clock::duration)>& is_done) {
    num_tokens = std::min(num_tokens, static_cast<uint32_t>(tokens_.size()));
    const std::span<const TokenId> tokens(tokens_.data(), num_tokens);
    // A prompt's sweeps end without the output head.
    static constexpr uint32_t kFirst[] = {0};
    const std::span<const uint32_t> wanted(kFirst, num_tokens == 1 ? 1 : 0);
    num_bytes_ = 0;
    const auto begin = Clock::now();
    // Asked before each run, when those before have been computed.
    is_over_ = [&] { return num_bytes_ > 0 && is_done(Clock::now() - begin); };
    Status status;
    while (status.ok()) {
      status = transformer_->Forward(tokens,
                                     std::min(kPosition, context_ - num_tokens),
                                     wanted, scratch_.logits);
    }
    if (status.code() != StatusCode::kCancelled) return Unexpected(status);
    const std::chrono::duration<double> elapsed = Clock::now() - begin;
    return static_cast<double>(num_bytes_) * num_tokens / elapsed.count();
  }

  // The same for a while, of which the first half wakes threads, and the clock
  // of the processor.
  Result<double> Measure(uint32_t num_tokens, std::chrono::nanoseconds time) {
    const auto is_done = [time](Clock::duration elapsed) {
      return elapsed >= time;
    };
    FLASHELM_RETURN_IF_ERROR(StatusOf(Measure(num_tokens, is_done)));
    return Measure(num_tokens, is_done);
  }

  // The same of tokens that are generated one after the other, up to the end of
  // one, but no longer than a few times `time`.
  Result<double> MeasureTokens(std::chrono::nanoseconds time) {
    constexpr int kMostTimes = 4;
    static constexpr uint32_t kOnly[] = {0};
    num_bytes_ = 0;
    const auto begin = Clock::now();
    const auto elapsed = [begin] { return Clock::now() - begin; };
    is_over_ = [&] { return num_bytes_ > 0 && elapsed() >= kMostTimes * time; };
    Status status;
    while (status.ok() && elapsed() < time) {
      // Rows anywhere: some are resident, others are read.
      token_ = (token_ * 7919 + 13) % vocab_size_;
      status =
          transformer_->Forward({&token_, 1}, std::min(kPosition, context_ - 1),
                                kOnly, scratch_.logits);
    }
    if (!status.ok() && status.code() != StatusCode::kCancelled) {
      return Unexpected(status);
    }
    const std::chrono::duration<double> seconds = elapsed();
    return static_cast<double>(num_bytes_) / seconds.count();
  }

  uint64_t buffer_bytes() const { return weights_.size(); }

 private:
  StandInModel() = default;

  // As an engine has it.
  Status OpenReaderFor(const ModelFile& model, const MemoryPlan& plan,
                       IoBackend io) {
    FLASHELM_ASSIGN_OR_RETURN(
        reader_, OpenReader(model.weight_file().shared_file(),
                            {io, WeightStore::MaxReadsInFlight(plan.residency),
                             plan.num_io_threads}));
    return OkStatus();
  }

  Status Allocate(const ModelFile& model, const MemoryPlan& plan,
                  const ComputeRateOptions& options) {
    const ModelConfig& config = model.config();
    vocab_size_ = config.vocab_size;
    FLASHELM_ASSIGN_OR_RETURN(
        store_, WeightStore::CreateStandIn(
                    model.weight_file(), plan.residency, weights_,
                    {[this] { return is_over_(); }, &num_bytes_, reader_.get(),
                     &budget_}));
    store_->RegisterBuffers();
    FLASHELM_ASSIGN_OR_RETURN(pool_, ThreadPool::Create(options.num_threads));
    const uint32_t batch =
        std::clamp(options.batch, 1u, std::min(kMaxTokens, plan.context));
    context_ = std::min(plan.context, kPosition + batch);
    FLASHELM_ASSIGN_OR_RETURN(
        cache_, KvCache::Create(config, context_, options.kv_type, budget_));
    FLASHELM_ASSIGN_OR_RETURN(
        scratch_,
        Scratch::Create(config,
                        {batch, /*logit_rows=*/1, options.num_threads,
                         model.has_quantized(), model.has_floats(), context_,
                         model.has_split_gates(), model.has_rows()},
                        budget_));
    tokens_.resize(batch);
    std::iota(tokens_.begin(), tokens_.end(), TokenId{1});
    transformer_.emplace(model, *store_, *pool_, cache_, scratch_);
    return OkStatus();
  }

  static Status StatusOf(const Result<double>& result) {
    return result ? OkStatus() : result.error();
  }

  MemoryBudget budget_{kUnlimitedBytes};  // Goes last: the others charge it.
  std::span<const std::byte> weights_;
  std::function<bool()> is_over_;
  uint64_t num_bytes_ = 0;
  std::unique_ptr<AsyncReader> reader_;  // Null: nothing is read.
  std::unique_ptr<WeightStore> store_;
  std::unique_ptr<ThreadPool> pool_;
  KvCache cache_;
  Scratch scratch_;
  uint32_t context_ = 0;
  std::vector<TokenId> tokens_;
  TokenId token_ = 1;
  TokenId vocab_size_ = 1;
  std::optional<Transformer> transformer_;
};

}  // namespace

Result<StandInWeights> StandInWeights::Create(const ModelFile& model) {
  uint64_t num_bytes =
      std::min(model.weight_file().weight_bytes(),
               std::max(kBufferBytes, kCacheTimes * LastLevelCacheBytes()));
  if (const auto available = AvailableMemoryBytes()) {
    num_bytes = std::min(num_bytes, *available / 4);
  }
  StandInWeights made;
  made.budget_ = std::make_unique<MemoryBudget>(kUnlimitedBytes);
  FLASHELM_ASSIGN_OR_RETURN(
      made.buffer_,
      AlignedBuffer::Create(std::max(num_bytes, 2 * LargestRecordBytes(model)),
                            *made.budget_, "weights to compute with"));
  return made;
}

std::span<const std::byte> StandInWeights::Within(const ModelFile& model,
                                                  const MemoryPlan& plan) {
  const uint64_t in_use = plan.weight_bytes - plan.streamed_bytes_per_token +
                          plan.residency.RingBytes();
  const uint64_t num_bytes = std::min<uint64_t>(
      buffer_.size(), std::max(in_use, 2 * LargestRecordBytes(model)));
  // Pages that were never written are all the same one.
  if (num_bytes > filled_bytes_) {
    std::memset(buffer_.data() + filled_bytes_, kWeightByte,
                num_bytes - filled_bytes_);
    filled_bytes_ = num_bytes;
  }
  return buffer_.bytes().first(num_bytes);
}

Result<ComputeRate> MeasureComputeRate(const ModelFile& model,
                                       const MemoryPlan& plan,
                                       StandInWeights& weights,
                                       const ComputeRateOptions& options) {
  FLASHELM_ASSIGN_OR_RETURN(
      const auto stand_in, StandInModel::Create(model, plan, weights, options));
  ComputeRate rate;
  rate.buffer_bytes = stand_in->buffer_bytes();
  FLASHELM_ASSIGN_OR_RETURN(rate.bytes_per_second,
                            stand_in->Measure(1, options.duration));
  FLASHELM_ASSIGN_OR_RETURN(rate.batch_bytes_per_second,
                            stand_in->Measure(options.batch, options.duration));
  return rate;
}

Result<double> MeasureStreamingRate(const ModelFile& model,
                                    const MemoryPlan& plan,
                                    StandInWeights& weights,
                                    const ComputeRateOptions& options,
                                    IoBackend io) {
  FLASHELM_ASSIGN_OR_RETURN(
      const auto stand_in,
      StandInModel::Create(model, plan, weights, options, io));
  // The ring fills, threads wake, and the reader finds its shape.
  const auto first = stand_in->MeasureTokens(options.duration / 2);
  if (!first) return first;
  return stand_in->MeasureTokens(options.duration);
}

Result<double> MeasureComputeSlowdown(const ModelFile& model,
                                      const MemoryPlan& plan,
                                      StandInWeights& weights,
                                      const ComputeRateOptions& options,
                                      const std::function<Status()>& action) {
  FLASHELM_ASSIGN_OR_RETURN(
      const auto stand_in, StandInModel::Create(model, plan, weights, options));
  FLASHELM_ASSIGN_OR_RETURN(const double alone,
                            stand_in->Measure(1, options.duration));
  std::atomic<bool> is_done = false;
  Result<double> during = 0.0;
  Status status;
  {
    FLASHELM_ASSIGN_OR_RETURN(
        const Thread thread, Thread::Start([&] {
          during = stand_in->Measure(
              1, [&is_done](Clock::duration) { return is_done.load(); });
        }));
    status = action();
    is_done = true;
  }
  FLASHELM_RETURN_IF_ERROR(status);
  if (!during) return Unexpected(during.error());
  return alone / *during;
}

}  // namespace flashelm
