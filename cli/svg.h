// Drawings as SVG text: axes, and shapes placed in drawing units.
#ifndef FLASHELM_CLI_SVG_H_
#define FLASHELM_CLI_SVG_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/format.h"

namespace flashelm::cli {

// For text and for attributes in double quotes, of HTML and of XML. What
// neither may contain, such as a control character, becomes U+FFFD.
std::string EscapeMarkup(std::string_view text);

// Adds formatted text; arguments as for fmt::format().
void AppendFormat(std::string& out, fmt::string_view format,
                  fmt::format_args args);
template <class... Args>
void Append(std::string& out, fmt::format_string<Args...> format,
            Args&&... args) {
  AppendFormat(out, format, fmt::make_format_args(args...));
}

// Three digits or all before the point: "0.0123", "1.23", "12.3", "1234".
std::string ShortNumber(double value);

enum class AxisUnit {
  kPlain,
  kBytes,         // Ticks in powers of 1024.
  kMilliseconds,  // In seconds, where that is shorter.
};

struct Tick {
  double value = 0;
  std::string label;
};

// From values to a line of `begin` to `end`, in drawing units.
struct Axis {
  std::string title;  // With the unit.
  bool is_log = false;
  double min = 0;
  double max = 1;
  double begin = 0;
  double end = 1;
  std::vector<Tick> ticks;  // Ascending, the first at `min`, the last at `max`.

  // Of a value outside, the nearer end.
  double Position(double value) const;
};

// Around all of `values` that are finite, from 0 on, or logarithmic where that
// is allowed, all are above 0 and they differ by more than 30 times. With no
// value, or none but 0, from 0 to 1.
Axis MakeAxis(const std::vector<double>& values, std::string_view title,
              AxisUnit unit, bool may_be_log, double begin, double end);

struct SvgPoint {
  double x = 0;
  double y = 0;
};

// Shapes that tell series apart beside their colours.
inline constexpr int kNumMarkers = 5;
inline constexpr int kNumColors = 6;

// One drawing. Classes are those of the page's style (html_page.h); a title is
// what a pointer shows, and may be empty.
class Svg {
 public:
  // `name` and `description` are for who does not see it; `id` is of this
  // drawing alone.
  Svg(std::string id, std::string name, std::string description);

  void Line(SvgPoint from, SvgPoint to, std::string_view css_class);
  void Rect(SvgPoint at, double width, double height,
            std::string_view css_class, std::string_view title = "",
            std::optional<double> opacity = std::nullopt);
  // `anchor`: "start", "middle", "end".
  void Text(SvgPoint at, std::string_view anchor, std::string_view css_class,
            std::string_view text);
  // From bottom to top.
  void VerticalText(SvgPoint at, std::string_view text);
  void Path(const std::vector<SvgPoint>& points, std::string_view css_class,
            std::string_view dashes = "");
  // The shape of that number, modulo kNumMarkers.
  void Marker(int shape, SvgPoint at, std::string_view css_class,
              std::string_view title = "");
  // A value that is not there.
  void Cross(SvgPoint at, std::string_view css_class,
             std::string_view title = "");

  // The whole element, of that size.
  std::string Finish(double width, double height) const;

 private:
  std::string id_;
  std::string name_;
  std::string description_;
  std::string body_;
};

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_SVG_H_
