// Lines with editing and history, by libedit.
#ifndef FLASHELM_CLI_LINE_EDITOR_H_
#define FLASHELM_CLI_LINE_EDITOR_H_

#include <cstddef>
#include <memory>

#include "cli/line_reader.h"

namespace flashelm::cli {

// Null where libedit is not installed or was not built in, or where no locale
// of UTF-8 is. The library is loaded here and not by the linker: its code, and
// that of what it needs, is a megabyte that verbs without a prompt would have
// to plan for. It stays loaded, and LC_CTYPE is set.
std::unique_ptr<LineReader> CreateLineEditor(size_t max_bytes);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_LINE_EDITOR_H_
