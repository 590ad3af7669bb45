#include "cli/build_info.h"

#include "cli/build_commit.h"  // Written by cmake/build_commit.cmake.

namespace flashelm::cli {

std::optional<std::string> BuildCommit() {
  constexpr const char* kCommit = FLASHELM_BUILD_COMMIT;
  if (kCommit[0] == '\0') return std::nullopt;
  return std::string(kCommit);
}

}  // namespace flashelm::cli
