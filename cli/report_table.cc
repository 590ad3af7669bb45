#include "cli/report_table.h"

#include <string_view>
#include <utility>

#include "cli/svg.h"
#include "core/base/format.h"

namespace flashelm::cli {
namespace {

HtmlTable::Cell CellOf(const ReportRow& row, const ReportColumn& column) {
  const std::string_view key = column.key;
  if (key == "held") {
    return TextTableCell(row.is_held ? "yes" : "no, not with mmap alone");
  }
  const auto bound = key == "bound_tps" || key == "of_bound"
                         ? row.BoundOfSpeed()
                         : std::nullopt;
  if (key == "bound_tps") return NumberTableCell(bound, column.kind);
  if (key == "of_bound") {
    const auto rate = row.Number("avg_ts");
    return NumberTableCell(
        rate && bound ? std::optional(*rate / *bound) : std::nullopt,
        column.kind);
  }
  if (column.kind == CellKind::kText) {
    std::string text = FindText(*row.record, key);
    return {text.empty() ? "-" : text, text, false};
  }
  HtmlTable::Cell cell = NumberTableCell(row.Number(key), column.kind);
  // As the record has it, an integer as one.
  if (!cell.raw.empty()) cell.raw = Dump(FindValue(*row.record, key), -1);
  return cell;
}

}  // namespace

HtmlTable::Cell NumberTableCell(const std::optional<double>& value,
                                CellKind kind) {
  if (!value) return {"-", "", true};
  std::string text;
  switch (kind) {
    case CellKind::kBytes:
      text = SizeText(*value);
      break;
    case CellKind::kPercent:
      text = ShortNumber(*value * 100) + " %";
      break;
    case CellKind::kNumber:
    case CellKind::kText:
      text = ShortNumber(*value);
      break;
  }
  return {std::move(text), Dump(Json(*value), -1), true};
}

ChosenRows ChooseRows(std::span<const ReportRow> rows,
                      bool (*chooses)(const ReportRow& row)) {
  ChosenRows chosen;
  for (const ReportRow& row : rows) {
    if (chooses(row)) chosen.push_back(&row);
  }
  return chosen;
}

HtmlTable MakeReportTable(std::string caption, const ChosenRows& rows,
                          std::span<const ReportColumn> columns) {
  static constexpr ReportColumn kFirst[] = {
      {"Mode", "mode", CellKind::kText},
      {"Test", "test", CellKind::kText},
      {"Budget", "mem_budget_bytes", CellKind::kBytes}};
  HtmlTable table;
  table.caption = std::move(caption);
  for (const ReportColumn& column : kFirst) {
    table.head.push_back({column.text, column.key});
  }
  for (const ReportColumn& column : columns) {
    table.head.push_back({column.text, column.key});
  }
  table.head.push_back({"Failed", "error"});
  for (const ReportRow* row : rows) {
    std::vector<HtmlTable::Cell>& cells = table.rows.emplace_back();
    cells.push_back(TextTableCell(row->mode));
    cells.push_back(TextTableCell(row->test));
    cells.push_back(CellOf(*row, kFirst[2]));
    cells.back().text = row->budget;
    for (const ReportColumn& column : columns) {
      cells.push_back(CellOf(*row, column));
    }
    cells.push_back(TextTableCell(row->error));
    if (!row->has_failed()) cells.back().text = "no";
  }
  return table;
}

}  // namespace flashelm::cli
