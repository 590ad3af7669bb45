// How large the device's requests are and how many it has at a time.
#ifndef FLASHELM_STORAGE_READ_TUNER_H_
#define FLASHELM_STORAGE_READ_TUNER_H_

#include <chrono>
#include <cstdint>
#include <vector>

#include "core/base/status.h"

namespace flashelm {

struct ReadShape {
  // Most bytes of one request; a multiple of kIoAlignment. 0: to be found out.
  uint64_t request_bytes = 0;
  uint32_t queue_depth = 0;  // Requests at a time. 0: to be found out.
  friend bool operator==(const ReadShape&, const ReadShape&) = default;
};

// More at a time than any device needs to be busy.
inline constexpr uint32_t kMaxQueueDepth = 128;

// kInvalidArgument: a size that is no multiple of kIoAlignment or exceeds 1
// GiB, or more than kMaxQueueDepth requests. Zeros are fine.
Status CheckReadShape(const ReadShape& shape);

// `candidates` with what `fixed` says in place of what they say, each once.
std::vector<ReadShape> FixedCandidates(std::vector<ReadShape> candidates,
                                       const ReadShape& fixed);

// Tries shapes while reads come as fast as the device gives them, and settles
// on the fastest. Each is measured over a window of bytes, in several rounds,
// since devices have moods; the median counts. Of several medians the highest
// may be luck, so what seems to beat the first candidate has to do so again: in
// a duel, window against window, until it has lost more often than a faster
// shape would. A stretch in which the device had nothing to do measures the
// caller, so it counts for nothing. The time comes from outside, so the same
// events give the same shape. One thread.
class ReadTuner {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  struct Options {
    uint64_t window_bytes = uint64_t{16} << 20;
    // Not measured after a change: as much as can be in flight from before.
    uint64_t skip_bytes = uint64_t{4} << 20;
    uint32_t num_rounds = 5;  // Odd, for a median.
    // The first candidate stays unless another is faster by this factor, and
    // then wins all but so many rounds of a duel, whose windows are larger.
    double min_gain = 1.08;
    uint64_t duel_window_bytes = uint64_t{64} << 20;
    uint32_t num_duel_rounds = 9;
    uint32_t max_losses = 1;
    // Stretches in a row that were too short for a window, before the first
    // candidate is taken: the device is not the limit, or reads are few.
    uint32_t max_interruptions = 64;
  };

  // One or more candidates, the default first, without zeros.
  explicit ReadTuner(std::vector<ReadShape> candidates)
      : ReadTuner(std::move(candidates), Options()) {}
  ReadTuner(std::vector<ReadShape> candidates, const Options& options);

  // What to use now.
  const ReadShape& shape() const { return candidates_[current_]; }
  bool is_settled() const { return is_settled_; }

  // A request ended with so many bytes, and others were in flight or waiting
  // since the last one. Allocates nothing.
  void OnRequestEnd(uint64_t num_bytes, TimePoint now);
  // Nothing is in flight and nothing waits.
  void OnIdle();

 private:
  uint64_t window_bytes() const {
    return challenger_ == 0 ? options_.window_bytes
                            : options_.duel_window_bytes;
  }
  void EndWindow(TimePoint now);
  void EndDuelWindow(double rate);
  // The candidate with the best median: the first, if no other clearly is.
  uint32_t Best();
  void Settle(uint32_t candidate);

  std::vector<ReadShape> candidates_;
  Options options_;
  std::vector<double> rates_;  // [num_candidates][num_rounds], bytes per ns.
  uint32_t current_ = 0;
  uint32_t round_ = 0;
  uint32_t challenger_ = 0;  // In a duel with the first candidate; 0: no duel.
  bool is_second_window_ = false;  // Of a round of the duel,
  double first_rate_ = 0;          // whose first window had this rate.
  uint32_t num_losses_ = 0;        // Of the challenger.
  uint32_t num_interruptions_ = 0;
  bool is_settled_ = false;
  bool is_measuring_ = false;  // Past skip_bytes.
  uint64_t num_bytes_ = 0;     // Of the window, or skipped so far.
  TimePoint begin_;            // While is_measuring_.
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_READ_TUNER_H_
