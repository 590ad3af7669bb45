#include <algorithm>
#include <span>
#include <utility>

#include "cli/charts.h"
#include "cli/report_figures.h"
#include "cli/report_table.h"
#include "core/base/format.h"

namespace flashelm::cli {
namespace {

// One bar chart for each model: which rows, and how a row becomes a bar. A bar
// of a row that was measured and has no such figure says so.
struct BarFigure {
  const char* id;
  const char* name;
  const char* axis_title;
  const char* caption;
  AxisUnit unit;
  bool may_be_log;
  std::span<const BarChart::Part> parts;
  const char* bound_name;
  const char* sample_name;
  std::span<const ReportColumn> columns;
  bool (*chooses)(const ReportRow& row);
  void (*fill)(const ReportRow& row, BarChart::Bar& bar);
};

// Parts that no bar has are not in the legend either.
void DropEmptyParts(BarChart& chart) {
  for (size_t i = chart.parts.size(); i-- > 0;) {
    bool is_used = false;
    for (const BarChart::Group& group : chart.groups) {
      for (const BarChart::Bar& bar : group.bars) {
        is_used |= i < bar.parts.size() && bar.parts[i] > 0;
      }
    }
    if (is_used) continue;
    const auto at = static_cast<std::ptrdiff_t>(i);
    chart.parts.erase(chart.parts.begin() + at);
    for (BarChart::Group& group : chart.groups) {
      for (BarChart::Bar& bar : group.bars) {
        if (i < bar.parts.size()) bar.parts.erase(bar.parts.begin() + at);
      }
    }
  }
}

bool HasBounds(const BarChart& chart) {
  for (const BarChart::Group& group : chart.groups) {
    for (const BarChart::Bar& bar : group.bars) {
      if (bar.bound) return true;
    }
  }
  return false;
}

void AddBars(const ReportRows& rows, const BarFigure& figure, HtmlPage& page) {
  int index = 0;
  for (const ReportModel& model : rows.models()) {
    const ChosenRows chosen = ChooseRows(model.rows, figure.chooses);
    const bool is_measured =
        std::any_of(chosen.begin(), chosen.end(),
                    [](const ReportRow* row) { return !row->has_failed(); });
    if (!is_measured) continue;
    BarChart chart;
    chart.axis_title = figure.axis_title;
    chart.unit = figure.unit;
    chart.may_be_log = figure.may_be_log;
    chart.parts.assign(figure.parts.begin(), figure.parts.end());
    chart.sample_name = figure.sample_name;
    std::string description;
    for (const ReportRow* row : chosen) {
      std::string heading = row->mode;
      if (model.tests.size() > 1) heading = row->test + ": " + heading;
      if (chart.groups.empty() || chart.groups.back().heading != heading) {
        chart.groups.push_back({std::move(heading), {}});
      }
      BarChart::Bar bar;
      bar.label = row->budget;
      if (!row->has_failed()) {
        figure.fill(*row, bar);
        if (bar.value.empty()) bar.missing = "not known";
      } else {
        bar.missing = "failed: " + row->error;
      }
      const std::string& text = bar.missing.empty() ? bar.value : bar.missing;
      bar.title = row->mode + ", " + row->budget + ": " + text;
      description += bar.title + ". ";
      chart.groups.back().bars.push_back(std::move(bar));
    }
    DropEmptyParts(chart);
    if (HasBounds(chart)) chart.bound_name = figure.bound_name;
    const std::string name = model.name + ": " + figure.name;
    chart.text = {fmt::format("{}-{}", figure.id, ++index), name, description};
    if (index == 1) page.BeginSection(figure.id, figure.name);
    page.AddHeading(model.name);
    page.AddFigure(chart.Render(), name, figure.caption,
                   MakeReportTable(name, chosen, figure.columns),
                   chart.text.id + ".csv");
  }
}

bool Generates(const ReportRow& row) { return row.generates(); }

void FillTime(const ReportRow& row, BarChart::Bar& bar) {
  const auto inside = row.Number("ms_per_token");
  if (!inside) return;
  const double overhead = row.Number("overhead_ms").value_or(0);
  const auto compute = row.Number("compute_ms");
  bar.parts = {compute.value_or(0), row.Number("io_wait_ms").value_or(0),
               row.Number("memory_ms").value_or(0), overhead,
               compute ? 0 : *inside};
  bar.value = ShortNumber(*inside + overhead) + " ms";
}

void FillFlash(const ReportRow& row, BarChart::Bar& bar) {
  const auto engine = row.Number("flash_bytes_per_token");
  const auto kernel = row.Number("kernel_read_bytes_per_token");
  bar.bound = row.Number("flash_bytes_bound_per_token");
  if (!engine && !kernel) return;
  bar.parts = {engine.value_or(0), engine ? 0 : *kernel};
  bar.value = SizeText(engine ? *engine : *kernel);
}

void FillFirstToken(const ReportRow& row, BarChart::Bar& bar) {
  const auto median = row.Number("ttft_ms");
  if (!median) return;
  bar.parts = {*median};
  for (const auto& sample : FindNumbers(*row.record, "ttft_samples")) {
    if (sample) bar.samples.push_back(*sample);
  }
  bar.value = "median " + ShortNumber(*median) + " ms";
}

void FillLatency(const ReportRow& row, BarChart::Bar& bar) {
  std::vector<double> samples;
  for (const auto& sample : FindNumbers(*row.record, "samples")) {
    if (sample) samples.push_back(*sample);
  }
  if (samples.empty()) return;
  const auto at = [&](double part) { return *Percentile(samples, part); };
  bar.box = {at(0), at(0.25), at(0.5), at(0.75), at(0.9), at(0.99), at(1)};
  bar.value = "median " + ShortNumber(bar.box->median) + " ms";
}

constexpr BarChart::Part kTimeParts[] = {
    {"computing", 0},
    {"waiting for flash", 1},
    {"keeping neurons", 2},
    {"overhead outside the engine", 3},
    {"not split (mmap: faults are part of computing)", 4}};
constexpr ReportColumn kTimeColumns[] = {
    {"Computing ms", "compute_ms", CellKind::kNumber},
    {"Waiting ms", "io_wait_ms", CellKind::kNumber},
    {"Keeping ms", "memory_ms", CellKind::kNumber},
    {"Overhead ms", "overhead_ms", CellKind::kNumber},
    {"In the engine ms", "ms_per_token", CellKind::kNumber},
    {"Reading ms", "io_busy_ms", CellKind::kNumber},
    {"Processors busy", "cpu_util", CellKind::kNumber}};

constexpr BarChart::Part kFlashParts[] = {{"read by the engine", 0},
                                          {"counted by the kernel", 4}};
constexpr ReportColumn kFlashColumns[] = {
    {"Read", "flash_bytes_per_token", CellKind::kBytes},
    {"Bound", "flash_bytes_bound_per_token", CellKind::kBytes},
    {"Of bound", "flash_bytes_over_bound", CellKind::kPercent},
    {"By the kernel", "kernel_read_bytes_per_token", CellKind::kBytes},
    {"GB/s", "flash_read_gbps", CellKind::kNumber},
    {"Reads", "reads_per_token", CellKind::kNumber},
    {"Major faults", "major_faults_per_token", CellKind::kNumber}};

constexpr BarChart::Part kFirstTokenParts[] = {{"median", 0}};
constexpr ReportColumn kFirstTokenColumns[] = {
    {"Prompt tokens", "n_prompt", CellKind::kNumber},
    {"First token ms", "ttft_ms", CellKind::kNumber},
    {"Prompt tokens/s", "prompt_tps", CellKind::kNumber},
    {"Loading ms", "load_ms", CellKind::kNumber}};

constexpr ReportColumn kLatencyColumns[] = {
    {"Median ms", "itl_p50_ms", CellKind::kNumber},
    {"90 % ms", "itl_p90_ms", CellKind::kNumber},
    {"95 % ms", "itl_p95_ms", CellKind::kNumber},
    {"99 % ms", "itl_p99_ms", CellKind::kNumber},
    {"Tokens a repetition", "n_gen", CellKind::kNumber},
    {"Repetitions", "n_repetitions", CellKind::kNumber}};

}  // namespace

void AddTimeFigures(const ReportRows& rows, HtmlPage& page) {
  AddBars(rows,
          {"time", "Where a token's time goes", "time per generated token",
           "Shorter is better. Where waiting for flash is the larger part, a "
           "faster device, a larger budget or a smaller encoding helps; where "
           "computing is, more cores do.",
           AxisUnit::kMilliseconds, false, kTimeParts, "", "", kTimeColumns,
           Generates, FillTime},
          page);
}

void AddFlashFigures(const ReportRows& rows, HtmlPage& page) {
  AddBars(
      rows,
      {"flash", "What a token reads from flash", "bytes per generated token",
       "Shorter is better. The bound of exact decoding is what the plan "
       "leaves on flash: a bar that ends at it reads nothing twice. With "
       "mmap the system chooses, and the kernel counts.",
       AxisUnit::kBytes, false, kFlashParts, "bound", "", kFlashColumns,
       Generates, FillFlash},
      page);
}

void AddFirstTokenFigures(const ReportRows& rows, HtmlPage& page) {
  AddBars(rows,
          {"first-token", "Time to the first token",
           "time from the prompt to the first token",
           "Shorter is better. Bars are medians of the repetitions.",
           AxisUnit::kMilliseconds, false, kFirstTokenParts, "",
           "one repetition", kFirstTokenColumns,
           [](const ReportRow& row) {
             return row.Number("n_prompt").value_or(0) > 0;
           },
           FillFirstToken},
          page);
}

void AddLatencyFigures(const ReportRows& rows, HtmlPage& page) {
  AddBars(rows,
          {"latency",
           "How evenly tokens come",
           "time from one token to the next",
           "Further left is faster, shorter is steadier. All tokens of all "
           "repetitions together; the first of each is counted from the end "
           "of the prompt.",
           AxisUnit::kMilliseconds,
           true,
           {},
           "",
           "",
           kLatencyColumns,
           Generates,
           FillLatency},
          page);
}

}  // namespace flashelm::cli
