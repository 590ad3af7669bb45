#include "cli/markdown_table.h"

#include <cassert>
#include <cstdint>

#include "core/base/format.h"
#include "core/memory_plan.h"

namespace flashelm::cli {

void MarkdownTable::PrintHead() const {
  std::vector<std::string> names;
  std::string rule = "|";
  for (const Column& column : columns_) {
    names.push_back(column.name);
    rule += std::string(column.width + 1, '-') + ":|";
  }
  PrintRow(names);
  fmt::print("{}\n", rule);
}

void MarkdownTable::PrintRow(const std::vector<std::string>& cells) const {
  assert(cells.size() >= columns_.size());
  for (size_t i = 0; i < columns_.size(); ++i) {
    fmt::print("| {:>{}} ", cells[i], columns_[i].width);
  }
  fmt::print("|\n");
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

}  // namespace flashelm::cli
