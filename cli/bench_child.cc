#include "cli/bench_child.h"

#include <signal.h>

#include <cstdio>
#include <cstring>
#include <ctime>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "cli/bench_record.h"
#include "cli/build_info.h"
#include "cli/child_process.h"
#include "cli/machine.h"
#include "cli/memory_cgroup.h"
#include "cli/page_cache.h"
#include "core/base/process_memory.h"

namespace flashelm::cli {
namespace {

// What a child sends: its record, or why there is none.
std::string ToMessage(const Result<Json>& row) {
  Json message;
  if (row) {
    message["row"] = *row;
  } else {
    message["error"] = row.error().message();
    message["code"] = static_cast<int>(row.error().code());
  }
  return Dump(message, -1);
}

std::string MeasureToMessage(
    const BenchRowArgs& args,
    const std::function<void(uint32_t)>& repetition_done,
    const CancelToken& cancel) {
  try {
    return ToMessage(MeasureRow(args, repetition_done, cancel));
  } catch (const std::bad_alloc&) {
    return ToMessage(ResourceExhausted("out of memory"));
  }
}

Json UsageToJson(const MemoryCgroup::Usage& usage) {
  Json json = EmptyCgroup();
  json["version"] = usage.version;
  json["limit_bytes"] = OrNull(usage.limit_bytes);
  json["peak_bytes"] = OrNull(usage.peak_bytes);
  json["limit_hits"] = OrNull(usage.limit_hits);
  json["oom_kills"] = OrNull(usage.oom_kills);
  return json;
}

// Why a child sent no record.
Status ErrorOf(const Json& message, const ChildResult& child,
               const Json& cgroup) {
  if (message.contains("error")) {
    return Status(message["code"].get<StatusCode>(),
                  message["error"].get<std::string>());
  }
  if (child.signal == SIGKILL && cgroup.is_object() &&
      cgroup["oom_kills"].is_number() && cgroup["oom_kills"] > 0) {
    return ResourceExhausted(
        "killed by the kernel: more memory than the cgroup of the budget's "
        "size allows");
  }
  if (child.signal == SIGKILL) {
    return ResourceExhausted(
        "killed, which the kernel does when memory runs out");
  }
  if (child.signal != 0) {
    return Internal("ended by signal ", child.signal, " (",
                    strsignal(child.signal), ")");
  }
  return Internal("ended without a result");
}

// ISO 8601, in UTC.
std::string Now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts;
  char text[32];
  if (gmtime_r(&now, &parts) == nullptr ||
      std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts) == 0) {
    return "";
  }
  return text;
}

void AddConfig(const RowPlan& plan, const BenchArgs& args, Json& config) {
  const EngineArgs& engine = plan.args.engine;
  config["mem_budget"] = plan.budget_text;
  config["io"] = engine.io;
  config["ctx_size"] = engine.context;
  config["threads"] = engine.threads;
  config["batch_size"] = engine.batch;
  config["kv_type"] = engine.kv_type;
  config["simd"] = engine.simd;
  config["sparsity"] = engine.sparsity;
  if (engine.max_skipped > 0) config["max_skipped"] = engine.max_skipped;
  config["window"] = WindowText(engine.window);
  config["neuron_reads"] = engine.neuron_reads;
  if (!engine.device_profile.empty()) {
    config["device_profile"] = engine.device_profile;
  }
  config["allow_unenforced"] = engine.allow_unenforced;
  config["cgroup"] = args.cgroup;
  config["cache_state"] = args.cache_state.empty() ? "as-is" : args.cache_state;
  config["warmup"] = plan.args.warms_up;
  config["interleave"] = args.interleave;
  config["repetitions"] = args.repetitions;
}

// What is known of a row and of the machine, whatever comes of it.
Json DescribeRow(const RowPlan& plan, const BenchArgs& args) {
  Json row = EmptyRow();
  const EngineArgs& engine = plan.args.engine;
  row["model_path"] = engine.model;
  if (plan.model_facts.is_object()) row.update(plan.model_facts);
  row["io_backend"] = engine.io;
  row["n_prompt"] = plan.args.n_prompt;
  row["n_gen"] = plan.args.n_gen;
  row["n_repetitions"] = plan.args.repetitions;
  row["kv_type"] = engine.kv_type;
  if (plan.budget_bytes != kUnlimitedBytes) {
    row["mem_budget_bytes"] = plan.budget_bytes;
  }
  if (!plan.ablation.empty()) row["ablation"] = plan.ablation;
  row["test_time"] = Now();
  row["version"] = FLASHELM_VERSION;
  row["build_commit"] = OrNull(BuildCommit());
  if (!args.command.empty()) row["command"] = args.command;
  row["cpu"] = OrNull(CpuName());
  row["kernel"] = OrNull(KernelName());
  row["fs_type"] = OrNull(FileSystemType(engine.model));
  const auto device = BlockDeviceOf(engine.model);
  row["block_device"] = OrNull(device);
  row["storage_model"] = device ? OrNull(StorageModel(*device)) : Json(nullptr);
  row["mem_available_bytes"] = OrNull(AvailableMemoryBytes());
  row["cgroup_limit_bytes"] = OrNull(MemoryCgroupLimitBytes());
  AddConfig(plan, args, row["config"]);
  return row;
}

