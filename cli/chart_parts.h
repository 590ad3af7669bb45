// What charts have in common: sizes, and a legend.
#ifndef FLASHELM_CLI_CHART_PARTS_H_
#define FLASHELM_CLI_CHART_PARTS_H_

#include <string>
#include <vector>

#include "cli/charts.h"
#include "cli/svg.h"

namespace flashelm::cli {

inline constexpr double kChartWidth = 720;
inline constexpr double kChartMargin = 14;
inline constexpr double kLegendRowHeight = 22;
inline constexpr double kBarRowHeight = 22;
inline constexpr double kHeadingHeight = 26;

// About as wide as that many characters of a chart's text are.
double TextWidth(size_t num_characters);
size_t CountCharacters(const std::string& text);

// How one thing is drawn, beside its name.
enum class Glyph {
  kSeries,   // Line and marker; `style`: the series.
  kPart,     // Of a bar; `style`: of the part.
  kShade,    // Of a heat map; `opacity`.
  kUnknown,  // Of a heat map.
  kBound,
  kLimit,
  kFailed,
  kSample,
  kWhisker,
  kBox,
  kMedian,
  kPercentile90,
  kPercentile99,
};
struct LegendItem {
  std::string name;
  Glyph glyph;
  int style = 0;
  bool is_hollow = false;
  double opacity = 1;
};

// Draws the items in rows from the top; returns where the next thing may begin.
double DrawLegend(const std::vector<LegendItem>& items, Svg& svg);

// The parts of charts that a legend also shows.
std::string ColorClass(int series);
std::string MarkerClass(int series, bool is_hollow);
const char* DashesOf(int series);
void DrawPart(int style, SvgPoint at, double width, double height,
              const std::string& title, Svg& svg);

// For labels of rows at the left: as wide as the longest needs, within reason.
double LabelWidth(const std::vector<std::string>& labels);
// A row's label, which ends at `x`.
void DrawLabel(const std::string& label, double x, double y, double width,
               Svg& svg);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_CHART_PARTS_H_
