// Whole files of text.
#ifndef FLASHELM_CORE_TEXT_FILE_H_
#define FLASHELM_CORE_TEXT_FILE_H_

#include <string>
#include <string_view>

#include "core/base/status.h"

namespace flashelm {

// Texts to tokenize are at most this long.
inline constexpr uint64_t kMaxTextBytes = uint64_t{256} << 20;

// The bytes of a file. kNotFound; kInvalidArgument: not a regular file;
// kDataLoss: larger than kMaxTextBytes.
Result<std::string> ReadTextFile(const std::string& path);

// Puts `text` at `path`, whole or not at all.
Status WriteTextFile(const std::string& path, std::string_view text);

}  // namespace flashelm

#endif  // FLASHELM_CORE_TEXT_FILE_H_
