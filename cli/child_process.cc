#include "cli/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <string_view>

namespace flashelm::cli {
namespace {

// How often a parent that waits looks whether it was interrupted.
constexpr int kPollMs = 50;

class Pipe {
 public:
  static Result<Pipe> Create() {
    Pipe pipe;
    if (pipe2(pipe.ends_.data(), O_CLOEXEC) != 0) {
      const int error = errno;
      return ErrnoStatus(error, "cannot make a pipe");
    }
    return pipe;
  }
  Pipe(Pipe&& other) noexcept : ends_(other.ends_) { other.ends_ = {-1, -1}; }
  Pipe& operator=(Pipe&&) = delete;
  ~Pipe() {
    Close(0);
    Close(1);
  }

  int read_end() const { return ends_[0]; }
  int write_end() const { return ends_[1]; }
  void CloseRead() { Close(0); }
  void CloseWrite() { Close(1); }

 private:
  Pipe() = default;
  void Close(int end) {
    if (ends_[end] >= 0) close(ends_[end]);
    ends_[end] = -1;
  }
  std::array<int, 2> ends_ = {-1, -1};
};

// Ends the child; the parent's buffers and destructors are not the child's to
// flush and run.
[[noreturn]] void BeChild(pid_t parent, Pipe& go, Pipe& result,
                          const std::function<std::string()>& body) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  go.CloseWrite();
  result.CloseRead();
  char ready = 0;
  while (read(go.read_end(), &ready, 1) < 0 && errno == EINTR) {
  }
  const std::string message = body();
  std::string_view left = message;
  while (!left.empty()) {
    const ssize_t sent = write(result.write_end(), left.data(), left.size());
    if (sent < 0 && errno != EINTR) _exit(1);
    if (sent > 0) left.remove_prefix(static_cast<size_t>(sent));
  }
  _exit(0);
}

// Everything the child sends, until it ends or `cancel` says so.
Status Receive(int fd, const CancelToken& cancel, std::string& message) {
  char buffer[4096];
  while (!cancel.IsCancelled()) {
    pollfd ready = {fd, POLLIN, 0};
    const int count = poll(&ready, 1, kPollMs);
    if (count <= 0) continue;
    const ssize_t got = read(fd, buffer, sizeof(buffer));
    if (got == 0) return OkStatus();
    if (got > 0) message.append(buffer, static_cast<size_t>(got));
  }
  return Cancelled("interrupted");
}

}  // namespace

Result<ChildResult> RunInChild(const std::function<std::string()>& body,
                               const std::function<void(pid_t)>& prepare,
                               const CancelToken& cancel) {
  FLASHELM_ASSIGN_OR_RETURN(Pipe go, Pipe::Create());
  FLASHELM_ASSIGN_OR_RETURN(Pipe result, Pipe::Create());
  // What is buffered now would be written by both.
  std::fflush(nullptr);
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) {
    const int error = errno;
    return ResourceExhausted("cannot start a process: errno ", error);
  }
  if (child == 0) BeChild(parent, go, result, body);
  go.CloseRead();
  result.CloseWrite();
  prepare(child);
  go.CloseWrite();

  ChildResult ended;
  const Status received = Receive(result.read_end(), cancel, ended.message);
  if (!received.ok()) kill(child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  FLASHELM_RETURN_IF_ERROR(received);
  if (WIFSIGNALED(status)) {
    ended.signal = WTERMSIG(status);
    ended.message.clear();
  }
  return ended;
}

}  // namespace flashelm::cli
