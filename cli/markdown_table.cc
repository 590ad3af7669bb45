#include "cli/markdown_table.h"

#include <cstdint>

#include "core/base/format.h"
#include "core/memory_plan.h"

namespace flashelm::cli {

std::string MarkdownTable::Head() const {
  std::vector<std::string> names;
  std::string rule = "|";
  for (const Column& column : columns_) {
    names.push_back(column.name);
    rule += std::string(column.width + 1, '-') + ":|";
  }
  return Line(names) + rule + "\n";
}

std::string MarkdownTable::Row(const Json& row) const {
  std::vector<std::string> cells;
  for (const Column& column : columns_) cells.push_back(column.cell(row));
  return Line(cells);
}

std::string MarkdownTable::Line(const std::vector<std::string>& cells) const {
  std::string line;
  for (size_t i = 0; i < columns_.size(); ++i) {
    std::string cell;
    for (const char c : cells[i]) {
      if (c == '|') cell += '\\';
      cell += c == '\n' || c == '\r' ? ' ' : c;
    }
    line += fmt::format("| {:>{}} ", cell, columns_[i].width);
  }
  return line + "|\n";
}

std::string NumberCell(const Json& value, int digits) {
  return value.is_number() ? fmt::format("{:.{}f}", value.get<double>(), digits)
                           : "-";
}

std::string BytesCell(const Json& value) {
  return value.is_number()
             ? FormatBytes(static_cast<uint64_t>(value.get<double>()))
             : "-";
}

std::string TextCell(const Json& value) {
  return value.is_string() ? value.get<std::string>() : "-";
}

}  // namespace flashelm::cli
