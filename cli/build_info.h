// What this program was built from.
#ifndef FLASHELM_CLI_BUILD_INFO_H_
#define FLASHELM_CLI_BUILD_INFO_H_

#include <optional>
#include <string>

namespace flashelm::cli {

// The commit, as `git describe --always --dirty` has it; nothing where the
// source was no repository.
std::optional<std::string> BuildCommit();

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_BUILD_INFO_H_
