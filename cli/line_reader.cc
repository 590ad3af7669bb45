#include "cli/line_reader.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>

#include "cli/line_editor.h"
#include "cli/terminal.h"

namespace flashelm::cli {
namespace {

class PlainLines : public LineReader {
 public:
  PlainLines(size_t max_bytes, bool is_interactive)
      : max_bytes_(max_bytes), is_interactive_(is_interactive) {}

  Result<LineEvent> Read(const char* prompt, std::string& line) override {
    if (is_interactive_) std::fputs(prompt, stderr);
    line.clear();
    bool is_too_long = false;
    while (true) {
      for (; at_ < size_; ++at_) {
        if (buffer_[at_] == '\n') {
          ++at_;
          if (is_too_long) return TooLong();
          return LineEvent::kLine;
        }
        is_too_long = is_too_long || line.size() == max_bytes_;
        if (!is_too_long) line += buffer_[at_];
      }
      FLASHELM_ASSIGN_OR_RETURN(const LineEvent event, Fill());
      if (event == LineEvent::kInterrupted) return event;
      if (event == LineEvent::kEnd) {
        if (is_too_long) return TooLong();
        return line.empty() ? LineEvent::kEnd : LineEvent::kLine;
      }
    }
  }
  bool is_interactive() const override { return is_interactive_; }
  // A string that grows holds the old half and the new whole at once.
  uint64_t num_bytes() const override { return 3 * max_bytes_; }

 private:
  ErrorStatus TooLong() const {
    return InvalidArgument("a line of more than ", max_bytes_,
                           " bytes was left out");
  }

  // kLine: there are more bytes.
  Result<LineEvent> Fill() {
    at_ = size_ = 0;
    while (true) {
      const InputEvent event = WaitForInput();
      if (event == InputEvent::kInterrupted) return LineEvent::kInterrupted;
      if (event == InputEvent::kSignal) continue;
      const ssize_t got = read(STDIN_FILENO, buffer_.data(), buffer_.size());
      if (got == 0) return LineEvent::kEnd;
      if (got > 0) {
        size_ = static_cast<size_t>(got);
        return LineEvent::kLine;
      }
      if (errno != EINTR && errno != EAGAIN) {
        const int error = errno;
        return Unavailable("cannot read standard input: errno ", error);
      }
    }
  }

  const size_t max_bytes_;
  const bool is_interactive_;
  std::array<char, 4096> buffer_;
  size_t at_ = 0;
  size_t size_ = 0;
};

}  // namespace

std::unique_ptr<LineReader> LineReader::Create(size_t max_bytes) {
  const bool is_interactive =
      isatty(STDIN_FILENO) != 0 && isatty(STDERR_FILENO) != 0;
  if (is_interactive) {
    if (auto editor = CreateLineEditor(max_bytes)) return editor;
  }
  return std::make_unique<PlainLines>(max_bytes, is_interactive);
}

}  // namespace flashelm::cli
