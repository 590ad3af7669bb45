// Runs the command `flashelm` as a user would.
#ifndef FLASHELM_TESTS_CLI_COMMAND_H_
#define FLASHELM_TESTS_CLI_COMMAND_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace flashelm::test {

struct CommandResult {
  int exit_code = -1;  // 128 + n when signal n ended it.
  int pid = 0;         // It had.
  uint64_t peak_rss_bytes = 0;
  std::string out;
  std::string err;
};

struct CommandOptions {
  std::string input;  // On standard input.
  // Sends SIGINT once that much of stdout has come; 0: never.
  size_t interrupt_after_bytes = 0;
  uint64_t max_file_bytes = 0;  // No file may become larger; 0: no limit.
  std::string stdout_path;      // Where stdout goes instead of the result.
};

// Runs flashelm with these arguments and waits for its end.
CommandResult Flashelm(const std::vector<std::string>& args,
                       const CommandOptions& options = {});

}  // namespace flashelm::test

#endif  // FLASHELM_TESTS_CLI_COMMAND_H_
