#include <algorithm>
#include <cmath>

#include "cli/chart_parts.h"
#include "cli/charts.h"
#include "core/base/format.h"

namespace flashelm::cli {
namespace {

// So that the least that is not nothing differs from nothing.
double Shade(double value, double max) {
  return value > 0 && max > 0 ? 0.1 + 0.9 * std::min(value / max, 1.0) : 0;
}

void DrawCell(const std::optional<double>& value, double max, SvgPoint at,
              double width, double height, const std::string& title, Svg& svg) {
  if (value && std::isfinite(*value)) {
    svg.Rect(at, width, height, "cell", title, Shade(*value, max));
  } else {
    svg.Rect(at, width, height, "unknown", title);
  }
}

}  // namespace

std::string HeatMap::Render() const {
  constexpr double kRowHeight = 18;
  constexpr int kLegendSteps = 5;
  Svg svg(text.id, text.name, text.description);
  std::vector<LegendItem> items;
  for (int i = 0; i <= kLegendSteps; ++i) {
    const double value = max * i / kLegendSteps;
    items.push_back(
        {format(value), Glyph::kShade, 0, false, Shade(value, max)});
  }
  items.push_back({"not known", Glyph::kUnknown});
  const double top = DrawLegend(items, svg);
  std::vector<std::string> labels;
  for (const Group& group : groups) {
    for (const Row& row : group.rows) labels.push_back(row.label);
  }
  const double width = LabelWidth(labels);
  const double left = kChartMargin + width;
  const double cell = (kChartWidth - kChartMargin - left) /
                      static_cast<double>(std::max<size_t>(columns.size(), 1));
  double y = top;
  for (const Group& group : groups) {
    if (!group.heading.empty()) {
      svg.Text({kChartMargin, y + 18}, "start", "heading", group.heading);
      y += kHeadingHeight;
    }
    for (const Row& row : group.rows) {
      DrawLabel(row.label, left - 8, y + 13, width, svg);
      if (!row.missing.empty()) {
        const auto room =
            static_cast<size_t>((kChartWidth - left - 30) / TextWidth(1));
        svg.Cross({left + 8, y + kRowHeight / 2}, "failed", row.missing);
        svg.Text({left + 20, y + 13}, "start", "note",
                 Shorten(row.missing, room));
      }
      for (size_t i = 0; i < row.values.size() && i < columns.size(); ++i) {
        const std::optional<double>& value = row.values[i];
        DrawCell(value, max, {left + static_cast<double>(i) * cell, y},
                 std::max(cell - 1, 0.5), kRowHeight - 1,
                 fmt::format("{}, {}: {}", row.label, columns[i].name,
                             value && std::isfinite(*value) ? format(*value)
                                                            : "not known"),
                 svg);
      }
      y += kRowHeight;
    }
  }
  double free_from = 0;
  for (size_t i = 0; i < columns.size(); ++i) {
    const double at = left + (static_cast<double>(i) + 0.5) * cell;
    const double half = TextWidth(columns[i].label.size()) / 2;
    if (at - half < free_from || at + half > kChartWidth) continue;
    svg.Text({at, y + 15}, "middle", "tick", columns[i].label);
    free_from = at + half + 8;
  }
  svg.Text({(left + kChartWidth - kChartMargin) / 2, y + 36}, "middle", "axis",
           column_title);
  return svg.Finish(kChartWidth, y + 48);
}

}  // namespace flashelm::cli
