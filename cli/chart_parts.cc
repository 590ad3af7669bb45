#include "cli/chart_parts.h"

#include <algorithm>
#include <iterator>

#include "core/base/format.h"

namespace flashelm::cli {
namespace {

constexpr double kCharacterWidth = 6.7;
constexpr double kMaxLabelWidth = 190;

bool ContinuesCharacter(char c) {
  return (static_cast<unsigned char>(c) & 0xc0) == 0x80;
}

}  // namespace

size_t CountCharacters(const std::string& text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return !ContinuesCharacter(c); }));
}

double TextWidth(size_t num_characters) {
  return static_cast<double>(num_characters) * kCharacterWidth;
}

std::string Shorten(const std::string& text, size_t max_characters) {
  if (CountCharacters(text) <= max_characters) return text;
  size_t end = 0;
  for (size_t count = 0; end < text.size(); ++end) {
    if (!ContinuesCharacter(text[end]) && ++count >= max_characters) break;
  }
  return text.substr(0, end) + "\u2026";
}

std::string ColorClass(int series) {
  return fmt::format("c{}", series % kNumColors);
}

std::string MarkerClass(int series, bool is_hollow) {
  return ColorClass(series) + (is_hollow ? " mark hollow" : " mark");
}

const char* DashesOf(int series) {
  static constexpr const char* kDashes[] = {"", "7 4", "2 3", "9 3 2 3"};
  return kDashes[static_cast<size_t>(series) % std::size(kDashes)];
}

void DrawPart(int style, SvgPoint at, double width, double height,
              const std::string& title, Svg& svg) {
  svg.Rect(at, width, height, fmt::format("part p{}", style), title);
  // Over the colour, a pattern; the first is plain.
  if (style == 0) return;
  svg.Rect(at, width, height, fmt::format("pattern q{}", style), title);
}

namespace {

void DrawGlyph(const LegendItem& item, SvgPoint at, Svg& svg) {
  const SvgPoint left = {at.x - 13, at.y};
  const SvgPoint right = {at.x + 13, at.y};
  const SvgPoint corner = {at.x - 11, at.y - 6};
  const SvgPoint above = {at.x, at.y - 8};
  const SvgPoint below = {at.x, at.y + 8};
  switch (item.glyph) {
    case Glyph::kSeries:
      svg.Path({left, right}, ColorClass(item.style) + " line",
               DashesOf(item.style));
      svg.Marker(item.style, at, MarkerClass(item.style, item.is_hollow));
      break;
    case Glyph::kPart:
      DrawPart(item.style, corner, 22, 12, "", svg);
      break;
    case Glyph::kShade:
      svg.Rect(corner, 22, 12, "cell", "", item.opacity);
      break;
    case Glyph::kUnknown:
      svg.Rect(corner, 22, 12, "unknown");
      break;
    case Glyph::kBound:
      svg.Line(left, right, "bound");
      break;
    case Glyph::kLimit:
      svg.Line(above, below, "limit");
      break;
    case Glyph::kFailed:
      svg.Cross(at, "failed");
      break;
    case Glyph::kSample:
      svg.Marker(0, at, "sample");
      break;
    case Glyph::kWhisker:
      svg.Line(left, right, "whisker");
      break;
    case Glyph::kBox:
      svg.Rect(corner, 22, 12, "box");
      break;
    case Glyph::kMedian:
      svg.Line(above, below, "median");
      break;
    case Glyph::kPercentile90:
      svg.Marker(2, at, "mark percentile");
      break;
    case Glyph::kPercentile99:
      svg.Marker(3, at, "mark percentile hollow");
      break;
  }
}

}  // namespace

double DrawLegend(const std::vector<LegendItem>& items, Svg& svg) {
  constexpr double kSampleWidth = 34;
  constexpr double kGap = 18;
  const auto max_characters = static_cast<size_t>(
      (kChartWidth - kSampleWidth - 2 * kChartMargin) / kCharacterWidth);
  double x = kChartMargin;
  double y = kChartMargin;
  for (const LegendItem& item : items) {
    const std::string name = Shorten(item.name, max_characters);
    const double width = kSampleWidth + TextWidth(CountCharacters(name));
    if (x > kChartMargin && x + width > kChartWidth - kChartMargin) {
      x = kChartMargin;
      y += kLegendRowHeight;
    }
    DrawGlyph(item, {x + 13, y}, svg);
    svg.Text({x + kSampleWidth - 2, y + 4}, "start", "key", name);
    x += width + kGap;
  }
  return items.empty() ? kChartMargin : y + kLegendRowHeight;
}

double LabelWidth(const std::vector<std::string>& labels) {
  size_t longest = 0;
  for (const std::string& label : labels) {
    longest = std::max(longest, CountCharacters(label));
  }
  return std::clamp(TextWidth(longest) + 10, 40.0, kMaxLabelWidth);
}

void DrawLabel(const std::string& label, double x, double y, double width,
               Svg& svg) {
  svg.Text({x, y}, "end", "tick",
           Shorten(label, static_cast<size_t>(width / kCharacterWidth)));
}

}  // namespace flashelm::cli
