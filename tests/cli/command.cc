#include "tests/cli/command.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>

namespace flashelm::test {
namespace {

struct Pipe {
  Pipe() { EXPECT_EQ(pipe2(ends.data(), O_CLOEXEC), 0); }
  ~Pipe() {
    CloseRead();
    CloseWrite();
  }
  void CloseRead() { Close(0); }
  void CloseWrite() { Close(1); }
  void Close(int end) {
    if (ends[end] >= 0) close(ends[end]);
    ends[end] = -1;
  }
  std::array<int, 2> ends = {-1, -1};
};

// Appends what is there; false at the end.
bool ReadSome(int fd, std::string& text) {
  char buffer[4096];
  const ssize_t got = read(fd, buffer, sizeof(buffer));
  if (got > 0) text.append(buffer, static_cast<size_t>(got));
  return got > 0 || (got < 0 && errno == EINTR);
}

}  // namespace

CommandResult Flashelm(const std::vector<std::string>& args,
                       const CommandOptions& options) {
  Pipe in;
  Pipe out;
  Pipe err;
  std::vector<std::string> words = {FLASHELM_COMMAND};
  words.insert(words.end(), args.begin(), args.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  const pid_t child = fork();
  if (child == 0) {
    dup2(in.ends[0], STDIN_FILENO);
    if (options.stdout_path.empty()) {
      dup2(out.ends[1], STDOUT_FILENO);
    } else {
      dup2(open(options.stdout_path.c_str(), O_WRONLY | O_CLOEXEC),
           STDOUT_FILENO);
    }
    dup2(err.ends[1], STDERR_FILENO);
    if (options.max_file_bytes > 0) {
      const rlimit limit = {options.max_file_bytes, options.max_file_bytes};
      setrlimit(RLIMIT_FSIZE, &limit);
      signal(SIGXFSZ, SIG_IGN);  // Stays ignored over exec: writes fail.
    }
    execv(argv[0], argv.data());
    _exit(127);
  }
  in.CloseRead();
  out.CloseWrite();
  err.CloseWrite();
  EXPECT_EQ(write(in.ends[1], options.input.data(), options.input.size()),
            static_cast<ssize_t>(options.input.size()));
  in.CloseWrite();

  CommandResult result;
  bool is_interrupted = false;
  bool out_open = true;
  bool err_open = true;
  while (out_open || err_open) {
    std::array<pollfd, 2> fds = {
        pollfd{out_open ? out.ends[0] : -1, POLLIN, 0},
        pollfd{err_open ? err.ends[0] : -1, POLLIN, 0}};
    if (poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) break;
    if (fds[0].revents != 0) out_open = ReadSome(out.ends[0], result.out);
    if (fds[1].revents != 0) err_open = ReadSome(err.ends[0], result.err);
    if (options.interrupt_after_bytes > 0 && !is_interrupted &&
        result.out.size() >= options.interrupt_after_bytes) {
      kill(child, SIGINT);
      is_interrupted = true;
    }
  }
  result.pid = child;
  int status = 0;
  rusage usage = {};
  EXPECT_EQ(wait4(child, &status, 0, &usage), child);
  // Of the test itself, too, as it was when it forked.
  result.peak_rss_bytes = static_cast<uint64_t>(usage.ru_maxrss) * 1024;
  result.exit_code =
      WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace flashelm::test
