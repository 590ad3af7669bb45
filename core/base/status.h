// How this project reports failure.
//
// A function that can fail returns Status or Result<T>. The code tells the
// caller what to do; the message tells a person what happened: what was
// attempted, where, what was found and what was expected.
#ifndef FLASHELM_CORE_BASE_STATUS_H_
#define FLASHELM_CORE_BASE_STATUS_H_

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>
#include <variant>

namespace flashelm {

enum class StatusCode {
  kOk,
  kInvalidArgument,    // The call itself is wrong: fix the call.
  kNotFound,           // No such file or tensor: ask for another.
  kDataLoss,           // The file is damaged or not ours: get a new file.
  kBudgetInfeasible,   // The plan does not fit: plan for less, or give more.
  kResourceExhausted,  // An allocation failed, or the disk is full.
  kUnavailable,        // The device failed a read: try again.
  kUnimplemented,      // This platform or file version lacks it: fall back.
  kCancelled,          // The caller asked to stop: go on.
  kInternal,           // Our bug: report it.
};

// "kDataLoss" and so on, for logs and tests.
std::string_view StatusCodeName(StatusCode code);

// Success, or a code with a message. Thread-compatible.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message)
      : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status OkStatus() { return Status(); }

// A value, or the Status that says why there is none. An error never holds kOk.
template <class T>
using Result = tl::expected<T, Status>;

// For `return` in a function that returns any Result<T>.
inline tl::unexpected<Status> Unexpected(Status status) {
  return tl::unexpected<Status>(std::move(status));
}

// One piece of a message: text, a character, a whole number, or a fraction as
// short as it can be without loss. Text is not copied; it outlives the piece.
class MessagePart {
 public:
  // NOLINTBEGIN(google-explicit-constructor): made where a message is written.
  MessagePart(std::string_view text) : value_(text) {}
  MessagePart(const std::string& text) : value_(std::string_view(text)) {}
  MessagePart(const char* text) : value_(std::string_view(text)) {}
  MessagePart(char character) : value_(character) {}
  MessagePart(bool value)
      : value_(std::string_view(value ? "true" : "false")) {}
  MessagePart(std::signed_integral auto value) : value_(int64_t{value}) {}
  MessagePart(std::unsigned_integral auto value) : value_(uint64_t{value}) {}
  MessagePart(float value) : value_(value) {}
  MessagePart(double value) : value_(value) {}
  // NOLINTEND(google-explicit-constructor)

  void AppendTo(std::string& message) const;

 private:
  std::variant<std::string_view, char, int64_t, uint64_t, float, double> value_;
};

// The pieces, one after the other.
class StatusMessage {
 public:
  template <class... Args>
  static std::string Join(const Args&... args) {
    return JoinParts({MessagePart(args)...});
  }

 private:
  // Not a template: every error in the program would carry a copy.
  static std::string JoinParts(std::initializer_list<MessagePart> parts);
};

// What the constructors below return: converts to Status and to any Result<T>.
class [[nodiscard]] ErrorStatus : public Status {
 public:
  using Status::Status;
  template <class T>
  operator Result<T>() && {  // NOLINT(google-explicit-constructor)
    return Unexpected(std::move(static_cast<Status&>(*this)));
  }
};

// One constructor per code, in the style of DataLoss(path, ": byte ", offset).
#define FLASHELM_DEFINE_ERROR(Name)                                        \
  template <class... Args>                                                 \
  ErrorStatus Name(const Args&... args) {                                  \
    return ErrorStatus(StatusCode::k##Name, StatusMessage::Join(args...)); \
  }
FLASHELM_DEFINE_ERROR(InvalidArgument)
FLASHELM_DEFINE_ERROR(NotFound)
FLASHELM_DEFINE_ERROR(DataLoss)
FLASHELM_DEFINE_ERROR(BudgetInfeasible)
FLASHELM_DEFINE_ERROR(ResourceExhausted)
FLASHELM_DEFINE_ERROR(Unavailable)
FLASHELM_DEFINE_ERROR(Unimplemented)
FLASHELM_DEFINE_ERROR(Cancelled)
FLASHELM_DEFINE_ERROR(Internal)
#undef FLASHELM_DEFINE_ERROR

// The code that fits an errno value, with `what` and the system's own words:
// ENOENT is kNotFound, ENOSPC and ENOMEM kResourceExhausted, EACCES
// kInvalidArgument, anything unexpected kUnavailable.
ErrorStatus ErrnoStatus(int error, std::string_view what);

// Returns from the enclosing function when `expr`, a Status, is an error.
#define FLASHELM_RETURN_IF_ERROR(expr)                                       \
  do {                                                                       \
    ::flashelm::Status flashelm_status_ = (expr);                            \
    if (!flashelm_status_.ok()) {                                            \
      return ::flashelm::internal::ReturnError(std::move(flashelm_status_)); \
    }                                                                        \
  } while (false)

// `lhs` = the value of `expr`, a Result; returns its error when it has none.
#define FLASHELM_ASSIGN_OR_RETURN(lhs, expr) \
  FLASHELM_ASSIGN_OR_RETURN_IMPL_(           \
      FLASHELM_CONCAT_(flashelm_result_, __LINE__), lhs, expr)
#define FLASHELM_CONCAT_INNER_(a, b) a##b
#define FLASHELM_CONCAT_(a, b) FLASHELM_CONCAT_INNER_(a, b)
#define FLASHELM_ASSIGN_OR_RETURN_IMPL_(result, lhs, expr)               \
  auto result = (expr);                                                  \
  if (!result) {                                                         \
    return ::flashelm::internal::ReturnError(std::move(result.error())); \
  }                                                                      \
  lhs = std::move(*result)

namespace internal {
// Lets the macros serve functions that return Status and Result<T> alike.
inline ErrorStatus ReturnError(Status status) {
  return ErrorStatus(status.code(), std::string(status.message()));
}
}  // namespace internal

}  // namespace flashelm

#endif  // FLASHELM_CORE_BASE_STATUS_H_
