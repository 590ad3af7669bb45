#include "storage/device_profile.h"

#include <sys/stat.h>

#include <algorithm>
#include <deque>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "core/base/checked_math.h"
#include "core/base/memory.h"
#include "core/base/types.h"
#include "storage/json.h"

namespace flashelm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kFormat[] = "flashelm-device";
constexpr uint32_t kVersion = 1;
// A device that takes longer for one read is taken for dead.
constexpr std::chrono::seconds kMaxReadTime(30);

const char* Name(IoBackend backend) {
  return backend == IoBackend::kUring ? "uring" : "pread";
}
const char* Name(ReadOrder order) {
  return order == ReadOrder::kRandom ? "random" : "sequential";
}

// What reads go to. A read that never ends keeps it for ever, so it is made
// with new, and then not deleted.
struct Targets {
  MemoryBudget budget{UINT64_MAX};
  AlignedBuffer buffer;
};

// Where one reading of the file stands.
class Offsets {
 public:
  Offsets(ReadOrder order, uint64_t file_bytes, uint64_t seed)
      : order_(order),
        file_bytes_(file_bytes),
        next_(RoundDown(file_bytes / 8 * (seed % 8), kIoAlignment)),
        random_(seed + 1) {}

  uint64_t Next(uint64_t num_bytes) {
    if (order_ == ReadOrder::kRandom) {
      return random_() % (file_bytes_ / num_bytes) * num_bytes;
    }
    if (num_bytes > file_bytes_ - next_) next_ = 0;
    return std::exchange(next_, next_ + num_bytes);
  }

 private:
  const ReadOrder order_;
  const uint64_t file_bytes_;
  uint64_t next_;
  std::mt19937_64 random_;
};

// Bytes per second of reads of one shape through an open reader.
Result<uint64_t> MeasureRate(AsyncReader& reader, const ReadShape& shape,
                             Offsets& offsets, std::span<std::byte> target,
                             std::chrono::nanoseconds time) {
  // Places in the memory, free since longest first, and by tag the one in use:
  // they are used in turn, as the slots of a ring that waits for its reader. A
  // few that stay in the processor's caches would be faster, but only as long
  // as nobody else looks at what was read.
  std::deque<uint64_t> free_places;
  for (uint64_t at = 0; target.size() - at >= shape.request_bytes;
       at += shape.request_bytes) {
    free_places.push_back(at);
  }
  std::vector<uint64_t> places(shape.queue_depth);
  const auto submit = [&](uint32_t tag) {
    places[tag] = free_places.front();
    free_places.pop_front();
    const ReadRequest request{offsets.Next(shape.request_bytes),
                              target.subspan(places[tag], shape.request_bytes),
                              tag};
    return reader.Submit({&request, 1});
  };
  for (uint32_t tag = 0; tag < shape.queue_depth; ++tag) {
    FLASHELM_RETURN_IF_ERROR(submit(tag));
  }
  // From when the queue has been full for one round.
  uint32_t num_skipped = 0;
  uint64_t num_bytes = 0;
  auto begin = Clock::now();
  while (true) {
    auto completion = reader.Wait(kMaxReadTime);
    if (!completion) {
      return Unavailable("no read ended in ", kMaxReadTime.count(), " s");
    }
    FLASHELM_RETURN_IF_ERROR(completion->status);
    const auto now = Clock::now();
    if (num_skipped < shape.queue_depth) {
      ++num_skipped;
      begin = now;
    } else {
      num_bytes += completion->num_bytes;
      if (now - begin >= time) {
        const std::chrono::duration<double> seconds = now - begin;
        return static_cast<uint64_t>(static_cast<double>(num_bytes) /
                                     std::max(seconds.count(), 1e-9));
      }
    }
    free_places.push_back(places[completion->tag]);
    FLASHELM_RETURN_IF_ERROR(submit(completion->tag));
  }
}

Json RateToJson(const DeviceRate& rate) {
  return {{"backend", Name(rate.backend)},
          {"order", Name(rate.order)},
          {"request_bytes", rate.shape.request_bytes},
          {"queue_depth", rate.shape.queue_depth},
          {"bytes_per_second", rate.bytes_per_second}};
}

Status ExpectMembers(const Json& object, size_t count, std::string_view name) {
  if (object.is_object() && object.size() == count) return OkStatus();
  return DataLoss(name, ": ", Describe(object), ", expected an object of ",
                  count, " members");
}

