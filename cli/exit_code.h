// Exit codes by status, documented in --help.
#ifndef FLASHELM_CLI_EXIT_CODE_H_
#define FLASHELM_CLI_EXIT_CODE_H_

#include "core/base/status.h"

namespace flashelm::cli {

inline constexpr int kExitUsage = 2;
inline constexpr int kExitOutOfMemory = 6;
inline constexpr int kExitInternal = 70;

int ExitCode(const Status& status);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_EXIT_CODE_H_
