// Runs the command `flashelm` on a terminal of its own, as a person would.
#ifndef FLASHELM_TESTS_CLI_TERMINAL_COMMAND_H_
#define FLASHELM_TESTS_CLI_TERMINAL_COMMAND_H_

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

namespace flashelm::test {

// A pseudo-terminal of 24 rows and 80 columns. What fails, fails the test.
class TerminalCommand {
 public:
  // `stdout_path`: where standard output goes instead, if anywhere.
  explicit TerminalCommand(const std::vector<std::string>& args,
                           const std::string& stdout_path = "");
  ~TerminalCommand();
  TerminalCommand(const TerminalCommand&) = delete;
  TerminalCommand& operator=(const TerminalCommand&) = delete;

  void Type(std::string_view keys);
  // Waits until `text` was written after what the last call found. Waits for
  // minutes, but not for ever.
  void Expect(std::string_view text);
  // Waits for the end; the exit code, 128 + n where signal n ended it.
  int Wait();
  void Signal(int signal_number) const;

  // All that was written so far.
  const std::string& output() const { return output_; }

 private:
  bool ReadMore();  // False at the end.

  pid_t child_ = -1;
  int terminal_ = -1;
  std::string output_;
  size_t found_ = 0;
};

}  // namespace flashelm::test

#endif  // FLASHELM_TESTS_CLI_TERMINAL_COMMAND_H_
