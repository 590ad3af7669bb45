#include "cli/report_table.h"

#include <string_view>
#include <utility>

#include "cli/svg.h"
#include "core/base/format.h"

namespace flashelm::cli {
namespace {

void AddRecordCell(const ReportRow& row, const ReportColumn& column,
                   HtmlTable& table) {
  const std::string_view key = column.key;
  if (key == "held") {
    const char* const text = row.is_held ? "yes" : "no, not with mmap alone";
    return table.AddCell(text, text);
  }
  if (key == "bound_tps" || key == "of_bound") {
    auto value = row.BoundOfSpeed();
    if (value && key == "of_bound") {
      const auto rate = row.Number("avg_ts");
      value = rate ? std::optional(*rate / *value) : std::nullopt;
    }
    return AddNumberCell(value, column.kind, "", table);
  }
  AddNumberCell(row.Number(key), column.kind,
                Dump(FindValue(*row.record, key), -1), table);
}

}  // namespace

void AddNumberCell(const std::optional<double>& value, CellKind kind,
                   std::string raw, HtmlTable& table) {
  if (!value) return table.AddCell("-", "", true);
  if (raw.empty()) raw = Dump(Json(*value), -1);
  table.AddCell(kind == CellKind::kBytes     ? SizeText(*value)
                : kind == CellKind::kPercent ? ShortNumber(*value * 100) + " %"
                                             : ShortNumber(*value),
                raw, true);
}

ChosenRows ChooseRows(std::span<const ReportRow> rows,
                      bool (*chooses)(const ReportRow& row)) {
  ChosenRows chosen;
  for (const ReportRow& row : rows) {
    if (chooses(row)) chosen.push_back(&row);
  }
  return chosen;
}

HtmlTable MakeReportTable(std::string_view caption, const ChosenRows& rows,
                          std::span<const ReportColumn> columns,
                          const MoreCells& more) {
  HtmlTable table(caption);
  table.AddColumn("Mode", "mode");
  table.AddColumn("Test", "test");
  table.AddColumn("Budget", "mem_budget_bytes", true);
  for (const ReportColumn& column : columns) {
    table.AddColumn(column.text, column.key, column.kind != CellKind::kText);
  }
  if (more) more(nullptr, table);
  table.AddColumn("Failed", "error");
  for (const ReportRow* row : rows) {
    table.BeginRow();
    table.AddCell(row->mode, row->mode);
    table.AddCell(row->test, row->test);
    table.AddCell(row->budget,
                  row->budget_bytes
                      ? Dump(FindValue(*row->record, "mem_budget_bytes"), -1)
                      : "",
                  true);
    for (const ReportColumn& column : columns) {
      AddRecordCell(*row, column, table);
    }
    if (more) more(row, table);
    table.AddCell(row->has_failed() ? row->error : "no", row->error);
  }
  return table;
}

}  // namespace flashelm::cli
