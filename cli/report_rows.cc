#include "cli/report_rows.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <utility>

#include "core/base/format.h"
#include "core/memory_plan.h"

namespace flashelm::cli {
namespace {

// What may tell rows apart: where a record has what was asked for, where it has
// what it came to, which a failed row lacks, and how that is named.
struct ModeKey {
  const char* asked;
  const char* got;
  const char* format;
  bool is_always_named = false;
};
constexpr ModeKey kModeKeys[] = {
    {"config.io", "io_backend", "{}", true},
    {"config.sparsity", "config.selector", "{}", true},
    {"config.kept_fraction", "config.kept_fraction", "keeps {}"},
    {"config.max_skipped", "config.max_skipped", "skips {}"},
    {"config.window", "config.window", "window {}"},
    {"config.neuron_reads", "config.neuron_reads", "reads {}"},
    {"config.kv_type", "kv_type", "KV {}"},
    {"config.threads", "n_threads", "{} threads"},
    {"config.batch_size", "config.batch_size", "batch {}"},
    {"config.ctx_size", "config.ctx_size", "context {}"},
    {"config.simd", "simd", "{}"},
    {"config.cache_state", "config.cache_state", "page cache {}"},
    {"config.cgroup", "config.cgroup", "cgroup {}"},
    {"build_commit", "build_commit", "commit {}"},
    {"cpu", "cpu", "{}"},
};

std::string PlainText(const Json& value) {
  if (value.is_null()) return "";
  return value.is_string() ? value.get<std::string>() : Dump(value, -1);
}

bool HasFailed(const Json& record) {
  return FindValue(record, "error").is_string();
}

// What a key came to in a record, or, in one that failed, in another of which
// the same was asked.
std::string ValueOf(const Json& record, const ModeKey& key,
                    std::span<const Json> records) {
  if (!HasFailed(record)) return PlainText(FindValue(record, key.got));
  const Json& asked = FindValue(record, key.asked);
  for (const Json& other : records) {
    if (!HasFailed(other) && FindValue(other, key.asked) == asked) {
      return PlainText(FindValue(other, key.got));
    }
  }
  return PlainText(asked);
}

// What rows of one model and test are told apart by.
class ModeNames {
 public:
  explicit ModeNames(std::span<const Json> records) {
    for (const Json& record : records) {
      std::vector<std::string> values;
      for (const ModeKey& key : kModeKeys) {
        values.push_back(ValueOf(record, key, records));
      }
      groups_.push_back(FindText(record, "model_path") + '\n' +
                        FindText(record, "test"));
      values_.push_back(std::move(values));
      ablations_.push_back(FindText(record, "ablation"));
    }
  }

  std::string NameOf(size_t record) const {
    std::string name = ablations_[record];
    if (!name.empty()) return name;
    for (size_t i = 0; i < std::size(kModeKeys); ++i) {
      const std::string& value = values_[record][i];
      if (value.empty()) continue;
      if (!kModeKeys[i].is_always_named && !Differs(record, i)) continue;
      if (!name.empty()) name += ", ";
      name += i == kSparsityKey && value == "off"
                  ? "exact"
                  : fmt::format(fmt::runtime(kModeKeys[i].format), value);
    }
    return name.empty() ? "all rows" : name;
  }

  bool IsExact(size_t record) const {
    return values_[record][kSparsityKey] == "off";
  }

 private:
  static constexpr size_t kSparsityKey = 1;

  bool Differs(size_t record, size_t key) const {
    for (size_t i = 0; i < values_.size(); ++i) {
      if (groups_[i] == groups_[record] &&
          values_[i][key] != values_[record][key]) {
        return true;
      }
    }
    return false;
  }

