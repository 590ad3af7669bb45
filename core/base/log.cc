#include "core/base/log.h"

namespace flashelm {

void Logger::Write(LogLevel level, std::string_view message) const {
  sink_(level, message);
}

}  // namespace flashelm
