#include "cli/bench_from.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <utility>

#include "cli/bench_record.h"
#include "cli/bench_report.h"
#include "cli/verbs.h"
#include "core/text_file.h"

namespace flashelm::cli {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{64} << 20;

// Values deeper than any of a record, or objects with more keys than any, which
// would take long, are refused as they are read.
Result<Json> ParseRecord(const std::string& text, const std::string& name) {
  constexpr int kMaxDepth = 8;
  constexpr size_t kMaxKeys = 512;
  std::array<size_t, kMaxDepth + 1> num_keys = {};  // By depth.
  bool is_too_large = false;
  const Json::parser_callback_t looks = [&](int depth,
                                            Json::parse_event_t event, Json&) {
    is_too_large |= depth > kMaxDepth;
    if (is_too_large) return false;
    const auto at = static_cast<size_t>(depth);
    if (event == Json::parse_event_t::object_start && depth < kMaxDepth) {
      num_keys[at + 1] = 0;
    } else if (event == Json::parse_event_t::key) {
      is_too_large |= ++num_keys[at] > kMaxKeys;
    }
    return !is_too_large;
  };
  Json json = Json::parse(text, looks, /*allow_exceptions=*/false);
  if (is_too_large) {
    return DataLoss(name, ": no record of flashelm bench: more than ", kMaxKeys,
                    " keys in an object, or more than ", kMaxDepth,
                    " values within each other");
  }
  if (json.is_discarded()) {
    return DataLoss(name,
                    ": not valid JSON; expected what -o json or -o jsonl "
                    "writes");
  }
  return json;
}

Status AddRecord(const Json& record, const std::string& name,
                 std::vector<Json>& records) {
  if (!record.is_object() || !record.contains("schema_version")) {
    return DataLoss(name,
                    ": no record of flashelm bench; expected what -o json or "
                    "-o jsonl writes");
  }
  if (record["schema_version"] != Json(kBenchSchemaVersion)) {
    return Unimplemented(name, ": a record of version ",
                         Dump(record["schema_version"], -1), ", expected ",
                         kBenchSchemaVersion);
  }
  Json row = EmptyRow();
  for (auto& [key, value] : row.items()) {
    if (record.contains(key)) value = record[key];
  }
  records.push_back(std::move(row));
  return OkStatus();
}

}  // namespace

Result<std::vector<Json>> ReadRecords(const std::string& path) {
  FLASHELM_ASSIGN_OR_RETURN(const std::string text,
                            ReadTextFile(path, kMaxBytes));
  std::vector<Json> records;
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string::npos && text[first] == '[') {
    FLASHELM_ASSIGN_OR_RETURN(const Json array, ParseRecord(text, path));
    for (size_t i = 0; i < array.size(); ++i) {
      FLASHELM_RETURN_IF_ERROR(AddRecord(
          array[i], path + ": record " + std::to_string(i + 1), records));
    }
    return records;
  }
  size_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string name = path + ": line " + std::to_string(number);
    FLASHELM_ASSIGN_OR_RETURN(const Json record, ParseRecord(line, name));
    FLASHELM_RETURN_IF_ERROR(AddRecord(record, name, records));
  }
  return records;
}

Status RunBenchFrom(const BenchArgs& args) {
  FLASHELM_RETURN_IF_ERROR(CheckOutputPath(args.html, args.from));
  std::vector<Json> records;
  for (const std::string& path : args.from) {
    FLASHELM_ASSIGN_OR_RETURN(std::vector<Json> more, ReadRecords(path));
    std::move(more.begin(), more.end(), std::back_inserter(records));
  }
  return WriteTextFile(args.html, RenderBenchReport(records));
}

}  // namespace flashelm::cli
