// Records of a benchmark, sorted for a report: by model, test and mode, which
// is all that differs beside the budget. Records may come from a file, so no
// key and no type is relied on.
#ifndef FLASHELM_CLI_REPORT_ROWS_H_
#define FLASHELM_CLI_REPORT_ROWS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/record.h"

namespace flashelm::cli {

// A value of a record, or of its "config" or "layers" ("config.io"); null where
// there is none. Lives as long as the record.
const Json& FindValue(const Json& record, std::string_view path);
// Nothing where it is no number, or not finite.
std::optional<double> FindNumber(const Json& record, std::string_view path);
// Empty where it is no text.
std::string FindText(const Json& record, std::string_view path);
// "12.3 MiB", of a size that need not be a whole number.
std::string SizeText(double bytes);
// The numbers of an array; nothing where an element is none.
std::vector<std::optional<double>> FindNumbers(const Json& record,
                                               std::string_view path);

struct SpeedBound;

struct ReportRow {
  const Json* record = nullptr;
  const SpeedBound* bound = nullptr;  // Of its model and test.
  std::string test;                   // "tg32"
  std::string mode;                   // "uring, exact"
  std::optional<double> budget_bytes;
  std::string budget;  // "512 MiB (25%)"
  std::string error;   // Empty: it was measured.
  bool is_exact = false;
  bool is_held = true;  // The budget, by the engine or by a cgroup.

  std::optional<double> Number(std::string_view path) const {
    return FindNumber(*record, path);
  }
  bool has_failed() const { return !error.empty(); }
  bool generates() const { return Number("n_gen").value_or(0) > 0; }
  // Tokens per second that it could have had; nothing where that is not known:
  // for prompts, whose tokens share a pass, and where neurons are left out.
  std::optional<double> BoundOfSpeed() const;
};

// What exact decoding cannot exceed: every token takes all weights through the
// processor, and all that are not resident from flash.
struct SpeedBound {
  double weight_bytes = 0;  // M; 0: not known.
  // Of a budget, what is not weights; nothing: no row says so.
  std::optional<double> fixed_bytes;
  std::optional<double> flash_bytes_per_second;
  std::optional<double> ram_bytes_per_second;

  // Nothing when nothing is known.
  std::optional<double> TokensPerSecond(double budget_bytes) const;
  // The same where so many bytes of the weights are not resident.
  std::optional<double> OfStreamed(double streamed_bytes) const;
};

// Rows of one model and test, those of a mode together and by budget.
struct ReportTest {
  std::string name;
  std::span<const ReportRow> rows;
  SpeedBound bound;
};

struct ReportModel {
  std::string path;
  std::string name;  // "OpenELM 3.04B q4"
  std::optional<double> file_bytes;
  std::vector<ReportTest> tests;
  std::span<const ReportRow> rows;  // Of all tests.
};

// Where a rate of the flash comes from.
struct FlashRate {
  double bytes_per_second = 0;
  bool is_of_profile = false;  // Else the fastest of all rows.
};

// Points to the records, which outlive it, and to itself, so it stays where it
// was made.
class ReportRows {
 public:
  explicit ReportRows(std::span<const Json> records);
  ReportRows(const ReportRows&) = delete;
  ReportRows& operator=(const ReportRows&) = delete;

  const std::vector<ReportModel>& models() const { return models_; }
  const std::optional<FlashRate>& flash() const { return flash_; }

 private:
  void FillBounds(ReportModel& model) const;

  std::vector<ReportRow> rows_;
  std::vector<ReportModel> models_;
  std::optional<FlashRate> flash_;
};

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_REPORT_ROWS_H_
