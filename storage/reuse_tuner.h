// Which of a ring's free slots is read to next.
#ifndef FLASHELM_STORAGE_REUSE_TUNER_H_
#define FLASHELM_STORAGE_REUSE_TUNER_H_

#include <chrono>
#include <cstdint>

namespace flashelm {

// Decides, over and over, between the slot that became free last and the one
// that has been free for longest. The first keeps bytes in a processor's
// caches, which is faster where a device writes to the caches of the processor
// that reads from them. Where it writes from elsewhere, such lines have to be
// fetched back first, and slots that have left the caches are faster. Which is
// the case can change while a process runs (virtual machines move), so the
// other way is tried for a moment every now and then, and stays if it is
// faster. The time comes from outside: the same events give the same answers.
// One thread; allocates nothing.
class ReuseTuner {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  struct Options {
    uint64_t window_bytes = uint64_t{24} << 20;
    // Not measured after a change: what was begun before it.
    uint64_t skip_bytes = uint64_t{8} << 20;
    // The other way is tried in one window of so many, at least 2.
    uint32_t num_windows = 12;
    double min_gain = 1.05;  // How much faster the other has to be.
  };

  ReuseTuner() : ReuseTuner(Options()) {}
  explicit ReuseTuner(const Options& options);

  bool latest_first() const { return latest_first_; }

  // So many bytes were taken from the ring, and before that, without a pause,
  // those of the call before.
  void OnTaken(uint64_t num_bytes, TimePoint now);
  // Nothing is taken for a while.
  void OnPause() { is_paused_ = true; }

 private:
  void EndWindow(double rate);

  Options options_;
  bool latest_first_ = true;
  bool is_trial_ = false;
  bool is_paused_ = true;
  bool is_skipping_ = true;
  uint32_t num_windows_ = 0;  // Since the last trial.
  double rate_ = 0;           // Bytes per ns, before the trial; 0: not known.
  uint64_t num_bytes_ = 0;    // Of the window, or skipped.
  std::chrono::nanoseconds elapsed_{0};
  TimePoint last_;
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_REUSE_TUNER_H_
