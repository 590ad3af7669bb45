// What a person sees on stderr while something takes long, and how they stop
// it.
#ifndef FLASHELM_CLI_TERMINAL_H_
#define FLASHELM_CLI_TERMINAL_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/cancel.h"

namespace flashelm::cli {

// A line that moves, on a terminal only, at most ten times a second.
class ProgressBar {
 public:
  ProgressBar();
  ~ProgressBar() { Clear(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // Shows `done` of `total` units of `stage`, with the time left.
  void Show(std::string_view stage, uint64_t done, uint64_t total);
  // Takes the line away.
  void Clear();

 private:
  using Clock = std::chrono::steady_clock;
  const bool is_terminal_;
  bool is_shown_ = false;
  std::string stage_;
  Clock::time_point stage_begin_;
  Clock::time_point shown_at_;
};

// Cancelled by the first SIGINT, SIGTERM or SIGHUP from this call on; a second
// one ends the process.
const CancelToken& InterruptToken();

// For what goes on after an interrupt: from this call on, every SIGINT cancels
// the token, unless it is cancelled already; then it ends the process. SIGTERM
// and SIGHUP cancel it, too, and ask for the end.
const CancelToken& RepeatedInterruptToken();
// Readable while the token is cancelled, so that poll() can wait for it.
int InterruptFd();
// Whether it was SIGTERM or SIGHUP.
bool IsAskedToEnd();
enum class InputEvent { kReady, kInterrupted, kSignal };
// Waits until standard input has something to read or has ended, the token is
// cancelled, or another signal came.
InputEvent WaitForInput();
// Takes note of a SIGINT: the token is as new.
void ClearInterrupt();

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_TERMINAL_H_
