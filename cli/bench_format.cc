#include "cli/bench_format.h"

#include <cerrno>
#include <optional>
#include <string_view>

#include "cli/bench_record.h"
#include "cli/bench_report.h"
#include "core/base/format.h"
#include "core/text_file.h"

namespace flashelm::cli {

Result<TextSpool> TextSpool::Create() {
  TextSpool spool;
  spool.file_.reset(std::tmpfile());
  const int error = errno;
  if (spool.file_ == nullptr) {
    return ErrnoStatus(error, "cannot make a temporary file for records");
  }
  return spool;
}

Status TextSpool::Append(const std::string& text) {
  std::FILE* const file = file_.get();
  if (std::fseek(file, 0, SEEK_END) != 0 ||
      std::fwrite(text.data(), 1, text.size(), file) != text.size() ||
      std::fflush(file) != 0) {
    return ResourceExhausted("cannot keep a record of ", text.size(),
                             " bytes in a temporary file");
  }
  ends_.push_back(std::ftell(file));
  return OkStatus();
}

Result<std::string> TextSpool::Read(size_t i) const {
  const long begin = i == 0 ? 0 : ends_[i - 1];
  std::string text(static_cast<size_t>(ends_[i] - begin), '\0');
  if (std::fseek(file_.get(), begin, SEEK_SET) != 0 ||
      std::fread(text.data(), 1, text.size(), file_.get()) != text.size()) {
    return Unavailable("cannot read a record of ", text.size(),
                       " bytes back from a temporary file");
  }
  return text;
}

namespace {

std::optional<BenchFormat> FormatOf(std::string_view name) {
  if (name == "md") return BenchFormat::kMarkdown;
  if (name == "csv") return BenchFormat::kCsv;
  if (name == "json") return BenchFormat::kJson;
  if (name == "jsonl") return BenchFormat::kJsonLines;
  return std::nullopt;
}

// visit(name, value) for the cells of a record: those of objects in it become
// "object.key", so that there are as many in every record.
template <class Visit>
void ForEachCell(const Json& row, const Visit& visit) {
  static const Json kNoCgroup = EmptyCgroup();
  for (const auto& [key, value] : row.items()) {
    const Json& object = key == "cgroup" && value.is_null() ? kNoCgroup : value;
    if (!object.is_object()) {
      visit(key, value);
      continue;
    }
    for (const auto& [name, part] : object.items()) {
      visit(key + "." + name, part);
    }
  }
}

// Nothing for null; text and lists in quotes, those within doubled.
std::string CsvCell(const Json& value) {
  if (value.is_null()) return "";
  if (!value.is_string() && !value.is_array()) return Dump(value, -1);
  const std::string text =
      value.is_string() ? value.get<std::string>() : Dump(value, -1);
  std::string cell = "\"";
  for (const char c : text) {
    if (c == '"') cell += '"';
    cell += c;
  }
  return cell + "\"";
}

void Print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

}  // namespace

Result<BenchOutputs> BenchOutputs::Create(
    const std::vector<std::string>& specs, const std::string& html,
    const std::vector<std::string>& inputs, std::string title,
    MarkdownTable table) {
  FLASHELM_ASSIGN_OR_RETURN(TextSpool spool, TextSpool::Create());
  BenchOutputs outputs(std::move(title), std::move(table), std::move(spool));
  for (const std::string& spec : specs) {
    const size_t equals = spec.find('=');
    const auto format = FormatOf(spec.substr(0, equals));
    if (!format || equals + 1 == spec.size()) {
      return InvalidArgument("-o: \"", spec,
                             "\" is no output; there are md, csv, json and "
                             "jsonl, each also with a file, as csv=FILE");
    }
    Output output = {*format, ""};
    if (equals != std::string::npos) output.path = spec.substr(equals + 1);
    FLASHELM_RETURN_IF_ERROR(
        outputs.AddOutput(std::move(output), "-o " + spec, inputs));
  }
  if (specs.empty()) outputs.outputs_.push_back({BenchFormat::kMarkdown, ""});
  if (!html.empty()) {
    FLASHELM_RETURN_IF_ERROR(outputs.AddOutput({BenchFormat::kHtml, html},
                                               "--html " + html, inputs));
  }
  return outputs;
}

Status BenchOutputs::AddOutput(Output output, const std::string& flag,
                               const std::vector<std::string>& inputs) {
  for (const Output& other : outputs_) {
    if (other.path != output.path) continue;
    return InvalidArgument(flag, ": there is another output for ",
                           output.path.empty()
                               ? "standard output; name a file, as csv=FILE"
                               : output.path);
  }
  if (!output.path.empty()) {
    FLASHELM_RETURN_IF_ERROR(CheckOutputPath(output.path, inputs));
  }
  outputs_.push_back(std::move(output));
  return OkStatus();
}

std::string BenchOutputs::Head(BenchFormat format) const {
  switch (format) {
    case BenchFormat::kMarkdown:
      return title_ + "\n\n" + table_.Head();
    case BenchFormat::kCsv: {
      std::string line;
      ForEachCell(EmptyRow(), [&](const std::string& name, const Json&) {
        line += (line.empty() ? "" : ",") + name;
      });
      return line + "\n";
    }
    case BenchFormat::kJson:
    case BenchFormat::kJsonLines:
    case BenchFormat::kHtml:
      break;
  }
  return "";
}

std::string BenchOutputs::Row(BenchFormat format, const Json& row,
                              size_t index) const {
  switch (format) {
    case BenchFormat::kMarkdown:
      return table_.Row(row);
    case BenchFormat::kCsv: {
      std::string line;
      bool is_first = true;
      ForEachCell(row, [&](const std::string&, const Json& value) {
        if (!is_first) line += ',';
        is_first = false;
        line += CsvCell(value);
      });
      return line + "\n";
    }
    case BenchFormat::kJson:
      return (index == 0 ? "[\n" : ",\n") + Dump(row, 2);
    case BenchFormat::kJsonLines:
    case BenchFormat::kHtml:
      break;
  }
  return Dump(row, -1) + "\n";
}

std::string BenchOutputs::End(BenchFormat format, size_t num_rows) const {
  if (format != BenchFormat::kJson) return "";
  return num_rows == 0 ? "[]\n" : "\n]\n";
}

Result<std::string> BenchOutputs::FileText(BenchFormat format) const {
  std::vector<Json> records;  // For what needs all of them at once.
  std::string text = Head(format);
  for (size_t i = 0; i < spool_.size(); ++i) {
    FLASHELM_ASSIGN_OR_RETURN(const std::string json, spool_.Read(i));
    Json record = Json::parse(json);
    if (format == BenchFormat::kHtml) {
      records.push_back(std::move(record));
    } else {
      text += Row(format, record, i);
    }
  }
  if (format == BenchFormat::kHtml) return RenderBenchReport(records);
  return text + End(format, spool_.size());
}

void BenchOutputs::Begin() {
  for (const Output& output : outputs_) {
    if (output.path.empty()) Print(Head(output.format));
  }
}

Status BenchOutputs::Add(const Json& row) {
  const size_t index = spool_.size();
  FLASHELM_RETURN_IF_ERROR(spool_.Append(Dump(row, -1)));
  for (const Output& output : outputs_) {
    if (output.path.empty()) Print(Row(output.format, row, index));
  }
  return OkStatus();
}

Status BenchOutputs::Finish() {
  for (const Output& output : outputs_) {
    if (output.path.empty()) {
      Print(End(output.format, spool_.size()));
      continue;
    }
    FLASHELM_ASSIGN_OR_RETURN(const std::string text, FileText(output.format));
    FLASHELM_RETURN_IF_ERROR(WriteTextFile(output.path, text));
  }
  return OkStatus();
}

}  // namespace flashelm::cli
