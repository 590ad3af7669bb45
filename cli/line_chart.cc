#include <algorithm>
#include <cmath>

#include "cli/chart_parts.h"
#include "cli/charts.h"
#include "core/base/format.h"

namespace flashelm::cli {
namespace {

constexpr double kPlotHeight = 300;
constexpr double kLeft = 66;
constexpr double kRight = kChartWidth - 24;

bool IsFinite(const LineChart::Point& point) {
  return std::isfinite(point.x) && std::isfinite(point.y);
}

std::vector<LegendItem> LegendOf(const LineChart& chart) {
  std::vector<LegendItem> items;
  bool has_failures = false;
  for (const LineChart::Series& series : chart.series) {
    has_failures |= !series.failures.empty();
    items.push_back({series.name, Glyph::kSeries,
                     static_cast<int>(items.size()), series.is_hollow});
  }
  if (!chart.bound.empty()) items.push_back({chart.bound_name, Glyph::kBound});
  if (has_failures) items.push_back({"failed", Glyph::kFailed});
  return items;
}

// Labels of ticks that would touch are left out.
void DrawAxes(const Axis& x, const Axis& y, Svg& svg) {
  double free_from = 0;
  for (const Tick& tick : x.ticks) {
    const double at = x.Position(tick.value);
    const double half = TextWidth(tick.label.size()) / 2;
    svg.Line({at, y.begin}, {at, y.begin + 5}, "frame");
    if (at - half < free_from) continue;
    svg.Text({at, y.begin + 20}, "middle", "tick", tick.label);
    free_from = at + half + 6;
  }
  double free_below = y.begin + 20;
  for (const Tick& tick : y.ticks) {
    const double at = y.Position(tick.value);
    svg.Line({x.begin, at}, {x.end, at}, "grid");
    if (at > free_below) continue;
    svg.Text({x.begin - 8, at + 4}, "end", "tick", tick.label);
    free_below = at - 14;
  }
  svg.Line({x.begin, y.begin}, {x.end, y.begin}, "frame");
  svg.Text({(x.begin + x.end) / 2, y.begin + 42}, "middle", "axis", x.title);
  svg.VerticalText({14, (y.begin + y.end) / 2}, y.title);
}

void DrawSeries(const LineChart::Series& series, int index, const Axis& x,
                const Axis& y, Svg& svg) {
  std::vector<SvgPoint> line;
  for (const LineChart::Point& point : series.points) {
    if (!IsFinite(point)) continue;
    line.push_back({x.Position(point.x), y.Position(point.y)});
  }
  svg.Path(line, ColorClass(index) + " line", DashesOf(index));
  for (const LineChart::Point& point : series.points) {
    if (!IsFinite(point)) continue;
    const SvgPoint at = {x.Position(point.x), y.Position(point.y)};
    if (std::isfinite(point.deviation) && point.deviation > 0) {
      const double top = y.Position(point.y + point.deviation);
      const double foot = y.Position(point.y - point.deviation);
      const std::string css_class = ColorClass(index) + " error";
      svg.Line({at.x, top}, {at.x, foot}, css_class);
      svg.Line({at.x - 4, top}, {at.x + 4, top}, css_class);
      svg.Line({at.x - 4, foot}, {at.x + 4, foot}, css_class);
    }
    svg.Marker(index, at, MarkerClass(index, series.is_hollow), point.title);
  }
}

}  // namespace

std::string LineChart::Render() const {
  Svg svg(text.id, text.name, text.description);
  const double top = DrawLegend(LegendOf(*this), svg) + 8;
  std::vector<double> xs;
  std::vector<double> ys;
  for (const Series& one : series) {
    for (const Point& point : one.points) {
      if (!IsFinite(point)) continue;
      xs.push_back(point.x);
      ys.push_back(point.y);
      if (std::isfinite(point.deviation)) {
        ys.push_back(point.y + point.deviation);
      }
    }
  }
  // Otherwise one absurd budget that was refused would be all there is to see.
  if (xs.empty()) {
    for (const Series& one : series) {
      for (const Failure& failure : one.failures) xs.push_back(failure.x);
    }
  }
  for (const SvgPoint& point : bound) ys.push_back(point.y);
  const Axis x = MakeAxis(xs, x_title, AxisUnit::kBytes, true, kLeft, kRight);
  const Axis y =
      MakeAxis(ys, y_title, AxisUnit::kPlain, true, top + kPlotHeight, top);
  DrawAxes(x, y, svg);
  if (mark_x && *mark_x > x.min && *mark_x < x.max) {
    const double at = x.Position(*mark_x);
    svg.Line({at, y.begin}, {at, y.end}, "reference");
    const bool is_right = at > (kLeft + kRight) / 2;
    svg.Text({at + (is_right ? -6 : 6), y.end + 14}, is_right ? "end" : "start",
             "note", mark_name);
  }
  std::vector<SvgPoint> limit;
  for (const SvgPoint& point : bound) {
    if (point.x < x.min || point.x > x.max) continue;
    limit.push_back({x.Position(point.x), y.Position(point.y)});
  }
  svg.Path(limit, "bound");
  for (size_t i = 0; i < series.size(); ++i) {
    DrawSeries(series[i], static_cast<int>(i), x, y, svg);
  }
  for (const Series& one : series) {
    for (const Failure& failure : one.failures) {
      if (!std::isfinite(failure.x)) continue;
      svg.Cross({x.Position(failure.x), y.begin}, "failed", failure.title);
    }
  }
  return svg.Finish(kChartWidth, y.begin + 54);
}

}  // namespace flashelm::cli