  std::vector<std::string> ablations_;
  std::vector<std::string> groups_;
  std::vector<std::vector<std::string>> values_;
};

ReportRow MakeRow(const Json& record, const ModeNames& names, size_t index) {
  ReportRow row;
  row.record = &record;
  row.test = FindText(record, "test");
  row.mode = names.NameOf(index);
  row.error = FindText(record, "error");
  row.budget_bytes = FindNumber(record, "mem_budget_bytes");
  const std::string asked = FindText(record, "config.mem_budget");
  row.budget = row.budget_bytes ? SizeText(*row.budget_bytes) : "no limit";
  if (row.budget_bytes && (asked.ends_with('%') || asked == "auto")) {
    row.budget += " (" + asked + ")";
  }
  row.is_exact = names.IsExact(index);
  const bool has_cgroup = HasFailed(record)
                              ? FindValue(record, "config.cgroup") == Json(true)
                              : FindValue(record, "cgroup").is_object();
  row.is_held = FindText(record, "config.io") != "mmap" || has_cgroup;
  return row;
}

// The place of a text among those there are, added if it is new.
size_t PlaceOf(const std::string& text, std::vector<std::string>& all) {
  const auto found = std::find(all.begin(), all.end(), text);
  const auto place = static_cast<size_t>(found - all.begin());
  if (found == all.end()) all.push_back(text);
  return place;
}

// Tokens per second of the fastest repetition, where tokens are generated and
// nothing else.
std::optional<double> FastestRepetition(const Json& record) {
  std::optional<double> fastest;
  if (FindNumber(record, "n_prompt") != 0.0) return fastest;
  for (const auto& rate : FindNumbers(record, "samples_ts")) {
    if (rate) fastest = std::max(fastest.value_or(0), *rate);
  }
  return fastest;
}

// Whether one processor and one device made all records: the fastest of several
// bounds none of the others.
bool AreOfOneMachine(std::span<const Json> records) {
  return std::ranges::all_of(records, [&](const Json& record) {
    return FindText(record, "cpu") == FindText(records[0], "cpu") &&
           FindText(record, "block_device") ==
               FindText(records[0], "block_device");
  });
}

std::optional<FlashRate> FastestFlash(std::span<const Json> records) {
  std::optional<FlashRate> rate;
  if (!AreOfOneMachine(records)) return rate;
  const auto raise = [&](std::optional<double> gbps, bool is_of_profile) {
    if (!gbps || *gbps <= 0) return;
    if (rate && rate->bytes_per_second >= *gbps * 1e9) return;
    rate = {*gbps * 1e9, is_of_profile};
  };
  for (const Json& record : records) {
    // Pages that the system had in its cache did not come from flash.
    const auto direct = record.find("direct_io");
    if (direct != record.end() && *direct == false) continue;
    raise(FindNumber(record, "flash_read_gbps"), false);
    // A mean over repetitions that differ is less than the fastest had.
    const auto streamed = FindNumber(record, "flash_bytes_bound_per_token");
    const auto fastest = FastestRepetition(record);
    if (streamed && fastest) raise(*streamed * *fastest * 1e-9, false);
    raise(FindNumber(record, "device_read_gbps"), true);
  }
  return rate;
}

// Where a record comes in a report: what it is of, in the order in which that
// first occurs, then by budget.
struct Order {
  size_t model;
  size_t test;
  size_t mode;
  double budget;
  size_t record;

  // For std::qsort(), whose code is a fraction of std::sort()'s.
  static int Compare(const void* left, const void* right) {
    const auto& a = *static_cast<const Order*>(left);
    const auto& b = *static_cast<const Order*>(right);
    if (a.model != b.model) return a.model < b.model ? -1 : 1;
    if (a.test != b.test) return a.test < b.test ? -1 : 1;
    if (a.mode != b.mode) return a.mode < b.mode ? -1 : 1;
    if (a.budget != b.budget) return a.budget < b.budget ? -1 : 1;
    return a.record < b.record ? -1 : 1;
  }
};

}  // namespace

const Json& FindValue(const Json& record, std::string_view path) {
  static const Json kNull;
  const Json* value = &record;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    if (!value->is_object()) return kNull;
    const auto found =
        value->find(std::string(path.substr(begin, end - begin)));
    if (found == value->end()) return kNull;
    value = &*found;
    begin = end + 1;
  }
  return *value;
}

std::optional<double> FindNumber(const Json& record, std::string_view path) {
  const Json& value = FindValue(record, path);
  if (!value.is_number()) return std::nullopt;
  const auto number = value.get<double>();
  return std::isfinite(number) ? std::optional(number) : std::nullopt;
}

std::string FindText(const Json& record, std::string_view path) {
  const Json& value = FindValue(record, path);
  return value.is_string() ? value.get<std::string>() : "";
}

std::string SizeText(double bytes) {
  constexpr double kMost = 1e19;  // That an integer holds.
  std::string text =
      FormatBytes(static_cast<uint64_t>(std::clamp(bytes, 0.0, kMost)));
  const size_t point = text.find('.');
  const size_t unit = text.find(' ');
  if (point < unit && text.find_first_not_of('0', point + 1) == unit) {
    text.erase(point, unit - point);
  }
  return text;
}

std::vector<std::optional<double>> FindNumbers(const Json& record,
                                               std::string_view path) {
  std::vector<std::optional<double>> numbers;
  const Json& values = FindValue(record, path);
  if (!values.is_array()) return numbers;
  for (const Json& value : values) {
    numbers.push_back(value.is_number() ? std::optional(value.get<double>())
                                        : std::nullopt);
    if (numbers.back() && !std::isfinite(*numbers.back())) {
      numbers.back().reset();
    }
  }
  return numbers;
}

std::optional<double> SpeedBound::OfStreamed(double streamed_bytes) const {
  double seconds = 0;
  if (flash_bytes_per_second) {
    seconds = streamed_bytes / *flash_bytes_per_second;
  }
  if (ram_bytes_per_second) {
    seconds = std::max(seconds, weight_bytes / *ram_bytes_per_second);
  }
  return seconds > 0 ? std::optional(1 / seconds) : std::nullopt;
}

