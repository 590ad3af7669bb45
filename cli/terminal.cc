#include "cli/terminal.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "core/base/format.h"

namespace flashelm::cli {
namespace {

CancelToken interrupt_token;

extern "C" void OnInterrupt(int) { interrupt_token.Cancel(); }

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

}  // namespace flashelm::cli
