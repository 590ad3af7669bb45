// Lines of standard input, edited where it is a terminal.
#ifndef FLASHELM_CLI_LINE_READER_H_
#define FLASHELM_CLI_LINE_READER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/base/status.h"

namespace flashelm::cli {

enum class LineEvent {
  kLine,
  kEnd,          // Of the input.
  kInterrupted,  // By a SIGINT, or one that asks for the end.
};

// One thread. Signals as RepeatedInterruptToken() has them.
class LineReader {
 public:
  // With history and editing by libedit where standard input and error are a
  // terminal and the library is there; else plain lines. `max_bytes`: no line
  // is longer.
  static std::unique_ptr<LineReader> Create(size_t max_bytes);
  virtual ~LineReader() = default;

  // The next line, without its end. On a terminal `prompt` is shown, on
  // standard error. kInvalidArgument: a line was longer than allowed, and was
  // left out. kUnavailable: the read failed.
  virtual Result<LineEvent> Read(const char* prompt, std::string& line) = 0;

  // Whether a person types, so that prompts make sense.
  virtual bool is_interactive() const = 0;
  // What it takes of memory at most, but for code.
  virtual uint64_t num_bytes() const = 0;
};

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_LINE_READER_H_
