// JSON from files nobody vouches for.
#ifndef FLASHELM_STORAGE_JSON_H_
#define FLASHELM_STORAGE_JSON_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "core/base/status.h"

namespace flashelm {

using Json = nlohmann::json;

struct JsonLimits {
  uint32_t max_depth = 16;         // Nested arrays and objects.
  uint64_t max_values = 1u << 18;  // Scalars, arrays, objects and keys.
};

// Parses one JSON document. `name` (a file, or a part of one) begins every
// message. Numbers and text stay as they are; nothing is built before the whole
// text has been checked. kDataLoss: not JSON, with the byte where it stops
// being so; a key twice in one object; deeper or larger than `limits`.
Result<Json> ParseJson(std::string_view text, std::string_view name,
                       const JsonLimits& limits = {});

// The member `key` of `object`, as the type asked for; `name` begins the
// message. kDataLoss: absent, of another type, or (numbers) negative or
// fractional. The pointer and the view live as long as `object`.
Result<uint64_t> GetUint(const Json& object, const char* key,
                         std::string_view name);
Result<uint32_t> GetUint32(const Json& object, const char* key,
                           std::string_view name);
Result<std::string_view> GetString(const Json& object, const char* key,
                                   std::string_view name);
Result<const Json*> GetArray(const Json& object, const char* key,
                             std::string_view name);
Result<const Json*> GetObject(const Json& object, const char* key,
                              std::string_view name);

// Makes a value null without taking memory. Its destructor takes some for
// arrays and objects, and ends the process where there is none.
void Empty(Json& value) noexcept;

// A value that is destroyed in this way. Move-only.
struct OwnedJson {
  Json value;

  OwnedJson() = default;
  explicit OwnedJson(Json owned) : value(std::move(owned)) {}
  OwnedJson(OwnedJson&&) = default;
  OwnedJson& operator=(OwnedJson&&) = default;
  ~OwnedJson() { Empty(value); }
};

// How a value reads in a message: its text, cut when long.
std::string Describe(const Json& value);

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_JSON_H_
