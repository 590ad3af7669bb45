// The figures of a report, one for each model: a chart, what it says, and its
// table. Each function adds nothing where no row has such a figure.
#ifndef FLASHELM_CLI_REPORT_FIGURES_H_
#define FLASHELM_CLI_REPORT_FIGURES_H_

#include "cli/html_page.h"
#include "cli/report_rows.h"

namespace flashelm::cli {

// Tokens per second against the budget, a line for each mode, for each test.
void AddSpeedFigures(const ReportRows& rows, HtmlPage& page);
// Where a token's time goes.
void AddTimeFigures(const ReportRows& rows, HtmlPage& page);
// What a token reads.
void AddFlashFigures(const ReportRows& rows, HtmlPage& page);
// How long the first token takes, and how evenly the others come.
void AddFirstTokenFigures(const ReportRows& rows, HtmlPage& page);
void AddLatencyFigures(const ReportRows& rows, HtmlPage& page);
// What each layer reads, and how many of its neurons were in RAM.
void AddLayerFigures(const ReportRows& rows, HtmlPage& page);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_REPORT_FIGURES_H_
