// Completion of the command line in shells: verbs, the flags of a verb, values
// where they are known words, and files.
#ifndef FLASHELM_CLI_DOCS_COMPLETION_H_
#define FLASHELM_CLI_DOCS_COMPLETION_H_

#include <string>

#include "cli/docs/command_tree.h"

namespace flashelm::cli {

// Each returns a file that the shell loads by itself from the right folder.
// None needs more than the shell.
std::string BashCompletion(const VerbInfo& command);
std::string ZshCompletion(const VerbInfo& command);
std::string FishCompletion(const VerbInfo& command);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_DOCS_COMPLETION_H_
