// When each segment of a sweep was read and when it was computed with.
#ifndef FLASHELM_STORAGE_SWEEP_TRACE_H_
#define FLASHELM_STORAGE_SWEEP_TRACE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace flashelm {

// Filled by a WeightStore: for each step (segment) of each sweep, one entry.
// All memory is taken by the constructor; what happens after the last sweep
// there is room for is not noted. Used by one thread.
class SweepTrace {
 public:
  using Time = std::chrono::steady_clock::time_point;

  struct Step {
    // From the first read's beginning to the last one's end; no bytes: nothing
    // of the segment was streamed.
    Time read_begin;
    Time read_end;
    uint64_t read_bytes = 0;
    // From the first run's handing out to the next step's, waiting included;
    // equal when the step was not reached.
    Time compute_begin;
    Time compute_end;
    std::chrono::nanoseconds wait{0};  // For reads.
  };

  SweepTrace(size_t num_steps, size_t max_sweeps)
      : num_steps_(num_steps), steps_(num_steps * max_sweeps) {}

  static uint64_t NumBytes(size_t num_steps, size_t max_sweeps) {
    return sizeof(Step) * num_steps * max_sweeps;
  }

  void BeginSweep(uint64_t sweep) {
    sweep_ = sweep;
    step_ = num_steps_;
    num_sweeps_ = sweep;
  }
  // Ends the step before, if it is another.
  void BeginStep(size_t step, Time now) {
    if (step == step_) return;
    EndStep(now);
    step_ = step;
    if (Step* entry = Find(sweep_, step)) entry->compute_begin = now;
  }
  void EndStep(Time now) {
    if (Step* entry = Find(sweep_, step_)) entry->compute_end = now;
    step_ = num_steps_;
  }
  void AddWait(std::chrono::nanoseconds time) {
    if (Step* entry = Find(sweep_, step_)) entry->wait += time;
  }
  void AddRead(uint64_t sweep, size_t step, uint64_t bytes, Time begin,
               Time end) {
    Step* entry = Find(sweep, step);
    if (entry == nullptr) return;
    if (entry->read_bytes == 0 || begin < entry->read_begin) {
      entry->read_begin = begin;
    }
    if (end > entry->read_end) entry->read_end = end;
    entry->read_bytes += bytes;
  }

  // Sweeps begun, those there was no room for included.
  uint64_t num_sweeps() const { return num_sweeps_; }
  // [num_steps] for each sweep that has an entry, in order.
  std::span<const Step> steps() const { return steps_; }
  size_t num_steps() const { return num_steps_; }

 private:
  // Sweeps are counted from 1.
  Step* Find(uint64_t sweep, size_t step) {
    if (step >= num_steps_ || sweep == 0 ||
        sweep > steps_.size() / num_steps_) {
      return nullptr;
    }
    return &steps_[(sweep - 1) * num_steps_ + step];
  }

  const size_t num_steps_;
  std::vector<Step> steps_;
  uint64_t sweep_ = 0;
  size_t step_ = SIZE_MAX;
  uint64_t num_sweeps_ = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_SWEEP_TRACE_H_
