#include "core/base/status.h"

#include <fmt/format.h>

#include <cerrno>
#include <iterator>
#include <system_error>

namespace flashelm {

std::string_view StatusCodeName(StatusCode code) {
  switch (code) {
    case StatusCode::kOk:
      return "kOk";
    case StatusCode::kInvalidArgument:
      return "kInvalidArgument";
    case StatusCode::kNotFound:
      return "kNotFound";
    case StatusCode::kDataLoss:
      return "kDataLoss";
    case StatusCode::kBudgetInfeasible:
      return "kBudgetInfeasible";
    case StatusCode::kResourceExhausted:
      return "kResourceExhausted";
    case StatusCode::kUnavailable:
      return "kUnavailable";
    case StatusCode::kUnimplemented:
      return "kUnimplemented";
    case StatusCode::kCancelled:
      return "kCancelled";
    case StatusCode::kInternal:
      return "kInternal";
  }
  return "unknown";
}

void MessagePart::AppendTo(std::string& message) const {
  std::visit(
      [&](const auto& value) {
        fmt::format_to(std::back_inserter(message), "{}", value);
      },
      value_);
}

std::string StatusMessage::JoinParts(std::initializer_list<MessagePart> parts) {
  std::string message;
  for (const MessagePart& part : parts) part.AppendTo(message);
  return message;
}

ErrorStatus ErrnoStatus(int error, std::string_view what) {
  StatusCode code = StatusCode::kUnavailable;
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      code = StatusCode::kNotFound;
      break;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      code = StatusCode::kResourceExhausted;
      break;
    case EACCES:
    case EPERM:
    case EROFS:
    case EISDIR:
    case ENAMETOOLONG:
    case EINVAL:
      code = StatusCode::kInvalidArgument;
      break;
    default:
      break;
  }
  return ErrorStatus(
      code, StatusMessage::Join(
                what, ": ",
                std::error_code(error, std::system_category()).message()));
}

}  // namespace flashelm
