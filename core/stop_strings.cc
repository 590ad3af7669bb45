#include "core/stop_strings.h"

#include <algorithm>
#include <utility>

namespace flashelm {

StopStrings::StopStrings(std::vector<std::string> strings)
    : strings_(std::move(strings)) {
  std::erase_if(strings_, [](const std::string& s) { return s.empty(); });
}

void StopStrings::Reserve(size_t num_bytes) {
  held_.reserve(num_bytes);
  shown_.reserve(num_bytes);
}

std::string_view StopStrings::Push(std::string_view text) {
  shown_.clear();
  if (stopped_) return shown_;
  held_ += text;
  size_t stop_at = std::string::npos;
  for (const std::string& stop : strings_) {
    stop_at = std::min(stop_at, held_.find(stop));
  }
  size_t show = stop_at;
  if (stop_at != std::string::npos) {
    stopped_ = true;
  } else {
    // Keep the longest end of the text that begins some stop string.
    size_t keep = 0;
    for (const std::string& stop : strings_) {
      for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
        if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) {
          keep = n;
          break;
        }
      }
    }
    show = held_.size() - keep;
  }
  shown_.assign(held_, 0, show);
  held_.erase(0, show);
  return shown_;
}

std::string_view StopStrings::Finish() {
  shown_.clear();
  if (!stopped_) shown_.swap(held_);
  return shown_;
}

}  // namespace flashelm
