#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "cli/device_table.h"
#include "cli/doctor_advice.h"
#include "cli/engine_setup.h"
#include "cli/machine.h"
#include "cli/record.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "core/base/format.h"
#include "core/base/processors.h"
#include "core/convert/openelm_shapes.h"
#include "core/simd.h"
#include "core/text_file.h"

namespace flashelm::cli {
namespace {

constexpr const char* kShapes[] = {"270M", "450M", "1.1B", "3B"};

Result<DeviceProfile> MeasureStorage(const DoctorArgs& args,
                                     bool is_directory) {
  MeasureOptions options;
  options.request_bytes = {uint64_t{16} << 10, uint64_t{64} << 10,
                           uint64_t{256} << 10, uint64_t{1} << 20};
  options.queue_depths = {1, 4, 16};
  options.target_bytes = uint64_t{16} << 20;
  options.time_per_rate = std::chrono::milliseconds(args.time_ms);
  options.cancel = &InterruptToken();
  ProgressBar bar;
  const auto show = [&bar](std::string_view stage, uint64_t done,
                           uint64_t total) { bar.Show(stage, done, total); };
  if (is_directory) return MeasureDirectory(args.path, options, show);
  return MeasureDeviceOf(
      args.path, options,
      [&](uint32_t done, uint32_t total) { show("measuring", done, total); });
}

// "unlimited", "not known", or what `format` makes of the number.
template <class Format>
std::string LimitText(const std::optional<uint64_t>& limit,
                      const Format& format) {
  if (!limit) return "not known";
  return *limit == kNoLimit ? "unlimited" : format(*limit);
}

std::string BytesText(const std::optional<uint64_t>& bytes) {
  return LimitText(bytes, FormatBytes);
}

std::string ClockText(const ClockFacts& clock) {
  std::string text;
  const auto add = [&text](const std::string& part) {
    text += (text.empty() ? "" : ", ") + part;
  };
  if (clock.governor) add("governor " + *clock.governor);
  const auto ghz = [](uint64_t khz) { return static_cast<double>(khz) / 1e6; };
  if (clock.current_khz)
    add(fmt::format("{:.2f} GHz", ghz(*clock.current_khz)));
  if (clock.max_khz)
    add(fmt::format("at most {:.2f} GHz", ghz(*clock.max_khz)));
  if (clock.celsius) add(fmt::format("{:.0f} degrees Celsius", *clock.celsius));
  if (clock.num_throttled) {
    add(fmt::format("slowed by heat {} times", *clock.num_throttled));
  }
  return text.empty() ? "the system does not tell" : text;
}

void Line(const char* name, const std::string& text) {
  fmt::print("  {:<12} {}\n", name, text);
}

void PrintMachine(const Examination& found) {
  std::string targets;
  for (const std::string_view target : SimdTargets()) {
    targets += ' ';
    targets += target;
  }
  fmt::print("Machine\n");
  Line("processor", CpuName().value_or("not known"));
  Line("to be used",
       fmt::format("{} of {} processors, {} cores that compute",
                   found.num_processors, found.num_online, found.num_cores));
  Line("SIMD", fmt::format("{} (there are{})", found.simd, targets));
  Line("clock", ClockText(found.clock));
  Line("kernel", KernelName().value_or("not known"));
  const MemoryFacts& memory = found.memory;
  fmt::print("\nMemory\n");
  Line("RAM",
       fmt::format("{}, of which {} are free", BytesText(memory.total_bytes),
                   BytesText(memory.available_bytes)));
  Line("swap",
       fmt::format("{}, of which {} are free", BytesText(memory.swap_bytes),
                   BytesText(memory.swap_free_bytes)));
  Line(
      "cgroup",
      (memory.cgroup_limit_bytes ? FormatBytes(*memory.cgroup_limit_bytes)
                                 : std::string("no limit")) +
          (memory.cgroup_version ? fmt::format(" (v{})", *memory.cgroup_version)
                                 : ""));
  Line("limits",
       fmt::format("address space {}, locked memory {}, open files {}",
                   BytesText(found.limits.address_space_bytes),
                   BytesText(found.limits.locked_bytes),
                   LimitText(found.limits.open_files, [](uint64_t count) {
                     return std::to_string(count);
                   })));
  const StorageFacts& storage = found.storage;
  fmt::print("\nStorage of {}\n", found.path);
  Line("device", fmt::format("{}{}{}", storage.kind,
                             storage.device ? " " + *storage.device : "",
                             storage.model ? ", " + *storage.model : ""));
  Line("file system",
       storage.fs_type.value_or("not known") +
           (storage.is_read_only.value_or(false) ? ", read-only" : "") + ", " +
           BytesText(storage.free_bytes) + " free");
  if (found.profile) {
    fmt::print("\n");
    PrintDeviceProfile(*found.profile);
  } else {
    Line("not measured", found.storage_error);
  }
}

void PrintMeaning(const Examination& found, const std::vector<Advice>& advice) {
  fmt::print("\nModels, with {} for them (what is free less a reserve)\n\n",
             BytesText(found.models.front().budget_bytes));
  fmt::print("  {:<5} {:<7} {:>11} {:>11} {:>12} {:>10}\n", "model", "weights",
             "file", "all in RAM", "flash/token", "tokens/s");
  for (const ModelOutlook& model : found.models) {
    fmt::print(
        "  {:<5} {:<7} {:>11} {:>11} {:>12} {:>10}\n", model.shape, model.name,
        FormatBytes(model.file_bytes), FormatBytes(model.whole_bytes),
        model.flash_bytes_per_token ? FormatBytes(*model.flash_bytes_per_token)
                                    : "too small",
        model.gen_tps ? fmt::format("{:.2f}", *model.gen_tps) : "-");
  }
  fmt::print("\n");
  for (const char* shape : kShapes) {
    fmt::print("- {} {}.\n", shape, DescribeShape(found.models, shape));
  }
  fmt::print("\nWhat to change\n\n");
  for (const Advice& each : advice) fmt::print("- {}.\n", each.text);
  if (advice.empty()) fmt::print("Nothing stands in the way.\n");
}

// An object of numbers, null where one is not known.
struct Count {
  const char* name;
  std::optional<uint64_t> value;
};
Json CountsToJson(const std::vector<Count>& counts) {
  Json json;
  for (const Count& count : counts) {
    // Without a limit: -1.
    json[count.name] = count.value == kNoLimit ? Json(-1) : OrNull(count.value);
  }
  return json;
}

void Put(Json& json, const char* key, const std::optional<std::string>& text) {
  json[key] = OrNull(text);
}

Json StorageToJson(const Examination& found) {
  const StorageFacts& storage = found.storage;
  const DeviceProfile* profile = found.profile ? &*found.profile : nullptr;
  Json json = CountsToJson({{"free_bytes", storage.free_bytes}});
  Put(json, "path", found.path);
  Put(json, "fs_type", storage.fs_type);
  Put(json, "device", storage.device);
  Put(json, "storage_model", storage.model);
  Put(json, "kind", storage.kind);
  json["rotational"] = OrNull(storage.is_rotational);
  json["read_only"] = OrNull(storage.is_read_only);
  std::optional<std::string> error;
  std::optional<std::string> refusal;
  if (profile == nullptr) {
    error = found.storage_error;
  } else if (!profile->uring_refusal.empty()) {
    refusal = profile->uring_refusal;
  }
  Put(json, "error", error);
  Put(json, "uring_refusal", refusal);
  json["direct_io"] = profile ? Json(profile->direct_io) : Json(nullptr);
  json["io_uring"] = profile ? Json(!refusal) : Json(nullptr);
  json["rates"] = Json::array();
  if (profile == nullptr) return json;
  for (const DeviceRate& rate : profile->rates) {
    Json entry = CountsToJson({{"request_bytes", rate.shape.request_bytes},
                               {"queue_depth", rate.shape.queue_depth},
                               {"bytes_per_second", rate.bytes_per_second}});
    Put(entry, "io_backend", std::string(IoName(rate.backend)));
    Put(entry, "order",
        rate.order == ReadOrder::kRandom ? "random" : "sequential");
    json["rates"].push_back(std::move(entry));
  }
  return json;
}

Json ModelToJson(const ModelOutlook& model) {
  Json json = CountsToJson(
      {{"n_params", model.num_params},
       {"model_size_bytes", model.file_bytes},
       {"resident_budget_bytes", model.whole_bytes},
       {"minimum_budget_bytes", model.minimum_bytes},
       {"mem_budget_bytes", model.budget_bytes},
       {"planned_bytes", model.planned_bytes},
       {"flash_bytes_bound_per_token", model.flash_bytes_per_token}});
  Put(json, "shape", model.shape);
  Put(json, "weights", model.name);
  json["fits_in_ram"] = model.fits_whole();
  json["gen_tps"] = OrNull(model.gen_tps);
  return json;
}

Json ToJson(const Examination& found, const std::vector<Advice>& advice) {
  const ClockFacts& clock = found.clock;
  const MemoryFacts& memory = found.memory;
  Json json = CountsToJson({{"schema_version", 1},
                            {"n_processors_online", found.num_online},
                            {"n_processors", found.num_processors},
                            {"n_cores", found.num_cores}});
  Put(json, "build_version", FLASHELM_VERSION);
  Put(json, "cpu_info", CpuName());
  Put(json, "kernel", KernelName());
  Put(json, "simd", found.simd);
  json["simd_targets"] = Json::array();
  for (const std::string_view target : SimdTargets()) {
    json["simd_targets"].push_back(std::string(target));
  }
  json["clock"] = CountsToJson({{"current_khz", clock.current_khz},
                                {"max_khz", clock.max_khz},
                                {"throttle_count", clock.num_throttled}});
  Put(json["clock"], "driver", clock.driver);
  Put(json["clock"], "governor", clock.governor);
  json["clock"]["celsius"] = OrNull(clock.celsius);
  json["memory"] =
      CountsToJson({{"total_bytes", memory.total_bytes},
                    {"available_bytes", memory.available_bytes},
                    {"swap_bytes", memory.swap_bytes},
                    {"swap_free_bytes", memory.swap_free_bytes},
                    {"cgroup_limit_bytes", memory.cgroup_limit_bytes},
                    {"cgroup_version", memory.cgroup_version},
                    {"free_bytes", memory.free_bytes}});
  json["limits"] =
      CountsToJson({{"address_space_bytes", found.limits.address_space_bytes},
                    {"locked_bytes", found.limits.locked_bytes},
                    {"open_files", found.limits.open_files}});
  json["storage"] = StorageToJson(found);
  json["models"] = Json::array();
  for (const ModelOutlook& model : found.models) {
    json["models"].push_back(ModelToJson(model));
  }
  json["advice"] = Json::array();
  for (const Advice& each : advice) {
    Json entry;
    Put(entry, "key", each.key);
    Put(entry, "text", each.text);
    json["advice"].push_back(std::move(entry));
  }
  return json;
}

}  // namespace

Status RunDoctor(const DoctorArgs& args) {
  struct stat info {};
  if (stat(args.path.c_str(), &info) != 0) {
    const int error = errno;
    return ErrnoStatus(error,
                       StatusMessage::Join("cannot look at ", args.path));
  }
  const uint32_t max_context = OpenElmShape().max_context;
  if (args.context > max_context) {
    return InvalidArgument("--ctx-size ", args.context,
                           ": OpenELM was made for contexts of ", max_context,
                           " positions");
  }
  const bool is_directory = S_ISDIR(info.st_mode);
  if (!args.output.empty()) {
    FLASHELM_RETURN_IF_ERROR(CheckOutputPath(args.output, {args.path}));
  }
  Examination found;
  found.path = args.path;
  found.memory = ReadMemoryFacts();
  found.limits = ReadLimitFacts();
  found.clock = ReadClockFacts();
  found.storage = ReadStorageFacts(args.path);
  const UsableProcessors processors = FindUsableProcessors();
  found.num_processors = processors.num_processors;
  found.num_cores = processors.num_cores;
  found.num_online = std::max(
      processors.num_processors,
      static_cast<uint32_t>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN))));
  found.simd = std::string(SimdTargetName());
  auto profile = MeasureStorage(args, is_directory);
  std::optional<ReadRate> read;
  Status storage_status;
  if (profile) {
    found.profile = std::move(*profile);
    read = RateOf(*found.profile, IoBackend::kAuto, ReadRate::Source::kProfile);
  } else {
    // The other checks go on.
    storage_status = profile.error();
    if (storage_status.code() == StatusCode::kCancelled) return storage_status;
    found.storage_error = storage_status.message();
  }
  if (found.profile && !args.output.empty()) {
    FLASHELM_RETURN_IF_ERROR(
        WriteTextFile(args.output, ToJson(*found.profile)));
  }
  EngineArgs engine;
  engine.context = args.context;
  engine.threads = args.threads;
  FLASHELM_ASSIGN_OR_RETURN(found.models, LookAtModels(engine, read));
  const std::vector<Advice> advice = Advise(found);
  if (args.json) {
    fmt::print("{}\n", Dump(ToJson(found, advice), 2));
  } else {
    PrintMachine(found);
    PrintMeaning(found, advice);
  }
  // What was asked for is not there.
  return args.output.empty() ? OkStatus() : storage_status;
}

}  // namespace flashelm::cli