std::optional<double> SpeedBound::TokensPerSecond(double budget_bytes) const {
  if (!fixed_bytes) return OfStreamed(0);
  return OfStreamed(std::clamp(weight_bytes - (budget_bytes - *fixed_bytes),
                               0.0, weight_bytes));
}

std::optional<double> ReportRow::BoundOfSpeed() const {
  if (has_failed() || !is_exact || !generates() ||
      Number("n_prompt").value_or(0) > 0 || bound->weight_bytes == 0) {
    return std::nullopt;
  }
  if (const auto streamed = Number("flash_bytes_bound_per_token")) {
    return bound->OfStreamed(*streamed);
  }
  if (!budget_bytes) return std::nullopt;
  return bound->TokensPerSecond(*budget_bytes);
}

ReportRows::ReportRows(std::span<const Json> records)
    : flash_(FastestFlash(records)) {
  const ModeNames names(records);
  std::vector<Order> order;
  std::vector<std::string> models;
  std::vector<std::string> tests;
  std::vector<std::string> modes;
  for (size_t i = 0; i < records.size(); ++i) {
    const Json& record = records[i];
    order.push_back(
        {PlaceOf(FindText(record, "model_path"), models),
         PlaceOf(FindText(record, "test"), tests) +
             // What most people look for comes first.
             (FindNumber(record, "n_prompt") == 0.0 ? 0 : records.size()),
         PlaceOf(names.NameOf(i), modes),
         FindNumber(record, "mem_budget_bytes").value_or(INFINITY), i});
  }
  if (!order.empty()) {
    std::qsort(order.data(), order.size(), sizeof(Order), Order::Compare);
  }
  rows_.reserve(order.size());
  for (const Order& place : order) {
    rows_.push_back(MakeRow(records[place.record], names, place.record));
  }
  for (size_t i = 0; i < order.size(); ++i) {
    const bool is_new_model = i == 0 || order[i].model != order[i - 1].model;
    if (is_new_model) {
      models_.emplace_back();
      models_.back().path = models[order[i].model];
    }
    ReportModel& model = models_.back();
    const Json& record = *rows_[i].record;
    if (model.name.empty()) model.name = FindText(record, "model_type");
    if (!model.file_bytes) {
      model.file_bytes = FindNumber(record, "model_size_bytes");
    }
    if (is_new_model || order[i].test != order[i - 1].test) {
      model.tests.emplace_back();
      model.tests.back().name = rows_[i].test;
    }
    for (std::span<const ReportRow>* rows_of :
         {&model.rows, &model.tests.back().rows}) {
      const size_t count = rows_of->size() + 1;
      *rows_of = {&rows_[i + 1 - count], count};
    }
  }
  for (ReportModel& model : models_) {
    if (model.name.empty()) model.name = "model";
    FillBounds(model);
  }
  for (const ReportModel& model : models_) {
    for (const ReportTest& test : model.tests) {
      const auto begin = static_cast<size_t>(test.rows.data() - rows_.data());
      for (size_t i = 0; i < test.rows.size(); ++i) {
        rows_[begin + i].bound = &test.bound;
      }
    }
  }
}

void ReportRows::FillBounds(ReportModel& model) const {
  // The fastest that all weights went through the processor in any exact row.
  std::optional<double> ram;
  for (const ReportRow& row : model.rows) {
    if (!row.is_exact || !row.generates()) continue;
    const auto bytes = row.Number("weight_bytes_per_token");
    auto ms = row.Number("compute_ms");
    if (!ms) ms = row.Number("ms_per_token");
    if (!bytes || !ms || *ms <= 0) continue;
    ram = std::max(ram.value_or(0), *bytes / *ms * 1000);
    if (const auto rate = FastestRepetition(*row.record)) {
      ram = std::max(*ram, *bytes * *rate);
    }
  }
  for (ReportTest& test : model.tests) {
    SpeedBound& bound = test.bound;
    if (flash_) bound.flash_bytes_per_second = flash_->bytes_per_second;
    bound.ram_bytes_per_second = ram;
    for (const ReportRow& row : test.rows) {
      const auto weights = row.Number("weight_bytes_per_token");
      if (!row.is_exact || !weights) continue;
      bound.weight_bytes = *weights;
      const auto streamed = row.Number("flash_bytes_bound_per_token");
      if (!streamed || *streamed <= 0 || !row.budget_bytes) continue;
      const double fixed = *row.budget_bytes - (*weights - *streamed);
      if (fixed < 0) continue;
      bound.fixed_bytes = std::min(bound.fixed_bytes.value_or(fixed), fixed);
    }
  }
}

}  // namespace flashelm::cli
