#include <algorithm>
#include <cmath>
#include <utility>

#include "cli/charts.h"
#include "cli/report_figures.h"
#include "cli/report_table.h"
#include "core/base/format.h"

namespace flashelm::cli {
namespace {

// "12.3 ± 0.4"
std::string RateText(const ReportRow& row) {
  const auto rate = row.Number("avg_ts");
  const auto deviation = row.Number("stddev_ts");
  if (!rate) return "not measured";
  return deviation ? fmt::format("{} \u00b1 {}", ShortNumber(*rate),
                                 ShortNumber(*deviation))
                   : ShortNumber(*rate);
}

void AddRow(const ReportRow& row, LineChart& chart) {
  if (chart.series.empty() || chart.series.back().name != row.mode) {
    chart.series.emplace_back().name = row.mode;
  }
  LineChart::Series& series = chart.series.back();
  if (!row.is_held) series.is_hollow = true;
  if (!row.budget_bytes) return;  // In the table alone.
  std::string title = row.mode + ", " + row.budget + ": ";
  if (row.has_failed()) {
    series.failures.push_back({*row.budget_bytes, title + row.error});
  } else if (const auto rate = row.Number("avg_ts")) {
    Append(title, "{} tokens/s", RateText(row));
    series.points.push_back({*row.budget_bytes, *rate,
                             row.Number("stddev_ts").value_or(0),
                             std::move(title)});
  }
}

// For who does not see the lines.
std::string Describe(const LineChart& chart) {
  std::string text;
  for (const LineChart::Series& series : chart.series) {
    text += series.name + ": ";
    if (series.points.empty()) {
      text += "no row was measured. ";
      continue;
    }
    const LineChart::Point& first = series.points.front();
    const LineChart::Point& last = series.points.back();
    text += fmt::format("{} tokens per second at {}", ShortNumber(first.y),
                        SizeText(first.x));
    if (series.points.size() > 1) {
      text += fmt::format(", {} at {}", ShortNumber(last.y), SizeText(last.x));
    }
    text += ". ";
  }
  return text + "All values are in the table below.";
}

void AddBound(const ReportTest& test, LineChart& chart) {
  constexpr int kSteps = 96;
  double least = INFINITY;
  double most = 0;
  bool has_exact = false;
  for (const ReportRow& row : test.rows) {
    if (row.has_failed() || !row.budget_bytes) continue;
    has_exact |= row.BoundOfSpeed().has_value();
    least = std::min(least, *row.budget_bytes);
    most = std::max(most, *row.budget_bytes);
  }
  if (!has_exact) return;
  // Of a single budget, something to see.
  if (least == most) {
    least *= 0.93;
    most *= 1.07;
  }
  for (int i = 0; i <= kSteps; ++i) {
    const double budget = least + (most - least) * i / kSteps;
    const auto rate = test.bound.TokensPerSecond(budget);
    if (rate) chart.bound.push_back({budget, *rate});
  }
  chart.bound_name = "bound of exact decoding";
}

std::string BoundText(const SpeedBound& bound,
                      const std::optional<FlashRate>& flash) {
  std::string text;
  Append(text, "The bound: a token takes {} of weights through the processor",
         SizeText(bound.weight_bytes));
  if (bound.ram_bytes_per_second) {
    Append(text, ", at {} GB/s, the fastest that any exact row had",
           ShortNumber(*bound.ram_bytes_per_second / 1e9));
  }
  if (!flash) {
    return text + ". No row read from flash, so that side is not known.";
  }
  Append(text, ", and what is not in RAM from flash, at {} GB/s, {}. ",
         ShortNumber(flash->bytes_per_second / 1e9),
         flash->is_of_profile
             ? "the sequential rate of the device profile"
             : "the fastest that any row read (no device profile was given, "
               "or it has less)");
  if (!bound.fixed_bytes) {
    return text +
           "No row says how much of a budget is weights, so the line is that "
           "of RAM alone.";
  }
  Append(text, "{} of each budget hold no weights.",
         SizeText(*bound.fixed_bytes));
  return text;
}

std::string CaptionOf(const ReportTest& test, bool has_bound,
                      const std::optional<FlashRate>& flash) {
  std::string text =
      "Higher is better. Points are means of the repetitions, bars one "
      "standard "
      "deviation. ";
  text += has_bound ? BoundText(test.bound, flash)
                    : "There is no line for the bound, which is one of exact "
                      "rows that generate "
                      "and do nothing else.";
  bool is_held = true;
  bool has_sparse = false;
  for (const ReportRow& row : test.rows) {
    is_held &= row.is_held;
    has_sparse |= !row.is_exact;
  }
  if (has_sparse && has_bound) {
    text += " Rows that leave neurons out may lie above it.";
  }
  if (!is_held) {
    text +=
        " Hollow marks: nothing holds the budget, and weights may all lie in "
        "the page cache, so they may lie above any bound of flash.";
  }
  return text;
}

constexpr ReportColumn kColumns[] = {
    {"Tokens/s", "avg_ts", CellKind::kNumber},
    {"Deviation", "stddev_ts", CellKind::kNumber},
    {"Bound", "bound_tps", CellKind::kNumber},
    {"Of bound", "of_bound", CellKind::kPercent},
    {"Peak RAM", "peak_rss_bytes", CellKind::kBytes},
    {"Budget held", "held", CellKind::kText}};

}  // namespace

void AddSpeedFigures(const ReportRows& rows, HtmlPage& page) {
  page.BeginSection("speed", "Speed against RAM");
  int index = 0;
  for (const ReportModel& model : rows.models()) {
    for (const ReportTest& test : model.tests) {
      LineChart chart;
      chart.x_title = "RAM budget";
      chart.y_title = "tokens per second";
      for (const ReportRow& row : test.rows) AddRow(row, chart);
      for (LineChart::Series& series : chart.series) {
        if (series.is_hollow) series.name += " (budget not held)";
      }
      AddBound(test, chart);
      if (model.file_bytes) {
        chart.mark_x = model.file_bytes;
        chart.mark_name = "model file, " + SizeText(*model.file_bytes);
      }
      const std::string heading = model.name + ", " + test.name;
      const std::string name = heading + ": tokens per second";
      chart.text = {"speed-" + std::to_string(++index), name, Describe(chart)};
      page.AddHeading(heading);
      page.AddFigure(
          chart.Render(), name,
          CaptionOf(test, !chart.bound.empty(), rows.flash()),
          MakeReportTable(
              name,
              ChooseRows(test.rows, [](const ReportRow&) { return true; }),
              kColumns),
          chart.text.id + ".csv");
    }
  }
}

}  // namespace flashelm::cli
