#include "cli/html_page.h"

#include "cli/html_style.h"
#include "cli/svg.h"
#include "core/base/format.h"

namespace flashelm::cli {
namespace {

// For a data: address within an attribute in double quotes.
std::string PercentEncode(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool is_plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
        (c >= '0' && c <= '9') ||
        std::string_view("-_.~,:;/()!*@").find(c) != std::string_view::npos;
    if (is_plain) {
      out += c;
    } else {
      Append(out, "%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

std::string Element(std::string_view name, std::string_view text) {
  return fmt::format("<{0}>{1}</{0}>\n", name, EscapeMarkup(text));
}

}  // namespace

void HtmlTable::AddCsv(std::string_view text) {
  if (!is_first_) csv_ += ',';
  if (text.find_first_of(",\"\r\n") == std::string_view::npos) {
    csv_ += text;
    return;
  }
  csv_ += '"';
  for (const char c : text) {
    if (c == '"') csv_ += '"';
    csv_ += c;
  }
  csv_ += '"';
}

void HtmlTable::AddColumn(std::string_view text, std::string_view key,
                          bool is_number) {
  Append(head_, "<th scope=\"col\"{}>{}</th>", is_number ? " class=\"n\"" : "",
         EscapeMarkup(text));
  AddCsv(key);
  is_first_ = false;
}

void HtmlTable::BeginRow() {
  body_ += body_.empty() ? "<tr>" : "</tr>\n<tr>";
  csv_ += '\n';
  is_first_ = true;
}

void HtmlTable::AddCell(std::string_view text, std::string_view raw,
                        bool is_number) {
  Append(body_, "<{}{}>{}</{}>", is_first_ ? "th scope=\"row\"" : "td",
         is_number ? " class=\"n\"" : "", EscapeMarkup(text),
         is_first_ ? "th" : "td");
  AddCsv(raw);
  is_first_ = false;
}

std::string HtmlTable::ToHtml() const {
  std::string html;
  Append(html,
         "<table>\n<caption>{}</caption>\n<thead><tr>{}</tr></thead>\n<tbody>\n"
         "{}{}</tbody>\n</table>\n",
         EscapeMarkup(caption_), head_, body_, body_.empty() ? "" : "</tr>\n");
  return html;
}

std::string DownloadLink(std::string_view file_name, std::string_view type,
                         std::string_view content, std::string_view label) {
  return fmt::format(
      "<a class=\"csv\" download=\"{}\" href=\"data:{};charset=utf-8,{}\">{}"
      "</a>\n",
      EscapeMarkup(file_name), type, PercentEncode(content),
      EscapeMarkup(label));
}

void HtmlPage::BeginSection(std::string_view id, std::string_view heading) {
  if (is_in_section_) body_ += "</section>\n";
  is_in_section_ = true;
  const std::string text = EscapeMarkup(heading);
  Append(contents_, "<li><a href=\"#{}\">{}</a></li>\n", id, text);
  Append(body_, "<section aria-labelledby=\"{0}\">\n<h2 id=\"{0}\">{1}</h2>\n",
         id, text);
}

void HtmlPage::AddHeading(std::string_view heading) {
  body_ += Element("h3", heading);
}

void HtmlPage::AddParagraph(std::string_view text) {
  body_ += Element("p", text);
}

void HtmlPage::AddFigure(std::string_view svg, std::string_view name,
                         std::string_view caption, const HtmlTable& table,
                         std::string_view csv_name) {
  Append(body_,
         "<figure>\n<div class=\"scroll\" tabindex=\"0\" role=\"group\" "
         "aria-label=\"{}\">\n",
         EscapeMarkup(name));
  body_ += svg;
  body_ += "</div>\n" + Element("figcaption", caption);
  body_ += "<details><summary>Table</summary>\n";
  AddTable(table, "");
  body_ += "</details>\n";
  body_ += DownloadLink(csv_name, "text/csv", table.ToCsv(), "Save as CSV");
  body_ += "</figure>\n";
}

void HtmlPage::AddTable(const HtmlTable& table, std::string_view csv_name) {
  Append(body_,
         "<div class=\"scroll\" tabindex=\"0\" role=\"group\" "
         "aria-label=\"{}\">\n",
         EscapeMarkup(table.caption()));
  body_ += table.ToHtml() + "</div>\n";
  if (csv_name.empty()) return;
  body_ += DownloadLink(csv_name, "text/csv", table.ToCsv(), "Save as CSV");
}

std::string HtmlPage::Finish() const {
  const std::string title = EscapeMarkup(title_);
  std::string page =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n"
      "<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\">\n"
      "<meta name=\"color-scheme\" content=\"light dark\">\n"
      "<link rel=\"icon\" href=\"data:,\">\n<title>";
  page += title + "</title>\n<style>\n" + kHtmlStyle;
  page +=
      "</style>\n</head>\n<body>\n"
      "<a class=\"skip\" href=\"#main\">Skip to the results</a>\n";
  page += kHtmlPatterns;
  page += "<header>\n<h1>" + title + "</h1>\n<p class=\"sub\">" +
          EscapeMarkup(subtitle_) +
          "</p>\n<nav aria-label=\"Contents\"><ul>\n" + contents_ +
          "</ul></nav>\n</header>\n<main id=\"main\">\n" + body_;
  if (is_in_section_) page += "</section>\n";
  return page +
         "</main>\n<footer><p>This page holds everything it shows, and loads "
         "nothing.</p></footer>\n</body>\n</html>\n";
}

}  // namespace flashelm::cli