Result<DeviceRate> RateFromJson(const Json& object, std::string_view name) {
  FLASHELM_RETURN_IF_ERROR(ExpectMembers(object, 5, name));
  DeviceRate rate;
  FLASHELM_ASSIGN_OR_RETURN(const std::string_view backend,
                            GetString(object, "backend", name));
  FLASHELM_ASSIGN_OR_RETURN(const std::string_view order,
                            GetString(object, "order", name));
  FLASHELM_ASSIGN_OR_RETURN(rate.shape.request_bytes,
                            GetUint(object, "request_bytes", name));
  FLASHELM_ASSIGN_OR_RETURN(rate.shape.queue_depth,
                            GetUint32(object, "queue_depth", name));
  FLASHELM_ASSIGN_OR_RETURN(rate.bytes_per_second,
                            GetUint(object, "bytes_per_second", name));
  rate.backend = backend == Name(IoBackend::kUring) ? IoBackend::kUring
                                                    : IoBackend::kPread;
  rate.order = order == Name(ReadOrder::kRandom) ? ReadOrder::kRandom
                                                 : ReadOrder::kSequential;
  if (backend != Name(rate.backend) || order != Name(rate.order)) {
    return DataLoss(name, ": a rate of ", Describe(object["backend"]), ", ",
                    Describe(object["order"]),
                    "; expected uring or pread, sequential or random");
  }
  const Status shape = CheckReadShape(rate.shape);
  if (!shape.ok() || rate.shape.request_bytes == 0 ||
      rate.shape.queue_depth == 0) {
    return DataLoss(name, ": a rate with ", rate.shape.queue_depth,
                    " requests of ", rate.shape.request_bytes, " bytes");
  }
  return rate;
}

}  // namespace

uint64_t DeviceId(const RandomAccessFile& file) {
  struct stat info {};
  if (file.fd() < 0 || fstat(file.fd(), &info) != 0) return 0;
  return static_cast<uint64_t>(info.st_dev);
}

const DeviceRate* DeviceProfile::FindBest(IoBackend backend) const {
  const DeviceRate* best = nullptr;
  for (const DeviceRate& rate : rates) {
    if (rate.backend != backend || rate.order != ReadOrder::kSequential) {
      continue;
    }
    if (best == nullptr || rate.bytes_per_second > best->bytes_per_second) {
      best = &rate;
    }
  }
  return best;
}

Result<DeviceProfile> MeasureDevice(
    std::shared_ptr<const RandomAccessFile> file, const MeasureOptions& options,
    const MeasureProgress& progress) {
  DeviceProfile profile;
  profile.path = file->path();
  profile.device_id = DeviceId(*file);
  profile.file_bytes = file->size_bytes();
  profile.direct_io = file->direct_io();

  std::vector<DeviceRate> wanted;
  for (const IoBackend backend : options.backends) {
    for (const ReadOrder order : options.orders) {
      for (const uint64_t request_bytes : options.request_bytes) {
        for (const uint32_t queue_depth : options.queue_depths) {
          const ReadShape shape{request_bytes, queue_depth};
          FLASHELM_RETURN_IF_ERROR(CheckReadShape(shape));
          if (request_bytes == 0 || queue_depth == 0) {
            return InvalidArgument("a device is measured with ", queue_depth,
                                   " requests of ", request_bytes, " bytes");
          }
          const bool fits = request_bytes <= profile.file_bytes &&
                            request_bytes <= options.target_bytes / queue_depth;
          if (!fits || (backend == IoBackend::kPread &&
                        queue_depth > options.max_threads)) {
            continue;
          }
          wanted.push_back({backend, order, shape, 0});
        }
      }
    }
  }
  if (wanted.empty()) {
    return InvalidArgument(profile.path, ": nothing to measure in ",
                           profile.file_bytes, " bytes");
  }

  auto targets = std::make_unique<Targets>();
  FLASHELM_ASSIGN_OR_RETURN(
      targets->buffer,
      AlignedBuffer::Create(options.target_bytes, targets->budget, "targets"));
  const auto total = static_cast<uint32_t>(wanted.size());
  uint32_t done = 0;
  for (DeviceRate& rate : wanted) {
    if (options.cancel != nullptr && options.cancel->IsCancelled()) {
      return Cancelled(profile.path, ": measuring stopped");
    }
    ReaderOptions reader_options;
    reader_options.backend = rate.backend;
    reader_options.depth = rate.shape.queue_depth;
    reader_options.num_threads = rate.shape.queue_depth;
    reader_options.queue_depth = rate.shape.queue_depth;
    reader_options.request_bytes = rate.shape.request_bytes;
    auto reader = OpenReader(file, reader_options);
    if (!reader && reader.error().code() == StatusCode::kUnimplemented) {
      profile.uring_refusal = reader.error().message();
    } else if (!reader) {
      return Unexpected(std::move(reader.error()));
    } else {
      (*reader)->RegisterBuffer(targets->buffer.bytes());
      Offsets offsets(rate.order, profile.file_bytes, options.seed);
      auto measured =
          MeasureRate(**reader, rate.shape, offsets, targets->buffer.bytes(),
                      options.time_per_rate);
      if (!(*reader)->Drain(kMaxReadTime)) {
        targets.release();
        return Unavailable(profile.path, ": a read does not end");
      }
      (*reader)->RegisterBuffer({});
      if (!measured) return Unexpected(std::move(measured.error()));
      rate.bytes_per_second = *measured;
      profile.rates.push_back(rate);
    }
    if (progress) progress(++done, total);
  }
  return profile;
}

