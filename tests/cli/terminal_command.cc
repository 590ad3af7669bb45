#include "tests/cli/terminal_command.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

namespace flashelm::test {

namespace {

constexpr int kPatienceMs = 120000;

}  // namespace

TerminalCommand::TerminalCommand(const std::vector<std::string>& args,
                                 const std::string& stdout_path) {
  std::vector<std::string> words = {FLASHELM_COMMAND};
  words.insert(words.end(), args.begin(), args.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  const winsize size = {24, 80, 0, 0};
  child_ = forkpty(&terminal_, nullptr, nullptr, &size);
  if (child_ == 0) {
    setenv("TERM", "xterm", 1);
    setenv("LC_ALL", "C.UTF-8", 1);
    if (!stdout_path.empty()) {
      dup2(open(stdout_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600),
           STDOUT_FILENO);
    }
    execv(argv[0], argv.data());
    _exit(127);
  }
  EXPECT_GT(child_, 0);
}

TerminalCommand::~TerminalCommand() {
  if (child_ > 0) {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
  close(terminal_);
}

void TerminalCommand::Type(std::string_view keys) {
  // What is written in the meantime is read: a command that waits for room to
  // write reads no keys.
  while (!keys.empty()) {
    pollfd waiting = {terminal_, POLLIN | POLLOUT, 0};
    ASSERT_GT(poll(&waiting, 1, kPatienceMs), 0) << "keys were not taken";
    if ((waiting.revents & POLLIN) != 0) ReadMore();
    if ((waiting.revents & POLLOUT) == 0) continue;
    const ssize_t wrote = write(terminal_, keys.data(), 1);
    ASSERT_EQ(wrote, 1);
    keys.remove_prefix(1);
  }
}

bool TerminalCommand::ReadMore() {
  pollfd waiting = {terminal_, POLLIN, 0};
  if (poll(&waiting, 1, kPatienceMs) <= 0) {
    ADD_FAILURE() << "nothing more was written";
    return false;
  }
  char buffer[4096];
  const ssize_t got = read(terminal_, buffer, sizeof(buffer));
  if (got <= 0) return false;
  output_.append(buffer, static_cast<size_t>(got));
  return true;
}

void TerminalCommand::Expect(std::string_view text) {
  while (true) {
    const size_t at = output_.find(text, found_);
    if (at != std::string::npos) {
      found_ = at + text.size();
      return;
    }
    if (!ReadMore()) {
      FAIL() << "expected \"" << text << "\" after \"" << output_.substr(found_)
             << "\"";
    }
  }
}

int TerminalCommand::Wait() {
  while (ReadMore()) {
  }
  int status = 0;
  EXPECT_EQ(waitpid(child_, &status, 0), child_);
  child_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void TerminalCommand::Signal(int signal_number) const {
  kill(child_, signal_number);
}

}  // namespace flashelm::test
