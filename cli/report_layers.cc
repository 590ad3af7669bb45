#include <algorithm>
#include <utility>

#include "cli/charts.h"
#include "cli/report_figures.h"
#include "cli/report_table.h"
#include "core/base/format.h"

namespace flashelm::cli {
namespace {

using Values = std::vector<std::optional<double>>;

// Bytes that a token reads of each layer, then of the output head.
Values BytesOf(const ReportRow& row) {
  const Json& record = *row.record;
  Values bytes = FindNumbers(record, "layers.streamed_bytes_per_token");
  const Values fresh = FindNumbers(record, "layers.fresh_bytes_per_token");
  for (size_t i = 0; i < bytes.size() && i < fresh.size(); ++i) {
    if (bytes[i] && fresh[i]) *bytes[i] += *fresh[i];
  }
  if (bytes.empty()) return bytes;
  bytes.push_back(row.Number("layers.head_streamed_bytes_per_token"));
  return bytes;
}

Values HitRatesOf(const ReportRow& row) {
  return FindNumbers(*row.record, "layers.cache_hit_rate");
}

std::string PercentText(double part) { return ShortNumber(part * 100) + " %"; }

// One of the two maps, with its table.
struct LayerFigure {
  const char* id;
  const char* name;
  const char* caption;
  bool has_head;
  CellKind kind;
  std::string (*format)(double value);
  Values (*values)(const ReportRow& row);
};

void AddMap(const ReportModel& model, const LayerFigure& figure, int index,
            HtmlPage& page) {
  HeatMap map;
  map.format = figure.format;
  map.column_title = figure.has_head ? "layer, and the output head" : "layer";
  map.max = figure.kind == CellKind::kPercent ? 1 : 0;
  ChosenRows chosen;
  for (const ReportRow& row : model.rows) {
    if (row.generates() && (row.has_failed() || !figure.values(row).empty())) {
      chosen.push_back(&row);
    }
  }
  size_t num_columns = 0;
  for (const ReportRow* row : chosen) {
    std::string heading = row->mode;
    if (model.tests.size() > 1) heading = row->test + ": " + heading;
    HeatMap::Row line;
    line.label = row->budget;
    if (!row->has_failed()) {
      line.values = figure.values(*row);
      for (const auto& value : line.values) {
        if (!value) continue;
        num_columns = std::max(num_columns, line.values.size());
        map.max = std::max(map.max, *value);
      }
    } else {
      line.missing = "failed: " + row->error;
    }
    if (map.groups.empty() || map.groups.back().heading != heading) {
      map.groups.push_back({std::move(heading), {}});
    }
    map.groups.back().rows.push_back(std::move(line));
  }
  if (num_columns == 0) return;
  const std::string name = model.name + ": " + figure.name;
  for (size_t i = 0; i < num_columns; ++i) {
    const bool is_head = figure.has_head && i + 1 == num_columns;
    const std::string number = std::to_string(i);
    map.columns.push_back({is_head ? "head" : number,
                           is_head ? "output head" : "layer " + number});
  }
  const HtmlTable table = MakeReportTable(
      name, chosen, {}, [&](const ReportRow* row, HtmlTable& to) {
        if (row == nullptr) {
          for (const HeatMap::Column& column : map.columns) {
            to.AddColumn(column.name, column.name, true);
          }
          return;
        }
        Values values = figure.values(*row);
        values.resize(num_columns);
        for (const auto& value : values) {
          AddNumberCell(value, figure.kind, "", to);
        }
      });
  if (map.max == 0) map.max = 1;
  map.text = {fmt::format("{}-{}", figure.id, index), name,
              "A line for each row, a cell for each layer, in a stronger "
              "colour the more. All values are in the table below."};
  page.AddHeading(name);
  page.AddFigure(map.Render(), name, figure.caption, table,
                 map.text.id + ".csv");
}

}  // namespace

void AddLayerFigures(const ReportRows& rows, HtmlPage& page) {
  bool has_bytes = false;
  for (const ReportModel& model : rows.models()) {
    for (const ReportRow& row : model.rows) {
      has_bytes |= row.generates() && !BytesOf(row).empty();
    }
  }
  if (!has_bytes) return;
  page.BeginSection("layers", "Layer by layer");
  int index = 0;
  for (const ReportModel& model : rows.models()) {
    ++index;
    AddMap(model,
           {"layer-bytes", "bytes per token",
            "What a token reads of each layer from flash: the stronger the "
            "colour, the more. "
            "OpenELM's layers grow, and so do their bytes.",
            true, CellKind::kBytes, SizeText, BytesOf},
           index, page);
    AddMap(model,
           {"layer-hits", "hit rate",
            "Part of the wanted neurons that were in RAM: the stronger the "
            "colour, the better. "
            "Of layers that are streamed whole, nothing is counted.",
            false, CellKind::kPercent, PercentText, HitRatesOf},
           index, page);
  }
}

}  // namespace flashelm::cli
