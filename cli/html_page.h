// A page of HTML that is whole by itself: nothing is loaded, nothing is run.
#ifndef FLASHELM_CLI_HTML_PAGE_H_
#define FLASHELM_CLI_HTML_PAGE_H_

#include <string>
#include <string_view>
#include <vector>

namespace flashelm::cli {

// A table for people, and the same for programs.
struct HtmlTable {
  struct Cell {
    std::string text;  // As it is read.
    std::string raw;   // As it was measured; in the CSV.
    bool is_number = false;
  };
  struct Column {
    std::string text;
    std::string key;  // In the CSV.
  };
  std::string caption;
  std::vector<Column> head;
  std::vector<std::vector<Cell>> rows;  // The first cell names the row.

  std::string ToHtml() const;
  // A line of keys, then the raw cells, those that need it in quotes.
  std::string ToCsv() const;
};

// A cell of text, whose raw form is the same.
HtmlTable::Cell TextTableCell(std::string text);

// A link that saves `content` as a file of that name, without any server.
std::string DownloadLink(std::string_view file_name, std::string_view type,
                         std::string_view content, std::string_view label);

class HtmlPage {
 public:
  HtmlPage(std::string title, std::string subtitle)
      : title_(std::move(title)), subtitle_(std::move(subtitle)) {}

  // Begins a section with a heading that the list of contents names. Text is
  // plain, as everywhere here but in AddMarkup().
  void BeginSection(std::string_view id, std::string_view heading);
  void AddHeading(std::string_view heading);  // Within a section.
  void AddParagraph(std::string_view text);
  void AddMarkup(std::string_view markup) { body_ += markup; }
  // A chart (SVG), what it shows, its table, folded, and that as a file.
  void AddFigure(std::string_view svg, std::string_view name,
                 std::string_view caption, const HtmlTable& table,
                 std::string_view csv_name);
  // A table that is open, in a frame that scrolls.
  void AddTable(const HtmlTable& table, std::string_view csv_name);

  std::string Finish() const;

 private:
  std::string title_;
  std::string subtitle_;
  std::string contents_;
  std::string body_;
  bool is_in_section_ = false;
};

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_HTML_PAGE_H_
