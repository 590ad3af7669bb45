#include "cli/exit_code.h"

namespace flashelm::cli {

int ExitCode(const Status& status) {
  switch (status.code()) {
    case StatusCode::kOk:
      return 0;
    case StatusCode::kInvalidArgument:
      return kExitUsage;
    case StatusCode::kDataLoss:
    case StatusCode::kNotFound:
    case StatusCode::kUnimplemented:
      return 3;
    case StatusCode::kBudgetInfeasible:
      return 4;
    case StatusCode::kUnavailable:
      return 5;
    case StatusCode::kResourceExhausted:
      return kExitOutOfMemory;
    case StatusCode::kCancelled:
      return 130;
    case StatusCode::kInternal:
      break;
  }
  return kExitInternal;
}

}  // namespace flashelm::cli
