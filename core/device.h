// What is known of a device, from a file or by measuring, for choosing how to
// read from it.
#ifndef FLASHELM_CORE_DEVICE_H_
#define FLASHELM_CORE_DEVICE_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/cancel.h"
#include "core/base/status.h"
#include "core/model_file.h"
#include "storage/device_profile.h"  // IWYU pragma: export
#include "storage/read_cost.h"       // IWYU pragma: export

namespace flashelm {

// No profile is larger.
inline constexpr uint64_t kMaxDeviceProfileBytes = uint64_t{256} << 10;

// Measures the device that holds a file, model or not. Errors as OpenFile() and
// MeasureDevice().
Result<DeviceProfile> MeasureDeviceOf(const std::string& path,
                                      const MeasureOptions& options,
                                      const MeasureProgress& progress);

// Measures in about two seconds how fast a model file can be read in order with
// `io`, which is not kMmap. Errors as MeasureDevice(); kUnimplemented: no
// io_uring here.
Result<DeviceProfile> MeasureModelFile(const ModelFile& model, IoBackend io,
                                       const CancelToken& cancel);

// The rate of one way to read a model file in order, measured for `time`.
// Errors as above.
Result<uint64_t> MeasureRateAgain(const ModelFile& model,
                                  const DeviceRate& rate,
                                  std::chrono::milliseconds time,
                                  const CancelToken& cancel);

using DirectoryProgress =
    std::function<void(std::string_view stage, uint64_t done, uint64_t total)>;
// Measures the device of a directory, by a temporary file of at most 256 MiB
// there, which has no name and is gone afterwards: the more room there is, the
// less do caches of a device hide. `stage` names what progress is of: "writing"
// MiB of the file, or "measuring". `path` of the profile is the directory.
// kNotFound: no such directory. kInvalidArgument: it cannot be written to.
// kResourceExhausted: no room for 16 MiB. Others as MeasureDevice().
Result<DeviceProfile> MeasureDirectory(const std::string& directory,
                                       const MeasureOptions& options,
                                       const DirectoryProgress& progress);

// Measures what reads of a model file's neurons cost with `io`, which is not
// kMmap: some 30 MB in 400 reads, up to three times, less than a fifth of a
// second on an SSD, but once and a second or two on a card that answers a few
// hundred reads in a second.
//   max_bytes  of memory that it may take, at least a page
// Nothing: the file or `max_bytes` is too small to tell. Errors as
// MeasureDevice().
Result<std::optional<ReadCost>> MeasureReadCost(const ModelFile& model,
                                                IoBackend io,
                                                uint64_t max_bytes,
                                                const CancelToken& cancel);

// What ReadDeviceProfile() takes of memory on its way, at most.
Result<uint64_t> DeviceProfileMemory(const std::string& path);

// The profile in a file. kNotFound; kInvalidArgument: no regular file, or a
// large one; kDataLoss, kUnimplemented: as DeviceProfileFromJson().
Result<DeviceProfile> ReadDeviceProfile(const std::string& path);

// The fastest way to read a file in order with `io`, with kAuto by any reader,
// in requests of at most `max_request_bytes` or an eighth more: slots of whole
// units are a little smaller than what is measured. Nothing: none was measured.
std::optional<DeviceRate> FastestRate(const DeviceProfile& profile,
                                      IoBackend io, uint64_t max_request_bytes);

}  // namespace flashelm

#endif  // FLASHELM_CORE_DEVICE_H_