std::string ToJson(const DeviceProfile& profile) {
  Json json = {{"format", kFormat},
               {"version", kVersion},
               {"path", profile.path},
               {"device_id", profile.device_id},
               {"file_bytes", profile.file_bytes},
               {"direct_io", profile.direct_io},
               {"uring_refusal", profile.uring_refusal},
               {"rates", Json::array()},
               {"best", Json::array()}};
  for (const DeviceRate& rate : profile.rates) {
    json["rates"].push_back(RateToJson(rate));
  }
  for (const IoBackend backend : {IoBackend::kUring, IoBackend::kPread}) {
    const DeviceRate* best = profile.FindBest(backend);
    if (best != nullptr) json["best"].push_back(RateToJson(*best));
  }
  // A path need not be text.
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<DeviceProfile> DeviceProfileFromJson(std::string_view text,
                                            std::string_view name) {
  FLASHELM_ASSIGN_OR_RETURN(const Json json, ParseJson(text, name));
  if (!json.is_object()) {
    return DataLoss(name, ": ", Describe(json), ", expected an object");
  }
  FLASHELM_ASSIGN_OR_RETURN(const std::string_view format,
                            GetString(json, "format", name));
  if (format != kFormat) {
    return DataLoss(name, ": format ", Describe(json["format"]), ", expected ",
                    kFormat);
  }
  FLASHELM_ASSIGN_OR_RETURN(const uint64_t version,
                            GetUint(json, "version", name));
  if (version != kVersion) {
    return Unimplemented(name, ": version ", version, " of a device profile; ",
                         "this program knows version ", kVersion);
  }
  FLASHELM_RETURN_IF_ERROR(ExpectMembers(json, 9, name));
  DeviceProfile profile;
  FLASHELM_ASSIGN_OR_RETURN(profile.path, GetString(json, "path", name));
  FLASHELM_ASSIGN_OR_RETURN(profile.device_id,
                            GetUint(json, "device_id", name));
  FLASHELM_ASSIGN_OR_RETURN(profile.file_bytes,
                            GetUint(json, "file_bytes", name));
  FLASHELM_ASSIGN_OR_RETURN(profile.uring_refusal,
                            GetString(json, "uring_refusal", name));
  const auto direct_io = json.find("direct_io");
  if (direct_io == json.end() || !direct_io->is_boolean()) {
    return DataLoss(name, ": direct_io is not true or false");
  }
  profile.direct_io = direct_io->get<bool>();
  FLASHELM_ASSIGN_OR_RETURN(const Json* rates, GetArray(json, "rates", name));
  for (const Json& object : *rates) {
    FLASHELM_ASSIGN_OR_RETURN(DeviceRate rate, RateFromJson(object, name));
    profile.rates.push_back(rate);
  }
  // For readers of the text; it follows from the rest.
  FLASHELM_ASSIGN_OR_RETURN(const Json* best, GetArray(json, "best", name));
  Json expected = Json::array();
  for (const IoBackend backend : {IoBackend::kUring, IoBackend::kPread}) {
    const DeviceRate* rate = profile.FindBest(backend);
    if (rate != nullptr) expected.push_back(RateToJson(*rate));
  }
  if (*best != expected) {
    return DataLoss(name, ": the best rates are not those of the list");
  }
  return profile;
}

}  // namespace flashelm