// What was asked for, and whether it is so.
std::string CacheState(const std::string& wanted, const RowPlan& plan,
                       const Status& prepared, bool is_so) {
  if (is_so) return wanted;
  std::fprintf(stderr, "flashelm: %s: --cache-state %s: %s\n",
               plan.name.c_str(), wanted.c_str(),
               !prepared.ok()     ? prepared.message().c_str()
               : wanted == "cold" ? "pages of the model file stayed in the "
                                    "page cache, or the system does not tell"
                                  : "not all of the model file stayed in the "
                                    "page cache, or the system does not tell");
  return wanted + "-incomplete";
}

Status PreparePageCache(const RowPlan& plan, const BenchArgs& args,
                        const CancelToken& cancel, Json& row) {
  const std::string& path = plan.args.engine.model;
  std::string state = "as-is";
  std::optional<uint64_t> cached;
  if (args.cache_state == "cold") {
    const Status dropped = DropPageCache(path);
    cached = CachedBytes(path);
    state = CacheState("cold", plan, dropped, cached == 0u);
  } else if (args.cache_state == "warm") {
    const Status filled = FillPageCache(path, cancel);
    if (filled.code() == StatusCode::kCancelled) return filled;
    cached = CachedBytes(path);
    const auto size = FileBytes(path);
    state = CacheState("warm", plan, filled,
                       filled.ok() && cached && size && *cached >= *size);
  } else if (args.cgroup) {
    // What others had read would not be charged to the cgroup.
    if (DropPageCache(path).ok()) state = "dropped";
    cached = CachedBytes(path);
  } else {
    cached = CachedBytes(path);
  }
  row["cache_state"] = state;
  row["cached_bytes"] = OrNull(cached);
  return OkStatus();
}

// Runs a row's child in a cgroup of its budget, as far as the system lets us,
// and without one otherwise, which the record and a note say.
Result<ChildResult> RunInCgroup(
    const RowPlan& plan, const std::function<void(uint32_t)>& repetition_done,
    const CancelToken& cancel, Json& usage) {
  // A budget that is too small is refused with a figure. Inside the cgroup, the
  // kernel would be faster.
  FLASHELM_ASSIGN_OR_RETURN(
      ChildResult checked,
      RunInChild(
          [&] {
            const Status status = CheckRow(plan.args);
            return status.ok() ? "" : ToMessage(Unexpected(status));
          },
          [](pid_t) {}, cancel));
  if (!checked.message.empty()) return checked;

  auto cgroup = MemoryCgroup::Create(plan.budget_bytes);
  Status limited = cgroup ? OkStatus() : cgroup.error();
  auto child = RunInChild(
      [&] { return MeasureToMessage(plan.args, repetition_done, cancel); },
      [&](pid_t pid) {
        if (limited.ok()) limited = cgroup->Add(pid);
        if (limited.ok()) return;
        std::fprintf(stderr,
                     "flashelm: --cgroup: this row runs without a limit: "
                     "%s\n",
                     limited.message().c_str());
      },
      cancel);
  if (limited.ok()) usage = UsageToJson(cgroup->usage());
  return child;
}

}  // namespace

BenchRow FailedRow(const RowPlan& plan, const BenchArgs& args, Status status) {
  BenchRow row = {DescribeRow(plan, args), std::move(status)};
  row.json["error"] = row.status.message();
  return row;
}

Result<BenchRow> MeasureInChild(
    const RowPlan& plan, const BenchArgs& args,
    const std::function<void(uint32_t)>& repetition_done,
    const CancelToken& cancel) {
  BenchRow row = {DescribeRow(plan, args), OkStatus()};
  FLASHELM_RETURN_IF_ERROR(PreparePageCache(plan, args, cancel, row.json));
  Json usage = nullptr;
  FLASHELM_ASSIGN_OR_RETURN(
      const ChildResult child,
      args.cgroup
          ? RunInCgroup(plan, repetition_done, cancel, usage)
          : RunInChild(
                [&] {
                  return MeasureToMessage(plan.args, repetition_done, cancel);
                },
                [](pid_t) {}, cancel));
  row.json["cgroup"] = usage;
  if (usage.is_object()) {
    row.json["cgroup_limit_bytes"] = usage["limit_bytes"];
  }
  Json message = Json::parse(child.message, nullptr, false);
  if (!message.contains("row")) {
    row.status = ErrorOf(message, child, usage);
    row.json["error"] = row.status.message();
    return row;
  }
  for (auto& [key, value] : message["row"].items()) {
    if (key == "config") {
      row.json["config"].update(value);
    } else {
      row.json[key] = std::move(value);
    }
  }
  return row;
}

}  // namespace flashelm::cli
