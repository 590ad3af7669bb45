#include "storage/reuse_tuner.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace flashelm {
namespace {

// A device that gives `latest` or `oldest` bytes per ns, as slots are reused.
class SweptDevice {
 public:
  // The part of the bytes that were taken with the latest slot first.
  double Take(ReuseTuner& tuner, double latest, double oldest,
              uint64_t num_bytes) {
    uint64_t taken = 0;
    uint64_t with_latest = 0;
    for (; taken < num_bytes; taken += kChunk) {
      const double rate = tuner.latest_first() ? latest : oldest;
      if (tuner.latest_first()) with_latest += kChunk;
      now_ += std::chrono::nanoseconds(static_cast<int64_t>(kChunk / rate));
      tuner.OnTaken(kChunk, now_);
    }
    return static_cast<double>(with_latest) / static_cast<double>(taken);
  }
  void Pause(ReuseTuner& tuner, std::chrono::nanoseconds time) {
    tuner.OnPause();
    now_ += time;
  }

 private:
  static constexpr uint64_t kChunk = uint64_t{1} << 20;
  ReuseTuner::TimePoint now_{};
};

constexpr uint64_t kGib = uint64_t{1} << 30;

TEST(ReuseTunerTest, FollowsWhatIsFaster) {
  ReuseTuner tuner;
  SweptDevice device;
  EXPECT_TRUE(tuner.latest_first());
  EXPECT_GT(device.Take(tuner, 2.7, 2.3, 4 * kGib), 0.88);
  device.Take(tuner, 1.6, 2.3, kGib);
  EXPECT_LT(device.Take(tuner, 1.6, 2.3, 4 * kGib), 0.12);
  device.Take(tuner, 2.7, 2.3, kGib);
  EXPECT_GT(device.Take(tuner, 2.7, 2.3, 4 * kGib), 0.88);
}

TEST(ReuseTunerTest, StaysWhereTheOtherIsNoFaster) {
  ReuseTuner tuner;
  SweptDevice device;
  EXPECT_GT(device.Take(tuner, 2.0, 2.05, 4 * kGib), 0.88);
}

TEST(ReuseTunerTest, PausesDoNotCount) {
  ReuseTuner tuner;
  SweptDevice device;
  double sum = 0;
  // A sweep of 5 MiB and a pause, over and over: windows span sweeps.
  for (int i = 0; i < 2000; ++i) {
    sum += device.Take(tuner, 1.6, 2.3, uint64_t{5} << 20);
    device.Pause(tuner, std::chrono::milliseconds(i % 7));
  }
  EXPECT_LT(sum / 2000, 0.2);
}

}  // namespace
}  // namespace flashelm
