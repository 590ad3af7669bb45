#include "cli/status_line.h"

#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "core/base/format.h"

namespace flashelm::cli {
namespace {

constexpr auto kInterval = std::chrono::milliseconds(100);
constexpr int kMinRows = 3;

// Everything scrolls again, and the last row, wherever that is, is empty. Both
// the region and the row move the cursor, which is saved before.
constexpr std::string_view kGiveRowBack =
    "\x1b"
    "7\x1b[r\x1b[999;1H\x1b[2K\x1b"
    "8";

enum class Row { kFree, kTaken, kGivenBack };
// For the handlers of signals.
std::atomic<Row> last_row = Row::kFree;
static_assert(std::atomic<Row>::is_always_lock_free);

void WriteError(std::string_view text) {
  // A terminal that takes no more is no reason to stop.
  [[maybe_unused]] const ssize_t wrote =
      write(STDERR_FILENO, text.data(), text.size());
}

bool IsTheTerminalOfStdout() {
  struct stat out {};
  struct stat err {};
  return isatty(STDOUT_FILENO) != 0 && fstat(STDOUT_FILENO, &out) == 0 &&
         fstat(STDERR_FILENO, &err) == 0 && out.st_rdev == err.st_rdev;
}

struct Size {
  int rows = 0;
  int columns = 0;
};
Size TerminalSize() {
  winsize size = {};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0) return {};
  return {size.ws_row, size.ws_col};
}

}  // namespace

StatusLine::StatusLine(bool is_wanted) {
  if (!is_wanted || isatty(STDERR_FILENO) == 0) return;
  const char* const term = std::getenv("TERM");
  if (term == nullptr || *term == '\0' || std::string_view(term) == "dumb") {
    return;
  }
  place_ = IsTheTerminalOfStdout() ? Place::kLastRow : Place::kHere;
}

bool StatusLine::IsDue() const {
  return place_ != Place::kNone &&
         (!is_shown_ || Clock::now() - shown_at_ >= kInterval);
}

void StatusLine::Show(std::string_view text) {
  if (!IsDue()) return;
  const Size size = TerminalSize();
  if (size.rows < kMinRows || size.columns < 2) return;
  // A character in the last column would make some terminals wrap.
  text = text.substr(0, static_cast<size_t>(size.columns) - 1);
  if (place_ == Place::kHere) {
    WriteError(fmt::format("\r{}\x1b[K", text));
  } else {
    if (last_row == Row::kGivenBack) return;
    std::string out;
    if (rows_ != size.rows) {
      // The cursor may be in the last row: a line further down and up again,
      // all rows scrolling, it is not.
      if (rows_ != 0) out += kGiveRowBack;
      out +=
          "\x1b"
          "D\x1b[A";
      rows_ = size.rows;
    }
    // The region anew each time: other programs, and terminals when their size
    // changes, set it back.
    out += fmt::format(
        "\x1b"
        "7\x1b[1;{}r\x1b[{};1H{}\x1b[K\x1b"
        "8",
        rows_ - 1, rows_, text);
    // Before it is written, so that no signal finds a row taken and unknown.
    Row expected = Row::kFree;
    last_row.compare_exchange_strong(expected, Row::kTaken);
    WriteError(out);
    if (last_row == Row::kGivenBack) WriteError(kGiveRowBack);
  }
  is_shown_ = true;
  shown_at_ = Clock::now();
}

void StatusLine::End() {
  if (place_ == Place::kHere && is_shown_) WriteError("\r\x1b[K");
  if (last_row.exchange(Row::kFree) == Row::kTaken) WriteError(kGiveRowBack);
  rows_ = 0;
  is_shown_ = false;
}

void TakeDownStatusLine() {
  Row expected = Row::kTaken;
  if (last_row.compare_exchange_strong(expected, Row::kGivenBack)) {
    WriteError(kGiveRowBack);
  }
}

}  // namespace flashelm::cli
