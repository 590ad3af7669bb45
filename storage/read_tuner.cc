#include "storage/read_tuner.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "core/base/types.h"

namespace flashelm {

Status CheckReadShape(const ReadShape& shape) {
  constexpr uint64_t kMaxRequestBytes = uint64_t{1} << 30;
  if (shape.request_bytes % kIoAlignment != 0 ||
      shape.request_bytes > kMaxRequestBytes ||
      shape.queue_depth > kMaxQueueDepth) {
    return InvalidArgument(
        "requests of ", shape.request_bytes, " bytes, ", shape.queue_depth,
        " at a time; expected a multiple of ", kIoAlignment, " up to ",
        kMaxRequestBytes, ", and at most ", kMaxQueueDepth);
  }
  return OkStatus();
}

std::vector<ReadShape> FixedCandidates(std::vector<ReadShape> candidates,
                                       const ReadShape& fixed) {
  std::vector<ReadShape> unique;
  for (ReadShape& shape : candidates) {
    if (fixed.request_bytes != 0) shape.request_bytes = fixed.request_bytes;
    if (fixed.queue_depth != 0) shape.queue_depth = fixed.queue_depth;
    if (std::find(unique.begin(), unique.end(), shape) == unique.end()) {
      unique.push_back(shape);
    }
  }
  return unique;
}

ReadTuner::ReadTuner(std::vector<ReadShape> candidates, const Options& options)
    : candidates_(std::move(candidates)),
      options_(options),
      rates_(candidates_.size() * options_.num_rounds),
      is_settled_(candidates_.size() == 1) {
  assert(!candidates_.empty() && options_.num_rounds > 0);
}

void ReadTuner::OnRequestEnd(uint64_t num_bytes, TimePoint now) {
  if (is_settled_) return;
  num_bytes_ += num_bytes;
  if (is_measuring_) {
    if (num_bytes_ >= window_bytes()) EndWindow(now);
  } else if (num_bytes_ >= options_.skip_bytes) {
    is_measuring_ = true;
    num_bytes_ = 0;
    begin_ = now;
  }
}

void ReadTuner::OnIdle() {
  if (is_settled_ || num_bytes_ == 0) return;
  num_bytes_ = 0;
  is_measuring_ = false;
  if (++num_interruptions_ >= options_.max_interruptions) Settle(0);
}

void ReadTuner::EndWindow(TimePoint now) {
  const std::chrono::nanoseconds elapsed = now - begin_;
  const double rate =
      static_cast<double>(num_bytes_) /
      static_cast<double>(std::max<int64_t>(1, elapsed.count()));
  num_interruptions_ = 0;
  num_bytes_ = 0;
  is_measuring_ = false;
  if (challenger_ != 0) return EndDuelWindow(rate);
  rates_[current_ * options_.num_rounds + round_] = rate;
  // In turn within each round, so that a mood of the device meets all.
  if (++current_ < candidates_.size()) return;
  current_ = 0;
  if (++round_ < options_.num_rounds) return;
  challenger_ = Best();
  if (challenger_ == 0) return Settle(0);
  round_ = 0;
}

void ReadTuner::EndDuelWindow(double rate) {
  is_second_window_ = !is_second_window_;
  if (is_second_window_) {
    first_rate_ = rate;
    current_ = current_ == 0 ? challenger_ : 0;
    return;
  }
  // The next round begins with this candidate, so that neither is always first.
  const bool is_win = current_ == 0 ? first_rate_ > rate : rate > first_rate_;
  if (!is_win && ++num_losses_ > options_.max_losses) return Settle(0);
  if (++round_ == options_.num_duel_rounds) Settle(challenger_);
}

uint32_t ReadTuner::Best() {
  const auto median = [&](size_t candidate) {
    const auto first = rates_.begin() + candidate * options_.num_rounds;
    const auto middle = first + options_.num_rounds / 2;
    std::nth_element(first, middle, first + options_.num_rounds);
    return *middle;
  };
  uint32_t best = 0;
  double best_rate = median(0) * options_.min_gain;
  for (uint32_t i = 1; i < candidates_.size(); ++i) {
    const double rate = median(i);
    if (rate <= best_rate) continue;
    best_rate = rate;
    best = i;
  }
  return best;
}

void ReadTuner::Settle(uint32_t candidate) {
  current_ = candidate;
  is_settled_ = true;
}

}  // namespace flashelm
