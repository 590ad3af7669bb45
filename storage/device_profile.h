// What a device gives, measured: the rate of each reader, order and shape.
#ifndef FLASHELM_STORAGE_DEVICE_PROFILE_H_
#define FLASHELM_STORAGE_DEVICE_PROFILE_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/cancel.h"
#include "core/base/status.h"
#include "storage/file.h"
#include "storage/open_reader.h"
#include "storage/read_tuner.h"

namespace flashelm {

enum class ReadOrder {
  kSequential,  // The file from begin to end, over and over.
  kRandom,      // Anywhere, at multiples of the request's size.
};

struct DeviceRate {
  IoBackend backend = IoBackend::kPread;  // kUring or kPread.
  ReadOrder order = ReadOrder::kSequential;
  ReadShape shape;
  uint64_t bytes_per_second = 0;
  friend bool operator==(const DeviceRate&, const DeviceRate&) = default;
};

struct DeviceProfile {
  std::string path;        // Of the file that was read.
  uint64_t device_id = 0;  // st_dev of that file; 0: not known.
  uint64_t file_bytes = 0;
  bool direct_io = false;
  std::vector<DeviceRate> rates;
  // Why there are no rates with io_uring; empty when there are.
  std::string uring_refusal;

  // The fastest sequential rate of a reader, the first of equals; null when
  // none was measured. Lives as long as `rates`.
  const DeviceRate* FindBest(IoBackend backend) const;
};

// The device that a file is on: its st_dev; 0: not known.
uint64_t DeviceId(const RandomAccessFile& file);

struct MeasureOptions {
  std::vector<IoBackend> backends = {IoBackend::kUring, IoBackend::kPread};
  std::vector<ReadOrder> orders = {ReadOrder::kSequential, ReadOrder::kRandom};
  std::vector<uint64_t> request_bytes = {
      uint64_t{16} << 10,  uint64_t{32} << 10,  uint64_t{64} << 10,
      uint64_t{128} << 10, uint64_t{256} << 10, uint64_t{512} << 10,
      uint64_t{1} << 20,   uint64_t{2} << 20};
  std::vector<uint32_t> queue_depths = {1, 2, 4, 8, 16, 32};
  uint32_t max_threads = 8;  // A pread reader is not measured with more.
  // Memory that reads go to, in turn, and the most that is in flight: deeper
  // queues of large requests are left out. By default as much as a ring has.
  uint64_t target_bytes = uint64_t{16} << 20;
  std::chrono::milliseconds time_per_rate{150};
  // Says where the file is read: with another one elsewhere, as caches of a
  // device make the same reads faster the second time. 0 reads from its
  // beginning on.
  uint64_t seed = 0;
  const CancelToken* cancel = nullptr;  // May be null.
};

using MeasureProgress = std::function<void(uint32_t done, uint32_t total)>;

// Reads the file in every combination of the options, which takes so many times
// time_per_rate (half a minute by default), and nothing else: it writes
// nothing. `progress` may be empty.
// kInvalidArgument: the file is smaller than every request, or there is nothing
// to measure. kUnavailable: a read failed. kResourceExhausted: no memory, or no
// threads. kCancelled.
Result<DeviceProfile> MeasureDevice(
    std::shared_ptr<const RandomAccessFile> file, const MeasureOptions& options,
    const MeasureProgress& progress);

// As a JSON text that ends with a line feed, and back. `name` begins messages.
// kDataLoss: not such a text. kUnimplemented: one of another version.
std::string ToJson(const DeviceProfile& profile);
Result<DeviceProfile> DeviceProfileFromJson(std::string_view text,
                                            std::string_view name);

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_DEVICE_PROFILE_H_
