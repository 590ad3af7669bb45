// What the library has to say, to whoever asked to hear it.
#ifndef FLASHELM_CORE_BASE_LOG_H_
#define FLASHELM_CORE_BASE_LOG_H_

#include <functional>
#include <string_view>

#include "core/base/status.h"

namespace flashelm {

enum class LogLevel { kInfo, kWarning };

// A sink for messages; silent until a function is given. Each object that logs
// gets its own copy, so there is no global state. Thread-compatible; the
// function is called on the thread that has something to say.
class Logger {
 public:
  using Sink = std::function<void(LogLevel, std::string_view)>;

  Logger() = default;
  explicit Logger(Sink sink) : sink_(std::move(sink)) {}

  template <class... Args>
  void Info(const Args&... args) const {
    if (sink_) Write(LogLevel::kInfo, StatusMessage::Join(args...));
  }
  template <class... Args>
  void Warning(const Args&... args) const {
    if (sink_) Write(LogLevel::kWarning, StatusMessage::Join(args...));
  }

 private:
  void Write(LogLevel level, std::string_view message) const;
  Sink sink_;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_BASE_LOG_H_
