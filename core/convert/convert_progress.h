// How far a conversion is.
#ifndef FLASHELM_CORE_CONVERT_CONVERT_PROGRESS_H_
#define FLASHELM_CORE_CONVERT_CONVERT_PROGRESS_H_

#include <cstdint>
#include <string_view>

#include "core/base/status.h"
#include "core/convert/convert.h"

namespace flashelm {

// Polls for cancellation and reports how far a stage is. Options outlive it.
class ConvertProgress {
 public:
  ConvertProgress(const ConvertOptions& options, std::string_view stage,
                  uint64_t total_bytes)
      : options_(options), stage_(stage), total_bytes_(total_bytes) {}

  // kCancelled: as asked.
  Status Poll() const {
    if (options_.cancel != nullptr && options_.cancel->IsCancelled()) {
      return Cancelled("conversion was cancelled");
    }
    return OkStatus();
  }
  void Add(uint64_t bytes) {
    done_bytes_ += bytes;
    if (!options_.progress) return;
    if (done_bytes_ - reported_bytes_ >= kStepBytes ||
        done_bytes_ == total_bytes_) {
      reported_bytes_ = done_bytes_;
      options_.progress(stage_, done_bytes_, total_bytes_);
    }
  }

 private:
  static constexpr uint64_t kStepBytes = uint64_t{1} << 20;

  const ConvertOptions& options_;
  const std::string_view stage_;
  const uint64_t total_bytes_;
  uint64_t done_bytes_ = 0;
  uint64_t reported_bytes_ = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_CONVERT_CONVERT_PROGRESS_H_
