#include "cli/plan_forecast.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "cli/run_stats.h"
#include "core/sampler.h"

namespace flashelm::cli {

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

ReadRate RateWithin(const ReadRate& rate, const MemoryPlan& plan) {
  ReadRate within = rate;
  if (rate.rates.empty() || plan.residency.slot_bytes == 0) return within;
  uint64_t most = UINT64_MAX;
  for (const DeviceRate& each : rate.rates) {
    most = std::min(most, each.shape.request_bytes);
  }
  most = std::max(most, plan.residency.slot_bytes);
  within.bytes_per_second = 0;
  for (const DeviceRate& each : rate.rates) {
    if (each.shape.request_bytes <= most) {
      within.bytes_per_second =
          std::max(within.bytes_per_second, each.bytes_per_second);
    }
  }
  return within;
}

Result<ReadRate> MeasureReading(const ModelFile& model, IoBackend io,
                                uint32_t num_threads,
                                const CancelToken& cancel) {
  FLASHELM_ASSIGN_OR_RETURN(const DeviceProfile profile,
                            MeasureModelFile(model, io, cancel));
  const auto fastest = FastestRate(profile, IoBackend::kAuto, UINT64_MAX);
  auto rate = RateOf(profile, IoBackend::kAuto, ReadRate::Source::kMeasured);
  if (!fastest || !rate) {
    return Unavailable(model.path(), ": reading has no rate");
  }
  uint64_t during = 0;
  ComputeRateOptions compute;
  compute.num_threads = num_threads;
  FLASHELM_ASSIGN_OR_RETURN(
      rate->compute_slowdown,
      MeasureComputeSlowdown(model, compute, [&]() -> Status {
        FLASHELM_ASSIGN_OR_RETURN(during,
                                  MeasureRateAgain(model, *fastest, cancel));
        return OkStatus();
      }));
  if (during > 0) {
    rate->read_slowdown = static_cast<double>(rate->bytes_per_second) /
                          static_cast<double>(during);
  }
  return *rate;
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
        static_cast<double>(RateWithin(*read, plan).bytes_per_second);
    input.read_slowdown = read->read_slowdown;
    input.compute_slowdown = read->compute_slowdown;
  }
  input.compute_bytes_per_second = compute.bytes_per_second;
  input.batch_compute_bytes_per_second = compute.batch_bytes_per_second;
  return MakeForecast(input);
}

}  // namespace flashelm::cli
