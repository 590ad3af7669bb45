#include "cli/plan_forecast.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "cli/run_stats.h"
#include "core/sampler.h"

namespace flashelm::cli {
namespace {

ComputeRateOptions RateOptions(const MemoryPlan& plan,
                               const PlanOptions& options) {
  ComputeRateOptions rate;
  rate.num_threads = options.num_threads;
  rate.batch = plan.batch;
  rate.kv_type = options.kv_type;
  return rate;
}

// Of what a plan streams; 0: nothing.
double MeanReadBytes(const ModelFile& model, const MemoryPlan& plan) {
  const uint64_t num_reads =
      plan.residency.StreamedReads(model.weight_file().segments());
  if (num_reads == 0) return 0;
  return static_cast<double>(plan.streamed_bytes_per_token) /
         static_cast<double>(num_reads);
}

// The fastest of the size that is most like that of reads: what they cost the
// processors depends on how many there are. Of one measurement at least.
const DeviceRate& RateLikeReads(const std::vector<DeviceRate>& rates,
                                double read_bytes) {
  const auto distance = [read_bytes](const DeviceRate& rate) {
    const auto bytes = static_cast<double>(rate.shape.request_bytes);
    return std::abs(std::log(bytes / std::max(1.0, read_bytes)));
  };
  return *std::ranges::min_element(
      rates, [&](const DeviceRate& a, const DeviceRate& b) {
        if (a.shape.request_bytes != b.shape.request_bytes) {
          return distance(a) < distance(b);
        }
        return a.bytes_per_second > b.bytes_per_second;
      });
}

}  // namespace

EngineNeeds RunNeeds(const ModelFile& model, uint32_t context) {
  std::string text;
  while (text.size() < uint64_t{4} * context) text += "day ";
  EngineNeeds needs;
  needs.caller_bytes = kArgumentCopies * text.size() +
                       model.tokenizer().EncodeScratchBytes(text) +
                       uint64_t{context} * sizeof(TokenId) +
                       Sampler::NumBytes(model.config().vocab_size) +
                       RunStats::NumBytes(context);
  return needs;
}

std::span<const StorageClass> StorageClasses() {
  static constexpr std::array<StorageClass, 4> kClasses = {
      {{"sd", "SD card", 90'000'000},
       {"emmc", "eMMC", 300'000'000},
       {"ufs", "UFS", 1'500'000'000},
       {"nvme", "NVMe", 3'500'000'000}}};
  return kClasses;
}

const StorageClass* FindStorageClass(std::string_view name) {
  for (const StorageClass& storage : StorageClasses()) {
    if (name == storage.name) return &storage;
  }
  return nullptr;
}

std::optional<ReadRate> RateOf(const DeviceProfile& profile, IoBackend io,
                               ReadRate::Source source) {
  const auto fastest = FastestRate(profile, io, UINT64_MAX);
  if (!fastest) return std::nullopt;
  ReadRate rate;
  rate.bytes_per_second = fastest->bytes_per_second;
  rate.source = source;
  rate.backend = fastest->backend;
  for (const DeviceRate& each : profile.rates) {
    if (each.order == ReadOrder::kSequential && each.backend == rate.backend) {
      rate.rates.push_back(each);
    }
  }
  return rate;
}

ReadRate RateWithin(const ReadRate& rate, const ModelFile& model,
                    const MemoryPlan& plan) {
  ReadRate within = rate;
  const double read_bytes = MeanReadBytes(model, plan);
  if (rate.rates.empty() || read_bytes == 0) return within;
  // The best of each size, in nanoseconds per request.
  std::map<uint64_t, double> request_ns;
  for (const DeviceRate& each : rate.rates) {
    const uint64_t bytes = each.shape.request_bytes;
    const double ns = 1e9 * static_cast<double>(bytes) /
                      static_cast<double>(each.bytes_per_second);
    const auto [at, is_first] = request_ns.emplace(bytes, ns);
    if (!is_first) at->second = std::min(at->second, ns);
  }
  const auto above = request_ns.lower_bound(static_cast<uint64_t>(read_bytes));
  double ns = 0;
  if (above == request_ns.end()) {
    // Larger ones are cut into these.
    const auto& [bytes, last_ns] = *request_ns.rbegin();
    ns = last_ns * read_bytes / static_cast<double>(bytes);
  } else if (above == request_ns.begin()) {
    ns = above->second;  // As far as is known, a small read takes as long.
  } else {
    const auto below = std::prev(above);
    const auto low = static_cast<double>(below->first);
    const double part =
        (read_bytes - low) / (static_cast<double>(above->first) - low);
    ns = below->second + part * (above->second - below->second);
  }
  within.bytes_per_second = static_cast<uint64_t>(1e9 * read_bytes / ns);
  return within;
}

Result<ReadRate> MeasureReading(const ModelFile& model, const MemoryPlan& plan,
                                const PlanOptions& options,
                                StandInWeights& weights,
                                const CancelToken& cancel) {
  FLASHELM_ASSIGN_OR_RETURN(const DeviceProfile profile,
                            MeasureModelFile(model, options.io, cancel));
  auto rate = RateOf(profile, IoBackend::kAuto, ReadRate::Source::kMeasured);
  if (!rate || rate->rates.empty()) {
    return Unavailable(model.path(), ": reading has no rate");
  }
  const DeviceRate& likely =
      RateLikeReads(rate->rates, MeanReadBytes(model, plan));
  // What else goes on in a machine comes and goes: neighbours in time are
  // compared, and of several comparisons the middle one counts.
  constexpr size_t kRounds = 3;
  constexpr std::chrono::milliseconds kTime(120);
  std::array<double, kRounds> read_slowdowns;
  std::array<double, kRounds> compute_slowdowns;
  ComputeRateOptions compute = RateOptions(plan, options);
  compute.duration = kTime;
  for (size_t round = 0; round < kRounds; ++round) {
    FLASHELM_ASSIGN_OR_RETURN(const uint64_t alone,
                              MeasureRateAgain(model, likely, kTime, cancel));
    uint64_t during = 0;
    FLASHELM_ASSIGN_OR_RETURN(
        compute_slowdowns[round],
        MeasureComputeSlowdown(model, plan, weights, compute, [&]() -> Status {
          FLASHELM_ASSIGN_OR_RETURN(
              during, MeasureRateAgain(model, likely, kTime, cancel));
          return OkStatus();
        }));
    read_slowdowns[round] = static_cast<double>(alone) /
                            static_cast<double>(std::max<uint64_t>(1, during));
  }
  std::ranges::sort(read_slowdowns);
  std::ranges::sort(compute_slowdowns);
  rate->read_slowdown = read_slowdowns[kRounds / 2];
  rate->compute_slowdown = compute_slowdowns[kRounds / 2];
  return *rate;
}

Result<ComputeRate> MeasureComputing(const ModelFile& model,
                                     const MemoryPlan& plan,
                                     const PlanOptions& options,
                                     StandInWeights& weights) {
  return MeasureComputeRate(model, plan, weights, RateOptions(plan, options));
}

Result<double> MeasureStreaming(const ModelFile& model, const MemoryPlan& plan,
                                const PlanOptions& options,
                                StandInWeights& weights) {
  ComputeRateOptions rate = RateOptions(plan, options);
  rate.duration = std::chrono::milliseconds(400);
  return MeasureStreamingRate(model, plan, weights, rate, options.io);
}

Forecast ForecastOf(const ModelFile& model, const MemoryPlan& plan,
                    const std::optional<SparseForecast>& sparse,
                    const std::optional<ReadRate>& read,
                    const ComputeRate& compute) {
  ForecastInput input;
  input.weight_bytes = plan.weight_bytes;
  input.streamed_bytes = plan.streamed_bytes_per_token;
  const std::vector<Segment>& segments = model.weight_file().segments();
  input.head_bytes = segments[plan.residency.head].num_bytes();
  input.head_streamed_bytes =
      plan.streamed_bytes_per_token -
      plan.residency.StreamedBytes(segments, /*with_head=*/false);
  input.batch = plan.batch;
  if (sparse) {
    input.weight_bytes -= sparse->neuron_bytes - sparse->kept_bytes;
    input.more_read_ms = sparse->read_ms;
  }
  if (read) {
    input.read_bytes_per_second =
        static_cast<double>(RateWithin(*read, model, plan).bytes_per_second);
    input.read_slowdown = read->read_slowdown;
    input.compute_slowdown = read->compute_slowdown;
    if (read->source == ReadRate::Source::kMeasured) {
      input.streaming_bytes_per_second = compute.streaming_bytes_per_second;
    }
  }
  input.compute_bytes_per_second = compute.bytes_per_second;
  input.batch_compute_bytes_per_second = compute.batch_bytes_per_second;
  return MakeForecast(input);
}

}  // namespace flashelm::cli
