// Tables of a report: a line for each row of a benchmark.
#ifndef FLASHELM_CLI_REPORT_TABLE_H_
#define FLASHELM_CLI_REPORT_TABLE_H_

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
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

// "-" and, raw, nothing for what is not known. `raw`: as the record has it;
// empty: the value as it is.
void AddNumberCell(const std::optional<double>& value, CellKind kind,
                   std::string raw, HtmlTable& table);

using ChosenRows = std::vector<const ReportRow*>;
ChosenRows ChooseRows(std::span<const ReportRow> rows,
                      bool (*chooses)(const ReportRow& row));

// Cells of columns that are no record's keys: of a row, or, for null, the
// columns themselves.
using MoreCells = std::function<void(const ReportRow* row, HtmlTable& table)>;

// A line for each row: mode, test and budget before `columns` and `more`, which
// may be empty, and whether it failed behind them.
HtmlTable MakeReportTable(std::string_view caption, const ChosenRows& rows,
                          std::span<const ReportColumn> columns,
                          const MoreCells& more = {});

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_REPORT_TABLE_H_
