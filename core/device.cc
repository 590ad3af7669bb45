#include "core/device.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "core/base/checked_math.h"
#include "core/base/types.h"
#include "core/text_file.h"
#include "storage/file.h"
#include "storage/scratch_file.h"

namespace flashelm {
namespace {

// While a profile is parsed, its tree takes so many times its text, as that of
// a manifest does.
constexpr uint64_t kTreeFactor = 14;

}  // namespace

Result<DeviceProfile> MeasureDeviceOf(const std::string& path,
                                      const MeasureOptions& options,
                                      const MeasureProgress& progress) {
  FLASHELM_ASSIGN_OR_RETURN(std::unique_ptr<RandomAccessFile> file,
                            OpenFile(path, CacheMode::kDirect));
  return MeasureDevice(std::move(file), options, progress);
}

Result<DeviceProfile> MeasureModelFile(const ModelFile& model, IoBackend io,
                                       const CancelToken& cancel) {
  // Large requests, a few at a time: one of these is near the best of any
  // device. The smallest are for rings of small slots.
  MeasureOptions options;
  options.backends = {io == IoBackend::kAuto ? IoBackend::kUring : io};
  options.orders = {ReadOrder::kSequential};
  options.request_bytes = {uint64_t{64} << 10, uint64_t{128} << 10,
                           uint64_t{256} << 10, uint64_t{512} << 10,
                           uint64_t{1} << 20};
  if (model.file_bytes() < options.request_bytes.front()) {
    options.request_bytes = {kIoAlignment};
  }
  options.queue_depths = {2, 8, 16};
  options.cancel = &cancel;
  const auto file = model.weight_file().shared_file();
  FLASHELM_ASSIGN_OR_RETURN(DeviceProfile profile,
                            MeasureDevice(file, options, {}));
  if (!profile.rates.empty()) return profile;
  if (io != IoBackend::kAuto) return Unimplemented(profile.uring_refusal);
  options.backends = {IoBackend::kPread};
  return MeasureDevice(file, options, {});
}

Result<uint64_t> MeasureRateAgain(const ModelFile& model,
                                  const DeviceRate& rate,
                                  std::chrono::milliseconds time,
                                  const CancelToken& cancel) {
  MeasureOptions options;
  options.backends = {rate.backend};
  options.orders = {rate.order};
  options.request_bytes = {rate.shape.request_bytes};
  options.queue_depths = {rate.shape.queue_depth};
  options.time_per_rate = time;
  options.cancel = &cancel;
  FLASHELM_ASSIGN_OR_RETURN(
      const DeviceProfile profile,
      MeasureDevice(model.weight_file().shared_file(), options, {}));
  if (profile.rates.empty()) return Unimplemented(profile.uring_refusal);
  return profile.rates.front().bytes_per_second;
}

Result<DeviceProfile> MeasureDirectory(const std::string& directory,
                                       const MeasureOptions& options,
                                       const DirectoryProgress& progress) {
  constexpr uint64_t kMostBytes = uint64_t{256} << 20;
  constexpr uint64_t kLeastBytes = uint64_t{16} << 20;
  constexpr uint64_t kBlockBytes = uint64_t{1} << 20;
  std::error_code error;
  const auto space = std::filesystem::space(directory, error);
  if (error) {
    return ErrnoStatus(error.value(),
                       StatusMessage::Join("cannot look at ", directory));
  }
  // What others need stays free.
  const uint64_t num_bytes =
      std::min(kMostBytes, RoundDown(space.available / 4, kBlockBytes));
  if (num_bytes < kLeastBytes) {
    return ResourceExhausted(directory, ": ", space.available,
                             " bytes are free, expected four times the ",
                             kLeastBytes,
                             " that a file to measure with takes at least");
  }
  FLASHELM_ASSIGN_OR_RETURN(
      ScratchFile scratch,
      ScratchFile::Create(directory + "/flashelm-doctor", num_bytes));
  // Nothing that a device or a file system could store in less.
  std::vector<uint64_t> block(kBlockBytes / sizeof(uint64_t));
  uint64_t state = num_bytes;
  for (uint64_t at = 0; at < num_bytes; at += kBlockBytes) {
    if (options.cancel != nullptr && options.cancel->IsCancelled()) {
      return Cancelled(directory, ": measuring stopped");
    }
    for (uint64_t& word : block) {  // xorshift64
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
      word = state;
    }
    FLASHELM_RETURN_IF_ERROR(
        scratch.WriteAt(at, std::as_bytes(std::span(block))));
    if (progress) {
      progress("writing", (at + kBlockBytes) >> 20, num_bytes >> 20);
    }
  }
  FLASHELM_ASSIGN_OR_RETURN(auto file, scratch.Open(CacheMode::kDirect));
  FLASHELM_ASSIGN_OR_RETURN(DeviceProfile profile,
                            MeasureDevice(std::move(file), options,
                                          [&](uint32_t done, uint32_t total) {
                                            if (progress)
                                              progress("measuring", done,
                                                       total);
                                          }));
  profile.path = directory;
  return profile;
}

Result<std::optional<ReadCost>> MeasureReadCost(const ModelFile& model,
                                                IoBackend io,
                                                uint64_t max_bytes,
                                                const CancelToken& cancel) {
  constexpr uint64_t kMaxRequestBytes = uint64_t{256} << 10;
  MeasureOptions options;
  options.target_bytes =
      std::min(RoundDown(max_bytes, kIoAlignment), 16 * kMaxRequestBytes);
  options.request_bytes.clear();
  // From what a neuron takes to what several take that are read together.
  const LayerWeights& layer = model.weights().layers[0];
  const uint64_t neuron_bytes = ReadPlanner::MaxRecordBytes(
      model.weight_file().segments()[layer.down.segment]);
  for (const uint64_t factor : {1, 4, 16}) {
    const uint64_t bytes = std::min(
        RoundUp(factor * neuron_bytes, kIoAlignment), kMaxRequestBytes);
    if (bytes <= options.target_bytes && bytes <= model.file_bytes() &&
        (options.request_bytes.empty() ||
         bytes > options.request_bytes.back())) {
      options.request_bytes.push_back(bytes);
    }
  }
  if (options.request_bytes.size() < 2) return std::nullopt;
  options.queue_depths = {4, 32};
  options.time_per_rate = std::chrono::milliseconds(4);
  options.cancel = &cancel;
  for (const IoBackend backend : {IoBackend::kUring, IoBackend::kPread}) {
    if (io != IoBackend::kAuto && io != backend) continue;
    options.backends = {backend};
    // A device that stops for a moment would look slow: of each shape the
    // fastest measurement counts, of as many as take no time worth mentioning.
    constexpr int kMaxRounds = 3;
    constexpr std::chrono::milliseconds kTime{100};
    const auto end = std::chrono::steady_clock::now() + kTime;
    DeviceProfile profile;
    for (int round = 0; round == 0 || (round < kMaxRounds &&
                                       std::chrono::steady_clock::now() < end);
         ++round) {
      options.seed = static_cast<uint64_t>(round);
      FLASHELM_ASSIGN_OR_RETURN(
          const DeviceProfile measured,
          MeasureDevice(model.weight_file().shared_file(), options, {}));
      profile.rates.insert(profile.rates.end(), measured.rates.begin(),
                           measured.rates.end());
    }
    if (const auto cost = FitReadCost(profile, backend)) return cost;
  }
  return std::nullopt;
}

Result<uint64_t> DeviceProfileMemory(const std::string& path) {
  FLASHELM_ASSIGN_OR_RETURN(const std::unique_ptr<RandomAccessFile> file,
                            OpenFile(path, CacheMode::kBuffered));
  return file->size_bytes() * kTreeFactor;
}

Result<DeviceProfile> ReadDeviceProfile(const std::string& path) {
  FLASHELM_ASSIGN_OR_RETURN(const std::string text,
                            ReadTextFile(path, kMaxDeviceProfileBytes));
  return DeviceProfileFromJson(text, path);
}

std::optional<DeviceRate> FastestRate(const DeviceProfile& profile,
                                      IoBackend io,
                                      uint64_t max_request_bytes) {
  const uint64_t most = SaturatingAdd(max_request_bytes, max_request_bytes / 8);
  std::optional<DeviceRate> fastest;
  for (const DeviceRate& rate : profile.rates) {
    if (rate.order != ReadOrder::kSequential || rate.bytes_per_second == 0 ||
        rate.shape.request_bytes > most ||
        (io != IoBackend::kAuto && io != rate.backend)) {
      continue;
    }
    if (!fastest || rate.bytes_per_second > fastest->bytes_per_second) {
      fastest = rate;
    }
  }
  return fastest;
}

}  // namespace flashelm
