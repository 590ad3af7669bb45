#include "storage/read_tuner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "core/base/types.h"

namespace flashelm {
namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;

const std::vector<ReadShape> kThree = {{kMib, 1}, {kMib / 2, 4}, {kMib / 4, 8}};

// To settle with.
constexpr uint64_t kPlenty = 4000 * kMib;

// A device that needs so many nanoseconds for a request.
using Device = std::function<double(const ReadShape&)>;

Device BytesPerNs(std::vector<double> rates) {
  return [rates](const ReadShape& shape) {
    for (size_t i = 0; i < kThree.size(); ++i) {
      if (kThree[i] == shape) {
        return static_cast<double>(shape.request_bytes) / rates[i];
      }
    }
    return 1.0;
  };
}

// Reads up to so many bytes, or until the tuner settled.
uint64_t Stream(ReadTuner& tuner, const Device& device, uint64_t max_bytes) {
  ReadTuner::TimePoint now;
  uint64_t done = 0;
  while (!tuner.is_settled() && done < max_bytes) {
    const ReadShape shape = tuner.shape();
    now += std::chrono::nanoseconds(static_cast<int64_t>(device(shape)));
    tuner.OnRequestEnd(shape.request_bytes, now);
    done += shape.request_bytes;
  }
  return done;
}

TEST(ReadTunerTest, SettlesOnTheFastest) {
  for (size_t best = 0; best < kThree.size(); ++best) {
    std::vector<double> rates = {1.0, 1.0, 1.0};
    rates[best] = 1.2;
    ReadTuner tuner(kThree);
    EXPECT_EQ(tuner.shape(), kThree[0]) << "what is used first";
    const uint64_t done = Stream(tuner, BytesPerNs(rates), kPlenty);
    EXPECT_TRUE(tuner.is_settled());
    EXPECT_EQ(tuner.shape(), kThree[best]);
    EXPECT_LE(done, (best == 0 ? 400 : 1700) * kMib) << "that has to do";
  }
}

TEST(ReadTunerTest, KeepsTheDefaultUnlessClearlyBeaten) {
  ReadTuner close(kThree);
  Stream(close, BytesPerNs({1.0, 1.05, 1.079}), kPlenty);
  EXPECT_EQ(close.shape(), kThree[0]);
  ReadTuner clear(kThree);
  Stream(clear, BytesPerNs({1.0, 1.05, 1.09}), kPlenty);
  EXPECT_EQ(clear.shape(), kThree[2]);
}

// A device that takes another multiple of its time every 20 MiB.
Device WithMoods(const Device& device, const std::function<double()>& mood) {
  return [device, mood, in_stretch = uint64_t{0},
          factor = 1.0](const ReadShape& shape) mutable {
    in_stretch += shape.request_bytes;
    if (in_stretch > 20 * kMib) {
      in_stretch = 0;
      factor = mood();
    }
    return device(shape) * factor;
  };
}

TEST(ReadTunerTest, AFewSlowStretchesDoNotDecide) {
  std::mt19937 random(5);
  ReadTuner tuner(kThree);
  Stream(tuner,
         WithMoods(BytesPerNs({1.0, 1.3, 1.1}),
                   [&] { return random() % 6 == 0 ? 3.0 : 1.0; }),
         kPlenty);
  EXPECT_EQ(tuner.shape(), kThree[1]);
}

// Settled shapes of 100 tuners, on a device that takes 0.7 to 1.4 times as
// long.
std::vector<int> SettledByMoods(const Device& device) {
  std::vector<int> counts(kThree.size());
  for (unsigned seed = 0; seed < 100; ++seed) {
    std::mt19937 random(seed);
    ReadTuner tuner(kThree);
    const auto mood = [&] {
      return 0.7 + 0.7 * static_cast<double>(random()) /
                       static_cast<double>(std::mt19937::max());
    };
    Stream(tuner, WithMoods(device, mood), kPlenty);
    EXPECT_TRUE(tuner.is_settled());
    counts[static_cast<size_t>(std::ranges::find(kThree, tuner.shape()) -
                               kThree.begin())]++;
  }
  return counts;
}

TEST(ReadTunerTest, LuckSettlesOnNothing) {
  EXPECT_GE(SettledByMoods(BytesPerNs({1.0, 1.0, 1.0}))[0], 97);
  EXPECT_GE(SettledByMoods(BytesPerNs({1.0, 0.9, 0.8}))[0], 99);
}

TEST(ReadTunerTest, WhatIsFasterWinsInSpiteOfMoods) {
  EXPECT_GE(SettledByMoods(BytesPerNs({1.0, 1.0, 1.4}))[2], 90);
}

TEST(ReadTunerTest, StretchesWithNothingToDoCountForNothing) {
  // Whenever the first shape is used, the caller pauses now and then.
  const Device device = BytesPerNs({1.2, 1.0, 1.0});
  ReadTuner tuner(kThree);
  ReadTuner::TimePoint now;
  uint64_t since_pause = 0;
  for (int i = 0; i < 100000 && !tuner.is_settled(); ++i) {
    const ReadShape shape = tuner.shape();
    now += std::chrono::nanoseconds(static_cast<int64_t>(device(shape)));
    tuner.OnRequestEnd(shape.request_bytes, now);
    since_pause += shape.request_bytes;
    if (shape == kThree[0] && since_pause > 30 * kMib) {
      tuner.OnIdle();
      now += std::chrono::seconds(1);
      since_pause = 0;
    }
  }
  EXPECT_TRUE(tuner.is_settled());
  EXPECT_EQ(tuner.shape(), kThree[0]);
}

TEST(ReadTunerTest, GivesUpWhereTheDeviceIsNotTheLimit) {
  ReadTuner tuner(kThree);
  ReadTuner::TimePoint now;
  int pauses = 0;
  while (!tuner.is_settled() && pauses < 1000) {
    for (int i = 0; i < 3; ++i) {
      now += std::chrono::microseconds(100);
      tuner.OnRequestEnd(kMib, now);
    }
    tuner.OnIdle();
    ++pauses;
  }
  EXPECT_TRUE(tuner.is_settled());
  EXPECT_EQ(tuner.shape(), kThree[0]);
  EXPECT_EQ(pauses, 64);
}

TEST(ReadTunerTest, OneCandidateIsSettledAtOnce) {
  ReadTuner tuner({{kMib, 3}});
  EXPECT_TRUE(tuner.is_settled());
  tuner.OnRequestEnd(kMib, ReadTuner::TimePoint());
  tuner.OnIdle();
  EXPECT_EQ(tuner.shape(), (ReadShape{kMib, 3}));
}

TEST(ReadTunerTest, SurvivesAClockThatStands) {
  ReadTuner tuner(kThree);
  Stream(
      tuner, [](const ReadShape&) { return 0.0; }, kPlenty);
  EXPECT_TRUE(tuner.is_settled());
}

TEST(ReadShapeTest, FixedPartsReplaceThoseOfTheCandidates) {
  EXPECT_EQ(FixedCandidates(kThree, {}), kThree);
  EXPECT_EQ(FixedCandidates(kThree, {kIoAlignment, 0}),
            (std::vector<ReadShape>{
                {kIoAlignment, 1}, {kIoAlignment, 4}, {kIoAlignment, 8}}));
  EXPECT_EQ(FixedCandidates(kThree, {kIoAlignment, 2}),
            (std::vector<ReadShape>{{kIoAlignment, 2}}));
}

TEST(ReadShapeTest, IsCheckedAtItsEdges) {
  EXPECT_TRUE(CheckReadShape({}).ok());
  EXPECT_TRUE(CheckReadShape({uint64_t{1} << 30, kMaxQueueDepth}).ok());
  EXPECT_FALSE(CheckReadShape({(uint64_t{1} << 30) + kIoAlignment, 1}).ok());
  EXPECT_FALSE(CheckReadShape({512, 1}).ok());
  EXPECT_FALSE(CheckReadShape({0, kMaxQueueDepth + 1}).ok());
}

}  // namespace
}  // namespace flashelm
