#include "core/trace_file.h"

#include <algorithm>
#include <chrono>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/format.h"
#include "storage/output_file.h"
#include "storage/sweep_trace.h"

namespace flashelm {
namespace {

using Time = SweepTrace::Time;

// Rows are numbered by these: reads in one process, computing in another.
constexpr int kReads = 1;
constexpr int kCompute = 2;

// Lines of a JSON array, flushed to a file one by one.
class EventWriter {
 public:
  explicit EventWriter(OutputFile& file) : file_(file) {}

  template <class... Args>
  void Add(fmt::format_string<Args...> format, Args&&... args) {
    if (!status_.ok()) return;
    line_ =
        is_first_ ? "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n" : ",\n";
    is_first_ = false;
    fmt::format_to(std::back_inserter(line_), format,
                   std::forward<Args>(args)...);
    Write(line_);
  }
  Status Finish(uint64_t num_left_out) {
    Write(fmt::format("\n],\"otherData\":{{\"sweeps_left_out\":{}}}}}\n",
                      num_left_out));
    return status_;
  }

 private:
  void Write(std::string_view text) {
    if (status_.ok()) status_ = file_.Append(std::as_bytes(std::span(text)));
  }

  OutputFile& file_;
  bool is_first_ = true;
  std::string line_;
  Status status_;
};

double Microseconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double, std::micro>(time).count();
}

std::string_view StepName(SegmentKind kind) {
  switch (kind) {
    case SegmentKind::kQkv:
      return "qkv";
    case SegmentKind::kAttentionOut:
      return "attention_out";
    case SegmentKind::kFfnGate:
      return "ffn_gate";
    case SegmentKind::kFfnUp:
      return "ffn_up";
    case SegmentKind::kFfnDown:
      return "ffn_down";
    case SegmentKind::kFfn:
      return "ffn";
    default:
      return "output head";
  }
}

}  // namespace

uint64_t TraceBytes(const ModelConfig& config) {
  return SweepTrace::NumBytes(5 * size_t{config.num_layers()} + 1,
                              kMaxTraceSweeps) +
         OutputFile::kBufferBytes;
}

Status WriteTrace(const Engine& engine, const std::string& path) {
  const SweepTrace& trace = *engine.trace();
  const ResidencyPlan& plan = engine.plan().residency;
  const std::vector<Segment>& segments =
      engine.model().weight_file().segments();
  const uint32_t num_layers = engine.config().num_layers();
  const size_t num_steps = trace.num_steps();
  const uint64_t num_sweeps =
      std::min<uint64_t>(trace.num_sweeps(), trace.steps().size() / num_steps);

  Time origin = Time::max();
  for (const SweepTrace::Step& step : trace.steps()) {
    if (step.read_bytes > 0) origin = std::min(origin, step.read_begin);
    if (step.compute_end > step.compute_begin) {
      origin = std::min(origin, step.compute_begin);
    }
  }

  FLASHELM_ASSIGN_OR_RETURN(OutputFile file,
                            OutputFile::Create(path, /*expected_bytes=*/0));
  EventWriter events(file);
  for (const int process : {kReads, kCompute}) {
    events.Add(
        R"({{"ph":"M","name":"process_name","pid":{},"args":{{"name":"{}"}}}})",
        process, process == kReads ? "reads from flash" : "compute");
    for (uint32_t row = 0; row <= num_layers; ++row) {
      events.Add(
          R"({{"ph":"M","name":"thread_name","pid":{},"tid":{},"args":{{"name":"{}"}}}})",
          process, row,
          row < num_layers ? fmt::format("layer {}", row) : "output head");
    }
  }
  for (uint64_t sweep = 0; sweep < num_sweeps; ++sweep) {
    for (size_t i = 0; i < num_steps; ++i) {
      const SweepTrace::Step& step = trace.steps()[sweep * num_steps + i];
      const Segment& segment =
          segments[i < plan.sweep.size() ? plan.sweep[i] : plan.head];
      const std::string_view name = StepName(segment.kind);
      const uint32_t row = segment.layer.value_or(num_layers);
      if (step.read_bytes > 0) {
        events.Add(
            R"({{"ph":"X","name":"{}","pid":{},"tid":{},"ts":{:.3f},"dur":{:.3f},"args":{{"sweep":{},"bytes":{}}}}})",
            name, kReads, row, Microseconds(step.read_begin - origin),
            Microseconds(step.read_end - step.read_begin), sweep,
            step.read_bytes);
      }
      if (step.compute_end > step.compute_begin) {
        events.Add(
            R"({{"ph":"X","name":"{}","pid":{},"tid":{},"ts":{:.3f},"dur":{:.3f},"args":{{"sweep":{},"wait_us":{:.3f}}}}})",
            name, kCompute, row, Microseconds(step.compute_begin - origin),
            Microseconds(step.compute_end - step.compute_begin), sweep,
            Microseconds(step.wait));
      }
    }
  }
  FLASHELM_RETURN_IF_ERROR(events.Finish(trace.num_sweeps() - num_sweeps));
  return file.Commit();
}

}  // namespace flashelm
