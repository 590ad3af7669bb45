#include "storage/reuse_tuner.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace flashelm {

ReuseTuner::ReuseTuner(const Options& options)
    : options_(options),
      // The first trial comes soon: the way to begin with is a guess.
      num_windows_(options.num_windows - 2) {
  assert(options.num_windows >= 2);
}

void ReuseTuner::OnTaken(uint64_t num_bytes, TimePoint now) {
  if (!std::exchange(is_paused_, false)) {
    elapsed_ += now - last_;
    num_bytes_ += num_bytes;
  }
  last_ = now;
  if (num_bytes_ <
      (is_skipping_ ? options_.skip_bytes : options_.window_bytes)) {
    return;
  }
  const double rate =
      static_cast<double>(num_bytes_) /
      static_cast<double>(std::max<int64_t>(1, elapsed_.count()));
  num_bytes_ = 0;
  elapsed_ = {};
  if (!std::exchange(is_skipping_, false)) EndWindow(rate);
}

void ReuseTuner::EndWindow(double rate) {
  if (is_trial_) {
    is_trial_ = false;
    if (rate < rate_ * options_.min_gain) {
      latest_first_ = !latest_first_;
      is_skipping_ = true;
    }
    rate_ = 0;
    num_windows_ = 0;
    return;
  }
  // The last windows count most: the device has moods.
  rate_ = rate_ == 0 ? rate : (rate_ + rate) / 2;
  if (++num_windows_ < options_.num_windows - 1) return;
  latest_first_ = !latest_first_;
  is_trial_ = true;
  is_skipping_ = true;
}

}  // namespace flashelm
