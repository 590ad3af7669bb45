// Whole files of text.
#ifndef FLASHELM_CORE_TEXT_FILE_H_
#define FLASHELM_CORE_TEXT_FILE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/status.h"
#include "storage/output_file.h"  // IWYU pragma: export

namespace flashelm {

// The bytes of a file. kNotFound; kInvalidArgument: not a regular file, or one
// of more than `max_bytes`, of which nothing was read then.
Result<std::string> ReadTextFile(const std::string& path, uint64_t max_bytes);

// Puts `text` at `path`, whole or not at all.
Status WriteTextFile(const std::string& path, std::string_view text);

}  // namespace flashelm

#endif  // FLASHELM_CORE_TEXT_FILE_H_
