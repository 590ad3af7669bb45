#include "cli/svg.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "core/base/format.h"

namespace flashelm::cli {
namespace {

// One decimal: a tenth of a unit is less than anybody sees.
std::string Px(double value) {
  std::string text = fmt::format("{:.1f}", value);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text == "-0" ? "0" : text;
}

std::string Pair(SvgPoint at) { return Px(at.x) + " " + Px(at.y); }

std::string TitleElement(std::string_view title) {
  return title.empty() ? "" : "<title>" + EscapeMarkup(title) + "</title>";
}

struct UnitName {
  double size;
  const char* name;
};
constexpr UnitName kByteUnits[] = {{1, "B"},
                                   {1024.0, "KiB"},
                                   {1048576.0, "MiB"},
                                   {1073741824.0, "GiB"},
                                   {1099511627776.0, "TiB"}};

UnitName ByteUnit(double bytes) {
  UnitName unit = kByteUnits[0];
  for (const UnitName& larger : kByteUnits) {
    if (bytes >= larger.size) unit = larger;
  }
  return unit;
}

// The least of 1, 2 and 5 times a power of ten that is no less.
double NiceStep(double least) {
  const double power = std::pow(10, std::floor(std::log10(least)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    // Powers of ten are rounded, too.
    if (factor * power >= least * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

void AddLinearTicks(double greatest, UnitName unit, Axis& axis) {
  constexpr int kMostSteps = 6;
  const double in_units = greatest / unit.size;
  const double step = NiceStep(in_units / kMostSteps);
  const auto num_steps = static_cast<int>(std::ceil(in_units / step - 1e-9));
  for (int i = 0; i <= num_steps; ++i) {
    axis.ticks.push_back(
        {i * step * unit.size, fmt::format("{:.6g}", i * step)});
  }
}

// Powers of `base`, and factors of them, around both ends.
void AddLogTicks(double least, double greatest, AxisUnit unit, Axis& axis) {
  constexpr double kMostTicks = 9;
  const double base = unit == AxisUnit::kBytes ? 2 : 10;
  const double span = std::log(greatest / least) / std::log(base);
  const double stride = std::max(1.0, std::ceil(span / kMostTicks));
  std::vector<double> factors = {1};
  if (base == 10 && span <= 3) factors = {1, 2, 5};
  double exponent = std::floor(std::log(least) / std::log(base) + 1e-9);
  for (bool is_done = false; !is_done; exponent += stride) {
    for (const double factor : factors) {
      // The power after the greatest value may be infinite, which has no place.
      const double value = std::min(std::pow(base, exponent) * factor,
                                    std::numeric_limits<double>::max());
      Tick tick = {value, fmt::format("{:.6g}", value)};
      if (unit == AxisUnit::kBytes) {
        const UnitName bytes = ByteUnit(value);
        tick.label = fmt::format("{:.6g} {}", value / bytes.size, bytes.name);
      }
      // The last that is no more than the least value is where it begins.
      if (value <= least * (1 + 1e-9)) axis.ticks.clear();
      axis.ticks.push_back(std::move(tick));
      is_done = value >= greatest * (1 - 1e-9);
      if (is_done) break;
    }
  }
}

}  // namespace

std::string EscapeMarkup(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        if ((static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') ||
            c == 0x7f) {
          out += "\xEF\xBF\xBD";
        } else {
          out += c;
        }
    }
  }
  return out;
}

void AppendFormat(std::string& out, fmt::string_view format,
                  fmt::format_args args) {
  out += fmt::vformat(format, args);
}

std::string ShortNumber(double value) {
  const double size = std::abs(value);
  if (size >= 100 || value == 0) return fmt::format("{:.0f}", value);
  if (size >= 10) return fmt::format("{:.1f}", value);
  return size >= 1 ? fmt::format("{:.2f}", value)
                   : fmt::format("{:.3g}", value);
}

double Axis::Position(double value) const {
  const double inside = std::clamp(value, min, max);
  const double part = is_log ? std::log(inside / min) / std::log(max / min)
                             : (inside - min) / (max - min);
  return begin + part * (end - begin);
}

Axis MakeAxis(const std::vector<double>& values, std::string_view title,
              AxisUnit unit, bool may_be_log, double begin, double end) {
  constexpr double kLogRatio = 30;
  constexpr double kSecondsFrom = 5000;
  Axis axis;
  axis.begin = begin;
  axis.end = end;
  double greatest = 0;
  double least = std::numeric_limits<double>::infinity();
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    greatest = std::max(greatest, value);
    least = std::min(least, value);
  }
  axis.title = title;
  axis.is_log = may_be_log && least > 0 && greatest > least * kLogRatio;
  if (axis.is_log) {
    AddLogTicks(least, greatest, unit, axis);
    axis.title += unit == AxisUnit::kMilliseconds ? " (ms, logarithmic)"
                                                  : " (logarithmic)";
  } else {
    UnitName scale = {1, ""};
    if (unit == AxisUnit::kBytes) scale = ByteUnit(greatest);
    if (unit == AxisUnit::kMilliseconds) {
      scale =
          greatest >= kSecondsFrom ? UnitName{1000, "s"} : UnitName{1, "ms"};
    }
    if (*scale.name != '\0') axis.title += fmt::format(" ({})", scale.name);
    AddLinearTicks(greatest > 0 ? greatest : 1, scale, axis);
  }
  axis.min = axis.ticks.front().value;
  axis.max = axis.ticks.back().value;
  return axis;
}

Svg::Svg(std::string id, std::string name, std::string description)
    : id_(std::move(id)),
      name_(std::move(name)),
      description_(std::move(description)) {}

void Svg::Line(SvgPoint from, SvgPoint to, std::string_view css_class) {
  Append(body_, "<path class=\"{}\" d=\"M{}L{}\"/>\n", css_class, Pair(from),
         Pair(to));
}

void Svg::Rect(SvgPoint at, double width, double height,
               std::string_view css_class, std::string_view title,
               std::optional<double> opacity) {
  Append(body_,
         "<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"",
         css_class, Px(at.x), Px(at.y), Px(width), Px(height));
  if (opacity) Append(body_, " fill-opacity=\"{:.2f}\"", *opacity);
  body_ += ">" + TitleElement(title) + "</rect>\n";
}

void Svg::Text(SvgPoint at, std::string_view anchor, std::string_view css_class,
               std::string_view text) {
  Append(body_,
         "<text class=\"{}\" x=\"{}\" y=\"{}\" text-anchor=\"{}\">{}</text>\n",
         css_class, Px(at.x), Px(at.y), anchor, EscapeMarkup(text));
}

void Svg::VerticalText(SvgPoint at, std::string_view text) {
  Append(
      body_,
      "<text class=\"axis\" text-anchor=\"middle\" transform=\"translate({}) "
      "rotate(-90)\">{}</text>\n",
      Pair(at), EscapeMarkup(text));
}

void Svg::Path(const std::vector<SvgPoint>& points, std::string_view css_class,
               std::string_view dashes) {
  if (points.empty()) return;
  Append(body_, "<path class=\"{}\" d=\"", css_class);
  char command = 'M';
  for (const SvgPoint& point : points) {
    body_ += command + Pair(point);
    command = 'L';
  }
  body_ += '"';
  if (!dashes.empty()) {
    Append(body_, " stroke-dasharray=\"{}\"", dashes);
  }
  body_ += "/>\n";
}

void Svg::Marker(int shape, SvgPoint at, std::string_view css_class,
                 std::string_view title) {
  // Of about the same area.
  static constexpr const char* kShapes[kNumMarkers] = {
      "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z", "M-4-4h8v8h-8z",
      "M0-5.5L5.5 4h-11z", "M0-6L5.5 0L0 6L-5.5 0z", "M0 5.5L5.5-4h-11z"};
  Append(body_,
         "<path class=\"{}\" transform=\"translate({})\" d=\"{}\">{}</path>\n",
         css_class, Pair(at), kShapes[shape % kNumMarkers],
         TitleElement(title));
}

void Svg::Cross(SvgPoint at, std::string_view css_class,
                std::string_view title) {
  Append(body_,
         "<path class=\"{}\" transform=\"translate({})\" "
         "d=\"M-4-4L4 4M-4 4L4-4\">{}</path>\n",
         css_class, Pair(at), TitleElement(title));
}

std::string Svg::Finish(double width, double height) const {
  return fmt::format(
             "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" "
             "viewBox=\"0 0 {0} {1}\" aria-labelledby=\"{2}-t {2}-d\">\n"
             "<title id=\"{2}-t\">{3}</title>\n<desc id=\"{2}-d\">{4}</desc>\n",
             Px(width), Px(height), id_, EscapeMarkup(name_),
             EscapeMarkup(description_)) +
         body_ + "</svg>\n";
}

}  // namespace flashelm::cli
