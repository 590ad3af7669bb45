// A table in Markdown, whose rows appear one by one.
#ifndef FLASHELM_CLI_MARKDOWN_TABLE_H_
#define FLASHELM_CLI_MARKDOWN_TABLE_H_

#include <string>
#include <utility>
#include <vector>

#include "cli/record.h"

namespace flashelm::cli {

class MarkdownTable {
 public:
  struct Column {
    const char* name;
    int width;
  };
  explicit MarkdownTable(std::vector<Column> columns)
      : columns_(std::move(columns)) {}

  void PrintHead() const;
  // A cell for each column; more are left out.
  void PrintRow(const std::vector<std::string>& cells) const;

 private:
  std::vector<Column> columns_;
};

// "-" for what is no number.
std::string NumberCell(const Json& value, int digits);
std::string BytesCell(const Json& value);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_MARKDOWN_TABLE_H_
