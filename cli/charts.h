// The charts of a report: from numbers to SVG. What is not finite is left out.
#ifndef FLASHELM_CLI_CHARTS_H_
#define FLASHELM_CLI_CHARTS_H_

#include <optional>
#include <string>
#include <vector>

#include "cli/svg.h"

namespace flashelm::cli {

// What every chart has. Texts are plain, not markup.
struct ChartText {
  std::string id;    // Of this chart alone, letters, digits and hyphens.
  std::string name;  // For who does not see it, as the description.
  std::string description;
};

// Lines through points, with error bars, below a bound.
struct LineChart {
  struct Point {
    double x = 0;
    double y = 0;
    double deviation = 0;  // 0: none is known.
    std::string title;     // What a pointer shows.
  };
  struct Failure {
    double x = 0;
    std::string title;
  };
  struct Series {
    std::string name;
    bool is_hollow = false;
    std::vector<Point> points;
    std::vector<Failure> failures;  // At the foot of the chart.
  };
  ChartText text;
  std::string x_title;  // In bytes.
  std::string y_title;
  std::vector<Series> series;
  // No point lies above it; empty: nothing is known.
  std::vector<SvgPoint> bound;
  std::string bound_name;
  std::optional<double> mark_x;  // A line upwards.
  std::string mark_name;

  std::string Render() const;
};

// Horizontal bars in groups, each of parts, with marks on them.
struct BarChart {
  // Parts of a distribution.
  struct Box {
    double min = 0;
    double p25 = 0;
    double median = 0;
    double p75 = 0;
    double p90 = 0;
    double p99 = 0;
    double max = 0;
  };
  struct Bar {
    std::string label;
    std::vector<double> parts;  // As in `parts` below; 0 is not drawn.
    std::optional<double> bound;
    std::vector<double> samples;
    std::optional<Box> box;
    std::string value;  // Behind the bar.
    std::string title;
    std::string missing;  // Why there is nothing; empty: there is.
  };
  struct Group {
    std::string heading;
    std::vector<Bar> bars;
  };
  struct Part {
    const char* name;
    int style = 0;  // Of kNumPartStyles.
  };
  static constexpr int kNumPartStyles = 5;

  ChartText text;
  std::string axis_title;
  AxisUnit unit = AxisUnit::kPlain;
  bool may_be_log = false;
  std::vector<Part> parts;
  std::string bound_name;   // Empty: there are none.
  std::string sample_name;  // The same.
  std::vector<Group> groups;

  std::string Render() const;
};

// A table of shades, from nothing to the greatest value.
struct HeatMap {
  struct Row {
    std::string label;
    std::vector<std::optional<double>> values;
    std::string missing;  // As a bar's.
  };
  struct Group {
    std::string heading;
    std::vector<Row> rows;
  };
  ChartText text;
  std::string column_title;
  struct Column {
    std::string label;  // Below it.
    std::string name;   // In titles.
  };
  std::vector<Column> columns;
  double max = 1;
  // How a value reads, in titles and in the legend.
  std::string (*format)(double value) = ShortNumber;
  std::vector<Group> groups;

  std::string Render() const;
};

// At most so many characters, the last an ellipsis where some were left out.
std::string Shorten(const std::string& text, size_t max_characters);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_CHARTS_H_
