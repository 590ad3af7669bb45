#include "cli/bench_child.h"

#include <signal.h>

#include <cstdio>
#include <cstring>
#include <new>
#include <optional>
#include <utility>

#include "cli/child_process.h"
#include "cli/machine.h"
#include "cli/memory_cgroup.h"
#include "core/base/format.h"
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

std::string MeasureToMessage(const BenchRowArgs& args,
                             const CancelToken& cancel) {
  try {
    return ToMessage(MeasureRow(args, cancel));
  } catch (const std::bad_alloc&) {
    return ToMessage(ResourceExhausted("out of memory"));
  }
}

Json UsageToJson(const MemoryCgroup::Usage& usage) {
  Json json;
  json["version"] = usage.version;
  json["limit_bytes"] = OrNull(usage.limit_bytes);
  json["peak_bytes"] = OrNull(usage.peak_bytes);
  json["limit_hits"] = OrNull(usage.limit_hits);
  json["oom_kills"] = OrNull(usage.oom_kills);
  return json;
}

// A row's record, and its error where it has one.
struct Row {
  Json json;
  Status status;
};

// What the child sent, or what can be said when it did not.
Row ReadRow(const RowPlan& plan, const ChildResult& child, const Json& cgroup) {
  Row row;
  row.json = EmptyRow();
  Json message = Json::parse(child.message, nullptr, false);
  if (message.contains("row")) {
    row.json = std::move(message["row"]);
    return row;
  }
  row.json["model_path"] = plan.args.engine.model;
  row.json["io_backend"] = plan.args.engine.io;
  row.json["n_prompt"] = plan.args.n_prompt;
  row.json["n_gen"] = plan.args.n_gen;
  row.json["n_repetitions"] = plan.args.repetitions;
  if (plan.budget_bytes != kUnlimitedBytes) {
    row.json["mem_budget_bytes"] = plan.budget_bytes;
  }
  if (message.contains("error")) {
    row.status = Status(message["code"].get<StatusCode>(),
                        message["error"].get<std::string>());
  } else if (child.signal == SIGKILL && cgroup.is_object() &&
             cgroup["oom_kills"].is_number() && cgroup["oom_kills"] > 0) {
    row.status = ResourceExhausted(
        "killed by the kernel: more memory than the cgroup of the budget's "
        "size allows");
  } else if (child.signal == SIGKILL) {
    row.status =
        ResourceExhausted("killed, which the kernel does when memory runs out");
  } else if (child.signal != 0) {
    row.status = Internal("ended by signal ", child.signal, " (",
                          strsignal(child.signal), ")");
  } else {
    row.status = Internal("ended without a result");
  }
  return row;
}

// Runs a row's child in a cgroup of its budget, as far as the system lets us,
// and without one otherwise, which the record and a note say.
Result<ChildResult> RunInCgroup(const RowPlan& plan, const CancelToken& cancel,
                                Json& usage) {
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
      [&] { return MeasureToMessage(plan.args, cancel); },
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

Result<Row> MeasureInChild(const RowPlan& plan, bool wants_cgroup,
                           const CancelToken& cancel) {
  const bool is_cold = DropPageCache(plan.args.engine.model);
  const auto available = AvailableMemoryBytes();
  Json usage = nullptr;
  FLASHELM_ASSIGN_OR_RETURN(
      const ChildResult child,
      wants_cgroup
          ? RunInCgroup(plan, cancel, usage)
          : RunInChild([&] { return MeasureToMessage(plan.args, cancel); },
                       [](pid_t) {}, cancel));
  Row row = ReadRow(plan, child, usage);
  row.json["cgroup"] = usage;
  row.json["version"] = FLASHELM_VERSION;
  row.json["cpu"] = OrNull(CpuName());
  row.json["block_device"] = OrNull(BlockDeviceOf(plan.args.engine.model));
  row.json["mem_available_bytes"] = OrNull(available);
  row.json["page_cache_dropped"] = is_cold;
  if (!plan.ablation.empty()) row.json["ablation"] = plan.ablation;
  row.json["error"] =
      row.status.ok() ? Json(nullptr) : Json(row.status.message());
  return row;
}

}  // namespace

Result<uint32_t> BenchContext(const BenchArgs& args,
                              const ModelConfig& config) {
  if (args.n_prompt == 0 && args.n_gen == 0) {
    return InvalidArgument("-p 0 and -n 0 leave nothing to measure");
  }
  const uint64_t positions = uint64_t{args.n_prompt} + args.n_gen;
  const uint32_t max_context = config.max_context;
  if (args.engine.context > max_context) {
    return InvalidArgument("-c ", args.engine.context,
                           ": the model was made for ", max_context,
                           " positions");
  }
  const uint64_t most =
      args.engine.context != 0 ? args.engine.context : max_context;
  if (positions > most) {
    return InvalidArgument("-p ", args.n_prompt, " and -n ", args.n_gen,
                           " take ", positions,
                           " positions, but the context holds ", most);
  }
  return args.engine.context != 0 ? args.engine.context
                                  : static_cast<uint32_t>(positions);
}

Status MeasureRows(std::span<const RowPlan> plans, bool wants_cgroup,
                   const BenchOutput& output, const CancelToken& cancel) {
  Status stopped;
  std::optional<Status> first_error;
  size_t num_failed = 0;
  size_t num_rows = 0;
  for (const RowPlan& plan : plans) {
    auto row = MeasureInChild(plan, wants_cgroup, cancel);
    if (!row) {
      stopped = std::move(row.error());
      break;
    }
    // A terminal interrupts both processes, and the child may be first.
    if (row->status.code() == StatusCode::kCancelled) {
      stopped = std::move(row->status);
      break;
    }
    if (!row->status.ok()) {
      ++num_failed;
      std::fprintf(stderr, "flashelm: %s: %s\n", plan.name.c_str(),
                   row->status.message().c_str());
      if (!first_error) first_error = row->status;
    }
    if (output.is_json) {
      fmt::print("{}{}", num_rows == 0 ? "[\n" : ",\n", Dump(row->json, 2));
    } else {
      output.show(plan, row->json);
    }
    std::fflush(stdout);
    ++num_rows;
  }
  if (output.is_json) fmt::print("{}]\n", num_rows == 0 ? "[" : "\n");
  FLASHELM_RETURN_IF_ERROR(stopped);
  if (!first_error) return OkStatus();
  return Status(first_error->code(),
                StatusMessage::Join(num_failed, " of ", plans.size(),
                                    " rows failed, the first as said above"));
}

}  // namespace flashelm::cli
