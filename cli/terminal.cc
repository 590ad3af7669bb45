#include "cli/terminal.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>

#include "cli/status_line.h"
#include "core/base/format.h"

namespace flashelm::cli {
namespace {

CancelToken interrupt_token;

extern "C" void OnInterrupt(int) {
  interrupt_token.Cancel();
  TakeDownStatusLine();
}

std::atomic<bool> is_asked_to_end = false;
static_assert(std::atomic<bool>::is_always_lock_free);
// Whoever waits for a key waits for this, too: a signal may reach any thread,
// and it may come before the waiting begins.
int interrupt_pipe[2] = {-1, -1};

extern "C" void OnRepeatedInterrupt(int signal_number) {
  const int error = errno;
  if (signal_number != SIGINT) {
    is_asked_to_end = true;
  } else if (interrupt_token.IsCancelled()) {
    TakeDownStatusLine();
    signal(SIGINT, SIG_DFL);
    raise(SIGINT);
  }
  OnInterrupt(signal_number);
  [[maybe_unused]] const ssize_t wrote = write(interrupt_pipe[1], "", 1);
  errno = error;
}

}  // namespace

ProgressBar::ProgressBar() : is_terminal_(isatty(STDERR_FILENO) != 0) {}

void ProgressBar::Show(std::string_view stage, uint64_t done, uint64_t total) {
  if (!is_terminal_ || total == 0) return;
  const auto now = Clock::now();
  if (stage != stage_) {
    stage_ = std::string(stage);
    stage_begin_ = now;
  } else if (now - shown_at_ < std::chrono::milliseconds(100) && done < total) {
    return;
  }
  shown_at_ = now;
  constexpr int kWidth = 30;
  const double part =
      std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const double seconds =
      std::chrono::duration<double>(now - stage_begin_).count();
  const int filled = static_cast<int>(part * kWidth);
  std::string line =
      fmt::format("\r{} [{}{}] {:3.0f} %", stage, std::string(filled, '='),
                  std::string(kWidth - filled, ' '), part * 100);
  if (part > 0.01 && part < 1 && seconds > 1) {
    line += fmt::format(", {:.0f} s left", seconds / part - seconds);
  }
  line += "\x1b[K";
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
  is_shown_ = true;
}

void ProgressBar::Clear() {
  if (!is_shown_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  is_shown_ = false;
}

const CancelToken& InterruptToken() {
  struct sigaction action {};
  action.sa_handler = OnInterrupt;
  // Back to the default after the first, so that a second one ends it.
  action.sa_flags = SA_RESETHAND;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGHUP, &action, nullptr);
  return interrupt_token;
}

const CancelToken& RepeatedInterruptToken() {
  if (interrupt_pipe[0] < 0 &&
      pipe2(interrupt_pipe, O_CLOEXEC | O_NONBLOCK) != 0) {
    return InterruptToken();
  }
  struct sigaction action {};
  action.sa_handler = OnRepeatedInterrupt;
  sigaction(SIGINT, &action, nullptr);
  action.sa_flags = SA_RESETHAND;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGHUP, &action, nullptr);
  return interrupt_token;
}

int InterruptFd() { return interrupt_pipe[0]; }

bool IsAskedToEnd() { return is_asked_to_end; }

InputEvent WaitForInput() {
  pollfd fds[] = {{STDIN_FILENO, POLLIN, 0}, {interrupt_pipe[0], POLLIN, 0}};
  const int ready = poll(fds, 2, -1);
  if (interrupt_token.IsCancelled()) return InputEvent::kInterrupted;
  return ready < 0 ? InputEvent::kSignal : InputEvent::kReady;
}

void ClearInterrupt() {
  char bytes[16];
  while (read(interrupt_pipe[0], bytes, sizeof(bytes)) > 0) {
  }
  if (!is_asked_to_end) interrupt_token.Reset();
}

}  // namespace flashelm::cli
