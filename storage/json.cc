#include "storage/json.h"

#include <unordered_set>
#include <utility>
#include <vector>

namespace flashelm {
namespace {

constexpr size_t kMaxError = 200;

// Walks the text and builds nothing: depth, size and repeated keys are known
// before memory is taken for a tree.
class LimitChecker : public nlohmann::json_sax<Json> {
 public:
  LimitChecker(std::string_view name, const JsonLimits& limits)
      : name_(name), limits_(limits) {}

  bool null() override { return Count(); }
  bool boolean(bool) override { return Count(); }
  bool number_integer(number_integer_t) override { return Count(); }
  bool number_unsigned(number_unsigned_t) override { return Count(); }
  bool number_float(number_float_t, const string_t&) override {
    return Count();
  }
  bool string(string_t&) override { return Count(); }
  bool binary(binary_t&) override { return Count(); }
  bool start_object(std::size_t) override {
    keys_.emplace_back();
    return Enter();
  }
  bool end_object() override {
    keys_.pop_back();
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override { return Enter(); }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool key(string_t& key) override {
    if (!keys_.back().insert(key).second) {
      status_ = DataLoss(name_, ": JSON key ", Describe(Json(key)),
                         " appears twice in one object, expected once");
      return false;
    }
    return Count();
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    // It quotes what it read last, which may be a string of megabytes.
    status_ = DataLoss(name_, ": not valid JSON at byte ", position, ": ",
                       std::string_view(error.what()).substr(0, kMaxError));
    return false;
  }

  Status TakeStatus() { return std::move(status_); }

 private:
  bool Enter() {
    if (++depth_ > limits_.max_depth) {
      status_ = DataLoss(name_, ": JSON is nested deeper than ",
                         limits_.max_depth, " levels");
      return false;
    }
    return Count();
  }
  bool Count() {
    if (++num_values_ > limits_.max_values) {
      status_ = DataLoss(name_, ": JSON has more than ", limits_.max_values,
                         " values");
      return false;
    }
    return true;
  }

  const std::string_view name_;
  const JsonLimits limits_;
  uint32_t depth_ = 0;
  uint64_t num_values_ = 0;
  std::vector<std::unordered_set<std::string>> keys_;
  Status status_;
};

Result<const Json*> GetMember(const Json& object, const char* key,
                              std::string_view name) {
  if (!object.is_object()) {
    return DataLoss(name, ": found ", Describe(object),
                    ", expected an object with \"", key, "\"");
  }
  const auto it = object.find(key);
  if (it == object.end()) {
    return DataLoss(name, ": key \"", key, "\" is missing");
  }
  return &*it;
}

}  // namespace

Result<Json> ParseJson(std::string_view text, std::string_view name,
                       const JsonLimits& limits) {
  // The parser takes a zero byte for the end and whatever follows for nothing.
  if (const size_t at = text.find('\0'); at != text.npos) {
    return DataLoss(name, ": not valid JSON at byte ", at, ": a zero byte");
  }
  LimitChecker checker(name, limits);
  if (!Json::sax_parse(text, &checker)) {
    return Unexpected(checker.TakeStatus());
  }
  Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) return DataLoss(name, ": not valid JSON");
  return value;
}

Result<uint64_t> GetUint(const Json& object, const char* key,
                         std::string_view name) {
  FLASHELM_ASSIGN_OR_RETURN(const Json* value, GetMember(object, key, name));
  if (!value->is_number_unsigned()) {
    return DataLoss(name, ": \"", key, "\" is ", Describe(*value),
                    ", expected a whole number from 0 to 2^64 - 1");
  }
  return value->get<uint64_t>();
}

Result<uint32_t> GetUint32(const Json& object, const char* key,
                           std::string_view name) {
  FLASHELM_ASSIGN_OR_RETURN(const uint64_t value, GetUint(object, key, name));
  if (value > UINT32_MAX) {
    return DataLoss(name, ": \"", key, "\" is ", value,
                    ", expected at most 2^32 - 1");
  }
  return static_cast<uint32_t>(value);
}

Result<std::string_view> GetString(const Json& object, const char* key,
                                   std::string_view name) {
  FLASHELM_ASSIGN_OR_RETURN(const Json* value, GetMember(object, key, name));
  if (!value->is_string()) {
    return DataLoss(name, ": \"", key, "\" is ", Describe(*value),
                    ", expected a string");
  }
  return std::string_view(value->get_ref<const std::string&>());
}

Result<const Json*> GetArray(const Json& object, const char* key,
                             std::string_view name) {
  FLASHELM_ASSIGN_OR_RETURN(const Json* value, GetMember(object, key, name));
  if (!value->is_array()) {
    return DataLoss(name, ": \"", key, "\" is ", Describe(*value),
                    ", expected an array");
  }
  return value;
}

Result<const Json*> GetObject(const Json& object, const char* key,
                              std::string_view name) {
  FLASHELM_ASSIGN_OR_RETURN(const Json* value, GetMember(object, key, name));
  if (!value->is_object()) {
    return DataLoss(name, ": \"", key, "\" is ", Describe(*value),
                    ", expected an object");
  }
  return value;
}

void Empty(Json& value) noexcept {
  if (!value.is_structured()) return;
  // Depth is limited where a value is parsed. What has no members takes no
  // memory to be destroyed.
  for (Json& member : value) Empty(member);
  value.clear();
  value = nullptr;
}

std::string Describe(const Json& value) {
  constexpr size_t kMaxLength = 60;
  if (value.is_object() || value.is_array()) {
    return StatusMessage::Join(value.is_object() ? "an object" : "an array",
                               " of ", value.size());
  }
  // Invalid UTF-8 cannot be dumped strictly; a message may show it replaced.
  std::string text =
      value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kMaxLength) text = text.substr(0, kMaxLength) + "...";
  return text;
}

}  // namespace flashelm
