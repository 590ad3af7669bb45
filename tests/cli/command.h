// Runs the command `flashelm` as a user would.
#ifndef FLASHELM_TESTS_CLI_COMMAND_H_
#define FLASHELM_TESTS_CLI_COMMAND_H_

#include <string>
#include <vector>

namespace flashelm::test {

struct CommandResult {
  int exit_code = -1;  // 128 + n when signal n ended it.
  std::string out;
  std::string err;
};

// Runs flashelm with these arguments and `input` on standard input. With
// `interrupt_after_bytes`, sends SIGINT once that much of stdout has come.
// `max_file_bytes` limits the size of files it may write; 0: no limit.
struct CommandOptions {
  std::string input;
  size_t interrupt_after_bytes = 0;
  uint64_t max_file_bytes = 0;
};
CommandResult Flashelm(const std::vector<std::string>& args,
                       const CommandOptions& options = {});

}  // namespace flashelm::test

#endif  // FLASHELM_TESTS_CLI_COMMAND_H_
