#include <algorithm>
#include <cmath>
#include <utility>

#include "cli/chart_parts.h"
#include "cli/charts.h"

namespace flashelm::cli {
namespace {

constexpr double kBarHeight = 14;
constexpr double kValueWidth = 120;  // Behind the longest bar.

// Not finite, or below 0: nothing.
double Drawable(double value) {
  return std::isfinite(value) && value > 0 ? value : 0;
}

std::vector<double> ValuesOf(const BarChart& chart) {
  std::vector<double> values;
  for (const BarChart::Group& group : chart.groups) {
    for (const BarChart::Bar& bar : group.bars) {
      double sum = 0;
      for (const double part : bar.parts) sum += Drawable(part);
      if (sum > 0) values.push_back(sum);
      if (bar.bound) values.push_back(*bar.bound);
      values.insert(values.end(), bar.samples.begin(), bar.samples.end());
      if (bar.box) values.insert(values.end(), {bar.box->min, bar.box->max});
    }
  }
  return values;
}

void DrawBound(double x, double middle, Svg& svg) {
  svg.Line({x, middle - 10}, {x, middle + 10}, "limit");
}

void DrawBox(const BarChart::Box& box, const Axis& axis, double middle,
             Svg& svg) {
  const auto x = [&](double value) { return axis.Position(value); };
  svg.Line({x(box.min), middle}, {x(box.max), middle}, "whisker");
  for (const double end : {box.min, box.max}) {
    svg.Line({x(end), middle - 4}, {x(end), middle + 4}, "whisker");
  }
  svg.Rect({x(box.p25), middle - kBarHeight / 2}, x(box.p75) - x(box.p25),
           kBarHeight, "box");
  svg.Line({x(box.median), middle - 8}, {x(box.median), middle + 8}, "median");
  svg.Marker(2, {x(box.p90), middle}, "mark percentile");
  svg.Marker(3, {x(box.p99), middle}, "mark percentile hollow");
}

bool HasBoxes(const BarChart& chart) {
  for (const BarChart::Group& group : chart.groups) {
    for (const BarChart::Bar& bar : group.bars) {
      if (bar.box) return true;
    }
  }
  return false;
}

std::vector<LegendItem> LegendOf(const BarChart& chart) {
  static constexpr std::pair<const char*, Glyph> kOfBoxes[] = {
      {"shortest to longest", Glyph::kWhisker},
      {"middle half", Glyph::kBox},
      {"median", Glyph::kMedian},
      {"90 % are shorter", Glyph::kPercentile90},
      {"99 %", Glyph::kPercentile99}};
  std::vector<LegendItem> items;
  for (const BarChart::Part& part : chart.parts) {
    items.push_back({part.name, Glyph::kPart, part.style});
  }
  if (!chart.bound_name.empty()) {
    items.push_back({chart.bound_name, Glyph::kLimit});
  }
  if (!chart.sample_name.empty()) {
    items.push_back({chart.sample_name, Glyph::kSample});
  }
  if (!HasBoxes(chart)) return items;
  for (const auto& [name, glyph] : kOfBoxes) items.push_back({name, glyph});
  return items;
}

void DrawBar(const BarChart& chart, const BarChart::Bar& bar, const Axis& axis,
             double middle, Svg& svg) {
  if (!bar.missing.empty()) {
    const auto room =
        static_cast<size_t>((kChartWidth - axis.begin - 30) / TextWidth(1));
    svg.Cross({axis.begin + 8, middle}, "failed", bar.missing);
    svg.Text({axis.begin + 20, middle + 4}, "start", "note",
             Shorten(bar.missing, room));
    return;
  }
  double sum = 0;
  double right = axis.begin;
  for (size_t i = 0; i < bar.parts.size() && i < chart.parts.size(); ++i) {
    const double part = Drawable(bar.parts[i]);
    if (part == 0) continue;
    const double from = sum == 0 ? axis.begin : axis.Position(sum);
    sum += part;
    right = axis.Position(sum);
    DrawPart(chart.parts[i].style, {from, middle - kBarHeight / 2},
             std::max(right - from, 0.5), kBarHeight, bar.title, svg);
  }
  if (bar.box) {
    DrawBox(*bar.box, axis, middle, svg);
    right = std::max(right, axis.Position(bar.box->max));
  }
  for (const double sample : bar.samples) {
    if (!std::isfinite(sample)) continue;
    svg.Marker(0, {axis.Position(sample), middle}, "sample", bar.title);
    right = std::max(right, axis.Position(sample) + 4);
  }
  if (bar.bound && std::isfinite(*bar.bound)) {
    DrawBound(axis.Position(*bar.bound), middle, svg);
    right = std::max(right, axis.Position(*bar.bound));
  }
  svg.Text({right + 8, middle + 4}, "start", "value", bar.value);
}

}  // namespace

std::string BarChart::Render() const {
  Svg svg(text.id, text.name, text.description);
  const double top = DrawLegend(LegendOf(*this), svg);
  std::vector<std::string> labels;
  double height = 0;
  for (const Group& group : groups) {
    if (!group.heading.empty()) height += kHeadingHeight;
    height += kBarRowHeight * static_cast<double>(group.bars.size());
    for (const Bar& bar : group.bars) labels.push_back(bar.label);
  }
  const double width = LabelWidth(labels);
  const Axis axis = MakeAxis(ValuesOf(*this), axis_title, unit, may_be_log,
                             kChartMargin + width, kChartWidth - kValueWidth);
  const double foot = top + height + 4;
  double free_from = 0;
  for (const Tick& tick : axis.ticks) {
    const double at = axis.Position(tick.value);
    const double half = TextWidth(tick.label.size()) / 2;
    svg.Line({at, top}, {at, foot}, "grid");
    if (at - half < free_from) continue;
    svg.Text({at, foot + 18}, "middle", "tick", tick.label);
    free_from = at + half + 6;
  }
  svg.Line({axis.begin, top}, {axis.begin, foot}, "frame");
  svg.Text({(axis.begin + axis.end) / 2, foot + 40}, "middle", "axis",
           axis.title);
  double y = top;
  for (const Group& group : groups) {
    if (!group.heading.empty()) {
      svg.Text({kChartMargin, y + 18}, "start", "heading", group.heading);
      y += kHeadingHeight;
    }
    for (const Bar& bar : group.bars) {
      const double middle = y + kBarRowHeight / 2;
      DrawLabel(bar.label, axis.begin - 8, middle + 4, width, svg);
      DrawBar(*this, bar, axis, middle, svg);
      y += kBarRowHeight;
    }
  }
  return svg.Finish(kChartWidth, foot + 52);
}

}  // namespace flashelm::cli
