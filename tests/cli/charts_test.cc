// Where charts put things, and what text becomes in them.

#include "cli/charts.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "cli/chart_parts.h"
#include "cli/html_page.h"
#include "cli/svg.h"

namespace flashelm::cli {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos;
       at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

std::string Labels(const Axis& axis) {
  std::string text;
  for (const Tick& tick : axis.ticks) text += tick.label + " ";
  return text;
}

TEST(EscapeMarkupTest, LeavesNothingThatIsMarkup) {
  EXPECT_EQ(EscapeMarkup("a<b> & \"c\" 'd'"),
            "a&lt;b&gt; &amp; &quot;c&quot; 'd'");
  EXPECT_EQ(EscapeMarkup(std::string("\x01\x7f\0", 3)),
            "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(EscapeMarkup("\u00b1"), "\u00b1");
}

TEST(AxisTest, LinearAxesBeginAtZeroAndEndAtARoundNumber) {
  struct Case {
    std::vector<double> values;
    AxisUnit unit;
    const char* labels;
    const char* title;
  };
  const Case cases[] = {
      {{17}, AxisUnit::kPlain, "0 5 10 15 20 ", "x"},
      {{1, 6}, AxisUnit::kPlain, "0 1 2 3 4 5 6 ", "x"},
      {{0.3}, AxisUnit::kPlain, "0 0.05 0.1 0.15 0.2 0.25 0.3 ", "x"},
      {{}, AxisUnit::kPlain, "0 0.2 0.4 0.6 0.8 1 ", "x"},
      {{0, 0}, AxisUnit::kPlain, "0 0.2 0.4 0.6 0.8 1 ", "x"},
      {{kNaN, kInfinity, 2}, AxisUnit::kPlain, "0 0.5 1 1.5 2 ", "x"},
      {{3.5 * 1048576}, AxisUnit::kBytes, "0 1 2 3 4 ", "x (MiB)"},
      {{300}, AxisUnit::kMilliseconds, "0 50 100 150 200 250 300 ", "x (ms)"},
      {{9000}, AxisUnit::kMilliseconds, "0 2 4 6 8 10 ", "x (s)"},
  };
  for (const Case& c : cases) {
    const Axis axis = MakeAxis(c.values, "x", c.unit, false, 100, 500);
    EXPECT_EQ(Labels(axis), c.labels);
    EXPECT_EQ(axis.title, c.title) << c.labels;
    EXPECT_EQ(axis.Position(axis.min), 100) << c.labels;
    EXPECT_EQ(axis.Position(axis.max), 500) << c.labels;
    EXPECT_EQ(axis.Position((axis.min + axis.max) / 2), 300) << c.labels;
    EXPECT_EQ(axis.Position(1e30), 500) << c.labels;
    EXPECT_EQ(axis.Position(-1), 100) << c.labels;
  }
}

TEST(AxisTest, ValuesThatDifferWidelyAreLogarithmicIfTheyMay) {
  const Axis axis = MakeAxis({2, 90}, "rate", AxisUnit::kPlain, true, 300, 100);
  EXPECT_TRUE(axis.is_log);
  EXPECT_EQ(Labels(axis), "2 5 10 20 50 100 ");
  EXPECT_EQ(axis.Position(2), 300);
  EXPECT_EQ(axis.Position(100), 100);
  EXPECT_NEAR(axis.Position(std::sqrt(200)), 200, 1e-9);
  EXPECT_NE(axis.title.find("logarithmic"), std::string::npos);

  EXPECT_FALSE(MakeAxis({2, 90}, "", AxisUnit::kPlain, false, 0, 1).is_log);
  EXPECT_FALSE(MakeAxis({2, 50}, "", AxisUnit::kPlain, true, 0, 1).is_log);
  EXPECT_FALSE(MakeAxis({0, 50}, "", AxisUnit::kPlain, true, 0, 1).is_log)
      << "there is no place for 0";
  EXPECT_EQ(Labels(MakeAxis({1048576, 64 * 1048576}, "", AxisUnit::kBytes, true,
                            0, 1)),
            "1 MiB 2 MiB 4 MiB 8 MiB 16 MiB 32 MiB 64 MiB ");
  const Axis wide = MakeAxis({1, 1e15}, "", AxisUnit::kBytes, true, 0, 1);
  EXPECT_LE(wide.ticks.size(), 11u);
  EXPECT_LE(wide.min, 1);
  EXPECT_GE(wide.max, 1e15);
}

TEST(ShortenTest, CountsCharactersAndNotBytes) {
  EXPECT_EQ(Shorten("\u00b1\u00b1\u00b1", 3), "\u00b1\u00b1\u00b1");
  EXPECT_EQ(Shorten("\u00b1\u00b1\u00b1\u00b1", 3), "\u00b1\u00b1\u2026");
  EXPECT_EQ(Shorten("abc", 0), "\u2026");
}

TEST(LineChartTest, PointsAndTheirDeviationsAreWhereTheAxisHasThem) {
  LineChart chart;
  chart.text = {"c", "name <1>", "description"};
  chart.series.push_back(
      {"a & b", false, {{1048576, 10, 2, "t"}, {4 * 1048576, 20, 0, ""}}, {}});
  const std::string svg = chart.Render();
  EXPECT_NE(svg.find("<title id=\"c-t\">name &lt;1&gt;</title>"),
            std::string::npos);
  EXPECT_NE(svg.find("aria-labelledby=\"c-t c-d\""), std::string::npos);
  EXPECT_NE(svg.find("role=\"img\""), std::string::npos);
  EXPECT_EQ(Count(svg, "a &amp; b"), 1u);
  EXPECT_EQ(Count(svg, " error\""), 3u) << "one error bar, of three lines";
  EXPECT_EQ(svg.find("class=\"bound\""), std::string::npos);
  // x: 0 to 4 MiB over 66 to 696, y: 0 to 20 or more.
  EXPECT_NE(svg.find("translate(223.5 "), std::string::npos) << svg;
  EXPECT_NE(svg.find("translate(696 "), std::string::npos) << svg;
}

TEST(LineChartTest, WhatIsNoNumberIsNotDrawn) {
  LineChart chart;
  chart.series.push_back(
      {"a", true, {{kNaN, 1, 0, ""}, {1, kInfinity, 0, ""}}, {}});
  chart.series.push_back({"b", false, {}, {{512, "refused"}}});
  const std::string svg = chart.Render();
  for (const char* word : {"nan", "inf"}) {
    EXPECT_EQ(svg.find(word), std::string::npos) << word;
  }
  EXPECT_EQ(Count(svg, "<title>refused</title>"), 1u);
  EXPECT_EQ(Count(svg, " mark"), 2u) << "those of the legend";
  EXPECT_NE(LineChart().Render().find("</svg>"), std::string::npos);
}

TEST(LineChartTest, ManySeriesDifferInShapeOrColourOrDashes) {
  std::vector<std::string> looks;
  for (int i = 0; i < 30; ++i) {
    looks.push_back(ColorClass(i) + " " + std::to_string(i % kNumMarkers));
    for (int j = 0; j < i; ++j) EXPECT_NE(looks[i], looks[j]);
  }
  LineChart chart;
  for (int i = 0; i < 40; ++i) {
    chart.series.push_back(
        {"a mode with a name that is long " + std::to_string(i),
         false,
         {{1e9, 1.0 + i, 0.5, ""}},
         {}});
  }
  EXPECT_EQ(Count(chart.Render(), " line\""), 80u);
}

TEST(BarChartTest, PartsLieBehindEachOther) {
  BarChart chart;
  static constexpr BarChart::Part kParts[] = {{"one", 0}, {"two", 1}};
  chart.parts = {kParts[0], kParts[1]};
  BarChart::Bar bar;
  bar.label = "x";
  bar.parts = {25, 75};
  BarChart::Bar failed;
  failed.missing = "failed: <no>";
  BarChart::Bar odd;
  odd.parts = {kNaN, -5};
  odd.samples = {kNaN};
  odd.bound = kNaN;
  chart.groups = {{"group", {bar, failed, odd}}};
  const std::string svg = chart.Render();
  // 0 to 100 over 54 to 600.
  EXPECT_NE(svg.find("class=\"part p0\" x=\"54\" y="), std::string::npos);
  EXPECT_NE(svg.find("width=\"136.5\""), std::string::npos) << svg;
  EXPECT_NE(svg.find("class=\"part p1\" x=\"190.5\""), std::string::npos);
  EXPECT_NE(svg.find("width=\"409.5\""), std::string::npos);
  EXPECT_EQ(Count(svg, "failed: &lt;no&gt;"), 2u) << "text, and of a pointer";
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST(HeatMapTest, UnknownCellsAreNotZeros) {
  HeatMap map;
  map.columns = {{"0", "zero"}, {"1", ""}, {"2", ""}, {"3", ""}};
  map.max = 10;
  map.groups = {{"", {{"row", {10.0, 0.0, std::nullopt, kNaN}, ""}}}};
  const std::string svg = map.Render();
  EXPECT_EQ(Count(svg, "class=\"unknown\""), 3u) << "with the legend's";
  EXPECT_NE(svg.find("row, zero: 10.0</title>"), std::string::npos) << svg;
  EXPECT_EQ(Count(svg, ": not known</title>"), 2u);
  EXPECT_NE(HeatMap().Render().find("</svg>"), std::string::npos);
}

TEST(HtmlTableTest, CsvHasWhatWasMeasuredInQuotesWhereNeeded) {
  HtmlTable table("c");
  table.AddColumn("A", "a");
  table.AddColumn("B", "b", true);
  EXPECT_EQ(table.ToCsv(), "a,b\n");
  table.BeginRow();
  table.AddCell("x,\"y\"\n", "x,\"y\"\n");
  table.AddCell("1.2", "1.23456", true);
  EXPECT_EQ(table.ToCsv(), "a,b\n\"x,\"\"y\"\"\n\",1.23456\n");
  const std::string html = table.ToHtml();
  EXPECT_NE(html.find("<th scope=\"row\">x,&quot;y&quot;"), std::string::npos);
  EXPECT_NE(html.find("<td class=\"n\">1.2</td>"), std::string::npos);
}

TEST(HtmlPageTest, ALinkHoldsItsFile) {
  EXPECT_EQ(DownloadLink("a.csv", "text/csv", "a b\n\"#&\u00b1", "Save"),
            "<a class=\"csv\" download=\"a.csv\" href=\"data:text/csv;"
            "charset=utf-8,a%20b%0A%22%23%26%C2%B1\">Save</a>\n");
}

}  // namespace
}  // namespace flashelm::cli
