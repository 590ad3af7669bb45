// Verbs and flags of the command, as its --help lists them.
#ifndef FLASHELM_TESTS_CLI_HELP_H_
#define FLASHELM_TESTS_CLI_HELP_H_

#include <string>
#include <vector>

namespace flashelm::test {

struct HelpFlag {
  std::vector<std::string> names;  // "-m", "--model"
  std::string type;  // "FILE", "TEXT:{f32,bf16}=f32"; may be empty.
  bool is_required = false;
};

struct HelpVerb {
  std::vector<std::string> words;  // "bench", "io"; none: the command itself.
  std::vector<HelpFlag> flags;
  int num_positionals = 0;

  // "flashelm bench io"
  std::string Name(const std::string& separator = " ") const;
  // All names of all flags, sorted.
  std::vector<std::string> FlagNames() const;
};

// The command, and every verb below it. Asked once.
const std::vector<HelpVerb>& HelpVerbs();

}  // namespace flashelm::test

#endif  // FLASHELM_TESTS_CLI_HELP_H_
