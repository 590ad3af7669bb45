#include "core/device.h"

#include <memory>
#include <utility>

#include "core/text_file.h"
#include "storage/file.h"

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
  // device.
  MeasureOptions options;
  options.backends = {io == IoBackend::kAuto ? IoBackend::kUring : io};
  options.orders = {ReadOrder::kSequential};
  options.request_bytes = {uint64_t{256} << 10, uint64_t{1} << 20};
  if (model.file_bytes() < options.request_bytes.front()) {
    options.request_bytes = {kIoAlignment};
  }
  options.queue_depths = {2, 4, 8};
  options.target_bytes = uint64_t{8} << 20;
  options.cancel = &cancel;
  const auto file = model.weight_file().shared_file();
  FLASHELM_ASSIGN_OR_RETURN(DeviceProfile profile,
                            MeasureDevice(file, options, {}));
  if (!profile.rates.empty()) return profile;
  if (io != IoBackend::kAuto) return Unimplemented(profile.uring_refusal);
  options.backends = {IoBackend::kPread};
  return MeasureDevice(file, options, {});
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
  std::optional<DeviceRate> fastest;
  for (const DeviceRate& rate : profile.rates) {
    if (rate.order != ReadOrder::kSequential || rate.bytes_per_second == 0 ||
        rate.shape.request_bytes > max_request_bytes ||
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
