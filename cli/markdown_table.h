// A table in Markdown, whose rows appear one by one.
#ifndef FLASHELM_CLI_MARKDOWN_TABLE_H_
#define FLASHELM_CLI_MARKDOWN_TABLE_H_

#include <string>
#include <utility>
#include <vector>

#include "cli/record.h"

namespace flashelm::cli {

// A table of records. All its text ends with a newline.
class MarkdownTable {
 public:
  struct Column {
    const char* name;
    int width;
    std::string (*cell)(const Json& row);
  };
  explicit MarkdownTable(std::vector<Column> columns)
      : columns_(std::move(columns)) {}

  std::string Head() const;
  // What would end a cell or a line is escaped.
  std::string Row(const Json& row) const;

 private:
  std::string Line(const std::vector<std::string>& cells) const;

  std::vector<Column> columns_;
};

// "-" for what is no number, or no text.
std::string NumberCell(const Json& value, int digits);
std::string BytesCell(const Json& value);
std::string TextCell(const Json& value);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_MARKDOWN_TABLE_H_
