#include "cli/bench_rows.h"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <utility>

#include "cli/bench_child.h"
#include "cli/bench_format.h"
#include "cli/bench_record.h"
#include "cli/build_info.h"
#include "cli/machine.h"
#include "cli/terminal.h"
#include "core/base/format.h"
#include "core/simd.h"

namespace flashelm::cli {
namespace {

// Runs the parts of all rows, and puts them together.
class RowRunner {
 public:
  RowRunner(const BenchArgs& args, const std::vector<RowPlan>& plans,
            uint32_t num_parts, BenchOutputs& outputs, TextSpool parts,
            const CancelToken& cancel)
      : args_(args),
        plans_(plans),
        num_parts_(num_parts),
        outputs_(outputs),
        parts_(std::move(parts)),
        cancel_(cancel),
        rows_(plans.size()) {}

  // All of a row, then the next.
  Status RunInOrder() {
    for (size_t row = 0; row < plans_.size(); ++row) {
      for (uint32_t part = 0; part < num_parts_; ++part) {
        FLASHELM_RETURN_IF_ERROR(RunPart(row));
      }
      FLASHELM_RETURN_IF_ERROR(FinishRow(row));
    }
    return OkStatus();
  }

  // The first part of all rows, then the second.
  Status RunInTurn() {
    for (uint32_t part = 0; part < num_parts_; ++part) {
      for (size_t row = 0; row < plans_.size(); ++row) {
        FLASHELM_RETURN_IF_ERROR(RunPart(row));
      }
    }
    return FinishAll();
  }

  // Rows that were begun.
  Status FinishAll() {
    for (size_t row = 0; row < plans_.size(); ++row) {
      FLASHELM_RETURN_IF_ERROR(FinishRow(row));
    }
    return OkStatus();
  }

  // Of the rows, when all were measured.
  Status status() const {
    if (!first_error_) return OkStatus();
    return Status(first_error_->code(),
                  StatusMessage::Join(num_failed_, " of ", plans_.size(),
                                      " rows failed, the first as said above"));
  }

  void ClearProgress() { bar_.Clear(); }

 private:
  struct RowState {
    std::vector<size_t> parts;  // Of the spool.
    bool has_failed = false;    // The last part is why.
    bool is_finished = false;
  };

  void ShowProgress(uint64_t num_repetitions) {
    bar_.Show("measuring", num_repetitions,
              uint64_t{args_.repetitions} * plans_.size());
  }

  Status RunPart(size_t index) {
    const RowPlan& plan = plans_[index];
    RowState& state = rows_[index];
    ShowProgress(num_done_);
    const uint64_t before = num_done_;
    num_done_ += plan.args.repetitions;
    if (state.has_failed) return OkStatus();
    BenchRow row;
    if (!plan.refused.ok()) {
      row = FailedRow(plan, args_, plan.refused);
    } else {
      FLASHELM_ASSIGN_OR_RETURN(
          row,
          MeasureInChild(
              plan, args_, [&](uint32_t done) { ShowProgress(before + done); },
              cancel_));
    }
    // A terminal interrupts both processes, and the child may be first.
    if (row.status.code() == StatusCode::kCancelled) {
      return std::move(row.status);
    }
    if (!row.status.ok()) Fail(plan, row.status, state);
    state.parts.push_back(parts_.size());
    return parts_.Append(Dump(row.json, -1));
  }

  void Fail(const RowPlan& plan, const Status& status, RowState& state) {
    state.has_failed = true;
    ++num_failed_;
    bar_.Clear();
    std::fprintf(stderr, "flashelm: %s: %s\n", plan.name.c_str(),
                 status.message().c_str());
    if (!first_error_) first_error_ = status;
  }

  Status FinishRow(size_t index) {
    RowState& state = rows_[index];
    if (state.is_finished || state.parts.empty()) return OkStatus();
    state.is_finished = true;
    // A figure of some of the repetitions would pass for one of all.
    if (state.has_failed) state.parts = {state.parts.back()};
    std::vector<Json> parts;
    for (const size_t part : state.parts) {
      FLASHELM_ASSIGN_OR_RETURN(const std::string text, parts_.Read(part));
      parts.push_back(Json::parse(text));
    }
    Json row = MergeParts(parts);
    AddDerivedKeys(row);
    bar_.Clear();
    return outputs_.Add(row);
  }

  const BenchArgs& args_;
  const std::vector<RowPlan>& plans_;
  const uint32_t num_parts_;
  BenchOutputs& outputs_;
  TextSpool parts_;
  const CancelToken& cancel_;
  std::vector<RowState> rows_;
  std::optional<Status> first_error_;
  size_t num_failed_ = 0;
  uint64_t num_done_ = 0;
  ProgressBar bar_;
};

}  // namespace

std::string WhoMeasures() {
  return fmt::format("flashelm {} ({}), {}, {}", FLASHELM_VERSION,
                     BuildCommit().value_or("unknown commit"), SimdTargetName(),
                     CpuName().value_or("unknown processor"));
}

Status MeasureRows(const BenchArgs& args, std::vector<RowPlan> plans,
                   std::string title,
                   std::vector<MarkdownTable::Column> columns) {
  if (args.cgroup) {
    columns.push_back({"cgroup peak", 11, [](const Json& row) {
                         const Json& cgroup = row["cgroup"];
                         return cgroup.is_object()
                                    ? BytesCell(cgroup["peak_bytes"])
                                    : std::string("-");
                       }});
  }
  std::vector<std::string> inputs;
  for (const RowPlan& plan : plans) inputs.push_back(plan.args.engine.model);
  FLASHELM_ASSIGN_OR_RETURN(
      BenchOutputs outputs,
      BenchOutputs::Create(args.outputs, args.html, inputs, std::move(title),
                           MarkdownTable(std::move(columns))));
  FLASHELM_ASSIGN_OR_RETURN(TextSpool parts, TextSpool::Create());
  const bool is_cold = args.cache_state == "cold";
  const bool has_parts = args.interleave || is_cold;
  for (RowPlan& plan : plans) {
    plan.args.repetitions = has_parts ? 1 : args.repetitions;
    // It would leave in RAM what is to be read.
    plan.args.warms_up = !args.no_warmup && !is_cold;
  }
  RowRunner runner(args, plans, has_parts ? args.repetitions : 1, outputs,
                   std::move(parts), InterruptToken());
  outputs.Begin();
  const Status measured =
      args.interleave ? runner.RunInTurn() : runner.RunInOrder();
  runner.ClearProgress();
  if (measured.code() == StatusCode::kCancelled) {
    FLASHELM_RETURN_IF_ERROR(runner.FinishAll());
  }
  FLASHELM_RETURN_IF_ERROR(outputs.Finish());
  FLASHELM_RETURN_IF_ERROR(measured);
  return runner.status();
}

}  // namespace flashelm::cli
