#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/bench_row.h"
#include "cli/child_process.h"
#include "cli/engine_setup.h"
#include "cli/machine.h"
#include "cli/memory_cgroup.h"
#include "cli/record.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "core/base/format.h"
#include "core/base/process_memory.h"
#include "core/simd.h"

namespace flashelm::cli {
namespace {

// "a,b" as {"a", "b"}. kInvalidArgument: nothing between two commas.
Result<std::vector<std::string>> SplitList(const std::string& text,
                                           std::string_view flag) {
  std::vector<std::string> items;
  size_t begin = 0;
  while (true) {
    const size_t end = std::min(text.find(',', begin), text.size());
    if (end == begin) {
      return InvalidArgument(flag, ": \"", text,
                             "\" is no list; expected values with single "
                             "commas between them");
    }
    items.push_back(text.substr(begin, end - begin));
    if (end == text.size()) return items;
    begin = end + 1;
  }
}

// One row to come.
struct RowPlan {
  BenchRowArgs args;
  std::string budget_text;  // As it was asked for.
  uint64_t budget_bytes = kUnlimitedBytes;
};

// Checks all of the command line, so that a long benchmark does not end at a
// slip in its last row.
Result<std::vector<RowPlan>> PlanRows(const BenchArgs& args) {
  FLASHELM_ASSIGN_OR_RETURN(const std::vector<std::string> budgets,
                            SplitList(args.engine.mem_budget, "--mem-budget"));
  FLASHELM_ASSIGN_OR_RETURN(const std::vector<std::string> backends,
                            SplitList(args.engine.io, "--io"));
  const auto num_mmap = std::count(backends.begin(), backends.end(), "mmap");
  const bool is_all_mmap = num_mmap == std::ssize(backends);
  if (args.n_prompt == 0 && args.n_gen == 0) {
    return InvalidArgument("-p 0 and -n 0 leave nothing to measure");
  }
  FLASHELM_ASSIGN_OR_RETURN(const ModelFile model,
                            ModelFile::Open(args.engine.model));
  const uint64_t positions = uint64_t{args.n_prompt} + args.n_gen;
  const uint32_t max_context = model.config().max_context;
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
  std::vector<RowPlan> rows;
  for (const std::string& budget : budgets) {
    for (const std::string& io : backends) {
      RowPlan row;
      row.args.engine = args.engine;
      row.args.n_prompt = args.n_prompt;
      row.args.n_gen = args.n_gen;
      row.args.repetitions = args.repetitions;
      EngineArgs& engine = row.args.engine;
      engine.io = io;
      engine.allow_unenforced =
          args.engine.allow_unenforced && (io == "mmap" || num_mmap == 0);
      if (io == "mmap" && !is_all_mmap) engine.device_profile.clear();
      if (engine.context == 0) {
        engine.context = static_cast<uint32_t>(positions);
      }
      row.budget_text = budget;
      engine.mem_budget = budget;
      FLASHELM_ASSIGN_OR_RETURN(const EngineSetup setup,
                                SetUpEngine(model, engine, {}));
      row.budget_bytes = setup.options.plan.budget_bytes;
      if (row.budget_bytes != kUnlimitedBytes) {
        engine.mem_budget = std::to_string(row.budget_bytes);
      }
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

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
  row.json["error"] =
      row.status.ok() ? Json(nullptr) : Json(row.status.message());
  return row;
}

// A table in Markdown, whose rows appear as they are measured.
class Table {
 public:
  explicit Table(bool has_cgroup) {
    columns_ = {{"budget", 10},       {"io", 6},         {"peak RAM", 10},
                {"prompt tok/s", 12}, {"tok/s", 8},      {"p50 ms", 8},
                {"p95 ms", 8},        {"flash/tok", 10}, {"bound", 10},
                {"kernel/tok", 10},   {"GB/s", 5},       {"wait ms", 8},
                {"compute ms", 10}};
    if (has_cgroup) columns_.push_back({"cgroup peak", 11});
  }

  void PrintHead() const {
    std::vector<std::string> names;
    std::string rule = "|";
    for (const Column& column : columns_) {
      names.push_back(column.name);
      rule += std::string(column.width + 1, '-') + ":|";
    }
    PrintCells(names);
    fmt::print("{}\n", rule);
  }

  void PrintRow(const RowPlan& plan, const Row& row) const {
    const Json& json = row.json;
    std::vector<std::string> cells = {
        plan.budget_text,
        json["io_backend"].is_string() ? json["io_backend"].get<std::string>()
                                       : plan.args.engine.io,
        Bytes(json["peak_rss_bytes"]),
        Number(json["prompt_tps"], 1),
        Number(json["gen_tps"], 2),
        Number(json["itl_p50_ms"], 1),
        Number(json["itl_p95_ms"], 1),
        Bytes(json["flash_bytes_per_token"]),
        Bytes(json["flash_bytes_bound_per_token"]),
        Bytes(json["kernel_read_bytes_per_token"]),
        Number(json["flash_read_gbps"], 2),
        Number(json["io_wait_ms"], 1),
        Number(json["compute_ms"], 1)};
    const Json& cgroup = json["cgroup"];
    cells.push_back(cgroup.is_object() ? Bytes(cgroup["peak_bytes"]) : "-");
    cells.resize(columns_.size());
    PrintCells(cells);
    std::fflush(stdout);
  }

 private:
  struct Column {
    const char* name;
    int width;
  };

  static std::string Number(const Json& value, int digits) {
    return value.is_number()
               ? fmt::format("{:.{}f}", value.get<double>(), digits)
               : "-";
  }
  static std::string Bytes(const Json& value) {
    return value.is_number()
               ? FormatBytes(static_cast<uint64_t>(value.get<double>()))
               : "-";
  }
  void PrintCells(const std::vector<std::string>& cells) const {
    for (size_t i = 0; i < columns_.size(); ++i) {
      fmt::print("| {:>{}} ", cells[i], columns_[i].width);
    }
    fmt::print("|\n");
  }

  std::vector<Column> columns_;
};

}  // namespace

Status RunBench(const BenchArgs& args) {
  const CancelToken& cancel = InterruptToken();
  FLASHELM_ASSIGN_OR_RETURN(const std::vector<RowPlan> plans, PlanRows(args));
  const bool is_json = args.format == "json";
  const Table table(args.cgroup);
  if (!is_json) {
    fmt::print(
        "{}: prompt of {} tokens, then {}, {} repetitions; flashelm {}, {}, "
        "{}\n\n",
        args.engine.model, args.n_prompt, args.n_gen, args.repetitions,
        FLASHELM_VERSION, SimdTargetName(),
        CpuName().value_or("unknown processor"));
    table.PrintHead();
    std::fflush(stdout);
  }
  Status stopped;
  std::optional<Status> first_error;
  size_t num_failed = 0;
  size_t num_rows = 0;
  for (const RowPlan& plan : plans) {
    auto row = MeasureInChild(plan, args.cgroup, cancel);
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
      std::fprintf(stderr, "flashelm: --mem-budget %s --io %s: %s\n",
                   plan.budget_text.c_str(), plan.args.engine.io.c_str(),
                   row->status.message().c_str());
      if (!first_error) first_error = row->status;
    }
    // At once: what this process keeps would count in the next row's memory.
    if (is_json) {
      fmt::print("{}{}", num_rows == 0 ? "[\n" : ",\n", Dump(row->json, 2));
      std::fflush(stdout);
    } else {
      table.PrintRow(plan, *row);
    }
    ++num_rows;
  }
  if (is_json) fmt::print("{}]\n", num_rows == 0 ? "[" : "\n");
  FLASHELM_RETURN_IF_ERROR(stopped);
  if (!first_error) return OkStatus();
  return Status(first_error->code(),
                StatusMessage::Join(num_failed, " of ", plans.size(),
                                    " rows failed, the first as said above"));
}

}  // namespace flashelm::cli
