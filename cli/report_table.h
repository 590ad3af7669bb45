// Tables of a report: a line for each row of a benchmark.
#ifndef FLASHELM_CLI_REPORT_TABLE_H_
#define FLASHELM_CLI_REPORT_TABLE_H_

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cli/html_page.h"
#include "cli/report_rows.h"

namespace flashelm::cli {

enum class CellKind { kText, kNumber, kBytes, kPercent };

// A column: what stands above it, the record's key, how it reads. Keys that are
// not the record's: "held", "bound_tps", "of_bound".
struct ReportColumn {
  const char* text;
  const char* key;
  CellKind kind;
};

// "-" and, raw, nothing for what is not known.
HtmlTable::Cell NumberTableCell(const std::optional<double>& value,
                                CellKind kind);

using ChosenRows = std::vector<const ReportRow*>;
ChosenRows ChooseRows(std::span<const ReportRow> rows,
                      bool (*chooses)(const ReportRow& row));

// A line for each row: mode, test and budget before `columns`, and whether it
// failed behind them.
HtmlTable MakeReportTable(std::string caption, const ChosenRows& rows,
                          std::span<const ReportColumn> columns);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_REPORT_TABLE_H_
