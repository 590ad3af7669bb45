#include "cli/bench_report.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "cli/bench_record.h"
#include "cli/html_page.h"
#include "cli/report_figures.h"
#include "cli/report_rows.h"
#include "cli/report_table.h"
#include "cli/svg.h"
#include "core/base/format.h"

namespace flashelm::cli {
namespace {

// What is neither a figure of a row nor its configuration.
constexpr const char* kMachineKeys[] = {"cpu",
                                        "kernel",
                                        "fs_type",
                                        "block_device",
                                        "storage_model",
                                        "mem_available_bytes",
                                        "version",
                                        "build_commit",
                                        "simd",
                                        "io_backend",
                                        "direct_io",
                                        "n_threads",
                                        "n_ctx",
                                        "n_batch",
                                        "planned_bytes",
                                        "model_path",
                                        "model_size_bytes",
                                        "n_params",
                                        "weights",
                                        "test_time",
                                        "cache_state",
                                        "cached_bytes",
                                        "cgroup_limit_bytes"};

void AddFact(std::string_view figure, std::string_view text,
             std::string& list) {
  list += "<li><b>" + EscapeMarkup(figure) + "</b><span>" + EscapeMarkup(text) +
          "</span></li>\n";
}

// The fastest of a model's rows, and the fastest in the smallest budget, of
// those that were held.
void AddFactsOf(const ReportModel& model, std::string& list) {
  const ReportRow* best = nullptr;
  const ReportRow* smallest = nullptr;
  const auto rate = [](const ReportRow* row) {
    return row->Number("avg_ts").value_or(0);
  };
  for (const ReportRow& row : model.rows) {
    if (row.has_failed() || !row.generates() || !row.budget_bytes ||
        row.Number("n_prompt").value_or(0) > 0) {
      continue;
    }
    // One that nothing held is the best only where none was held.
    if (best == nullptr || row.is_held > best->is_held ||
        (row.is_held == best->is_held && rate(&row) > rate(best))) {
      best = &row;
    }
    if (!row.is_held) continue;
    if (smallest == nullptr || *row.budget_bytes < *smallest->budget_bytes ||
        (*row.budget_bytes == *smallest->budget_bytes &&
         rate(&row) > rate(smallest))) {
      smallest = &row;
    }
  }
  if (best == nullptr) return;
  AddFact(ShortNumber(rate(best)) + " tokens/s",
          fmt::format("{} at best: {}, budget {}{}", model.name, best->mode,
                      best->budget, best->is_held ? "" : ", not held"),
          list);
  if (smallest == nullptr || smallest == best) return;
  std::string text = fmt::format("{} in the smallest budget that was held, {}",
                                 model.name, SizeText(*smallest->budget_bytes));
  if (model.file_bytes && *model.file_bytes > 0) {
    Append(text, ", {:.0f} % of the model file",
           100 * *smallest->budget_bytes / *model.file_bytes);
  }
  text += ": " + smallest->mode;
  if (const auto bound = smallest->BoundOfSpeed()) {
    text +=
        fmt::format(", {:.0f} % of the bound", 100 * rate(smallest) / *bound);
  }
  AddFact(ShortNumber(rate(smallest)) + " tokens/s", text, list);
}

void AddFacts(const ReportRows& rows, std::span<const Json> records,
              HtmlPage& page) {
  std::string list;
  for (const ReportModel& model : rows.models()) AddFactsOf(model, list);
  const auto num_failed =
      std::count_if(records.begin(), records.end(), [](const Json& record) {
        return FindValue(record, "error").is_string();
      });
  if (num_failed > 0) {
    AddFact(fmt::format("{} of {} rows failed", num_failed, records.size()),
            "Each is shown where its figures would be, with the reason.", list);
  }
  if (!list.empty())
    page.AddMarkup("<ul class=\"facts\">\n" + list + "</ul>\n");
}

std::string ConfigText(const Json& value) {
  if (value.is_null()) return "-";
  return value.is_string() ? value.get<std::string>() : Dump(value, -1);
}

// What is the same in all rows in one table, what is not in another.
void AddConfiguration(std::span<const Json> records, HtmlPage& page) {
  std::vector<std::string> keys(std::begin(kMachineKeys),
                                std::end(kMachineKeys));
  const Json empty = EmptyRow();  // Outlives what goes through a part of it.
  for (const auto& [key, value] : empty["config"].items()) {
    keys.push_back("config." + key);
  }
  HtmlTable same("The same in all rows");
  same.AddColumn("Key", "key");
  same.AddColumn("Value", "value");
  HtmlTable different("What differs from row to row");
  different.AddColumn("Row", "row");
  different.AddColumn("Test", "test");
  std::vector<std::string> differing;
  const auto add = [](const Json& value, HtmlTable& table) {
    const std::string text = ConfigText(value);
    table.AddCell(text, value.is_null() ? "" : text, value.is_number());
  };
  for (const std::string& key : keys) {
    const Json& first = FindValue(records.front(), key);
    if (std::all_of(records.begin(), records.end(), [&](const Json& record) {
          return FindValue(record, key) == first;
        })) {
      same.BeginRow();
      same.AddCell(key, key);
      add(first, same);
    } else {
      differing.push_back(key);
      different.AddColumn(key, key, first.is_number());
    }
  }
  for (size_t i = 0; i < records.size(); ++i) {
    different.BeginRow();
    add(Json(i + 1), different);
    add(FindValue(records[i], "test"), different);
    for (const std::string& key : differing) {
      add(FindValue(records[i], key), different);
    }
  }
  page.AddTable(same, "configuration.csv");
  if (!differing.empty()) page.AddTable(different, "differences.csv");
}

void AddMachine(std::span<const Json> records, HtmlPage& page) {
  page.BeginSection("machine", "Machine, configuration, command");
  std::vector<std::string> commands;
  for (const Json& record : records) {
    std::string command = FindText(record, "command");
    if (!command.empty() && std::find(commands.begin(), commands.end(),
                                      command) == commands.end()) {
      commands.push_back(std::move(command));
    }
  }
  if (commands.empty()) {
    page.AddParagraph("The records do not say which command measured them.");
  } else {
    page.AddParagraph("To measure it again:");
    for (const std::string& command : commands) {
      page.AddMarkup("<pre><code>" + EscapeMarkup(command) + "</code></pre>\n");
    }
  }
  page.AddParagraph(
      "Keys are those of the records; docs/BENCHMARKING.md of FlashELM says "
      "what each means.");
  AddConfiguration(records, page);
  std::string lines;
  for (const Json& record : records) lines += Dump(record, -1) + "\n";
  page.AddMarkup("<p>" +
                 DownloadLink("records.jsonl", "application/json", lines,
                              "Save all records as JSON lines") +
                 "</p>\n");
}

std::string SubtitleOf(std::span<const Json> records, const ReportRows& rows) {
  std::vector<std::string> parts;
  const auto add = [&](const std::string& part) {
    if (part.empty() ||
        std::find(parts.begin(), parts.end(), part) != parts.end()) {
      return;
    }
    parts.push_back(part);
  };
  for (const ReportModel& model : rows.models()) add(model.name);
  for (const Json& record : records) add(FindText(record, "cpu"));
  if (!records.empty())
    add(FindText(records.front(), "test_time").substr(0, 10));
  std::string text;
  for (const std::string& part : parts) {
    text += (text.empty() ? "" : " \u00b7 ") + part;
  }
  return text;
}

}  // namespace

std::string RenderBenchReport(std::span<const Json> records) {
  const ReportRows rows(records);
  HtmlPage page("FlashELM benchmark", SubtitleOf(records, rows));
  if (records.empty()) {
    page.AddParagraph("No row was measured.");
    return page.Finish();
  }
  AddFacts(rows, records, page);
  AddSpeedFigures(rows, page);
  AddTimeFigures(rows, page);
  AddFlashFigures(rows, page);
  AddFirstTokenFigures(rows, page);
  AddLatencyFigures(rows, page);
  AddLayerFigures(rows, page);
  AddMachine(records, page);
  return page.Finish();
}

}  // namespace flashelm::cli
