// A page of HTML that is whole by itself: nothing is loaded, nothing is run.
#ifndef FLASHELM_CLI_HTML_PAGE_H_
#define FLASHELM_CLI_HTML_PAGE_H_

#include <string>
#include <string_view>
#include <vector>

namespace flashelm::cli {

// A table for people, and the same for programs, as it is filled: columns
// first, then rows, each with a cell for every column.
class HtmlTable {
 public:
  explicit HtmlTable(std::string_view caption) : caption_(caption) {}

  // `key` names it in the CSV.
  void AddColumn(std::string_view text, std::string_view key,
                 bool is_number = false);
  void BeginRow();
  // As it is read, and as it was measured, for the CSV. The first cell names
  // the row.
  void AddCell(std::string_view text, std::string_view raw,
               bool is_number = false);

  const std::string& caption() const { return caption_; }
  std::string ToHtml() const;
  // A line of keys, then the raw cells, those that need it in quotes.
  std::string ToCsv() const { return csv_ + "\n"; }

 private:
  void AddCsv(std::string_view text);

  std::string caption_;
  std::string head_;
  std::string body_;
  std::string csv_;
  bool is_first_ = true;  // Of the columns, or of a row's cells.
};

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
