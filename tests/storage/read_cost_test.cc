#include "storage/read_cost.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace flashelm {
namespace {

constexpr uint64_t kSizes[] = {16 << 10, 64 << 10, 256 << 10, 1 << 20};

DeviceRate Rate(uint64_t request_bytes, uint32_t queue_depth, double request_ns,
                double bytes_per_ns) {
  const auto bytes = static_cast<double>(request_bytes);
  DeviceRate rate;
  rate.backend = IoBackend::kUring;
  rate.order = ReadOrder::kRandom;
  rate.shape = {request_bytes, queue_depth};
  rate.bytes_per_second =
      static_cast<uint64_t>(1e9 * bytes / (request_ns + bytes / bytes_per_ns));
  return rate;
}

// A device that does what the model of a cost says.
DeviceProfile ProfileOf(double request_ns, double bytes_per_ns) {
  DeviceProfile profile;
  for (const uint64_t size : kSizes) {
    profile.rates.push_back(Rate(size, 32, request_ns, bytes_per_ns));
    // With shallow queues it is not busy.
    profile.rates.push_back(Rate(size, 1, 20 * request_ns + 1e5, 0.1));
  }
  return profile;
}

TEST(FitReadCostTest, FindsTheCostOfADeviceThatKeepsToTheModel) {
  for (const double request_ns : {0.0, 500.0, 10e3, 200e3}) {
    for (const double bytes_per_ns : {0.1, 1.3, 7.0}) {
      const auto cost =
          FitReadCost(ProfileOf(request_ns, bytes_per_ns), IoBackend::kUring);
      ASSERT_TRUE(cost);
      EXPECT_NEAR(cost->request_ns, request_ns, 1e-4 * request_ns + 0.1);
      EXPECT_NEAR(cost->bytes_per_ns, bytes_per_ns, 1e-4 * bytes_per_ns);
      EXPECT_EQ(cost->sequential_bytes_per_ns, 0);
    }
  }
}

TEST(FitReadCostTest, TakesTheSequentialRateFromTheFastest) {
  DeviceProfile profile = ProfileOf(10e3, 1.3);
  for (const uint64_t rate : {1000, 2500, 2000}) {
    DeviceRate& sequential = profile.rates.emplace_back();
    sequential.backend = IoBackend::kUring;
    sequential.shape = {1 << 20, 8};
    sequential.bytes_per_second = rate * 1000000;
  }
  const auto cost = FitReadCost(profile, IoBackend::kUring);
  ASSERT_TRUE(cost);
  EXPECT_NEAR(cost->request_ns, 10e3, 1);
  EXPECT_NEAR(cost->sequential_bytes_per_ns, 2.5, 1e-9);
}

TEST(FitReadCostTest, ErrorsOfSmallRequestsCountAsMuchAsThoseOfLargeOnes) {
  // Twice the time of a request for the largest ones, as noise would have it:
  // the small ones keep the fit near what they were measured with.
  DeviceProfile profile = ProfileOf(10e3, 1.3);
  for (DeviceRate& rate : profile.rates) {
    if (rate.shape.request_bytes == 1 << 20) rate.bytes_per_second /= 2;
  }
  const auto cost = FitReadCost(profile, IoBackend::kUring);
  ASSERT_TRUE(cost);
  EXPECT_LT(cost->request_ns, 10e3);
  EXPECT_LT(cost->bytes_per_ns, 1.3);
  EXPECT_GT(cost->bytes_per_ns, 0.65);
}

TEST(FitReadCostTest, NeverSaysThatRequestsGiveTimeBack) {
  // Large requests are slower than in proportion to their size.
  DeviceProfile profile;
  profile.rates = {Rate(16 << 10, 8, 0, 2.0), Rate(64 << 10, 8, 0, 1.5),
                   Rate(256 << 10, 8, 0, 1.0)};
  const auto cost = FitReadCost(profile, IoBackend::kUring);
  ASSERT_TRUE(cost);
  EXPECT_EQ(cost->request_ns, 0);
  EXPECT_GT(cost->bytes_per_ns, 1.0);
  EXPECT_LT(cost->bytes_per_ns, 2.0);
}

TEST(FitReadCostTest, SaysNothingOfWhatWasNotMeasured) {
  EXPECT_FALSE(FitReadCost({}, IoBackend::kUring));
  const DeviceProfile profile = ProfileOf(10e3, 1.3);
  EXPECT_TRUE(FitReadCost(profile, IoBackend::kUring));
  EXPECT_FALSE(FitReadCost(profile, IoBackend::kPread));
  DeviceProfile one_size;
  one_size.rates = {Rate(16 << 10, 8, 10e3, 1.3), Rate(16 << 10, 16, 9e3, 1.3)};
  EXPECT_FALSE(FitReadCost(one_size, IoBackend::kUring));
}

TEST(FitReadCostTest, LargerRequestsThatTookNoLongerDoNotMakeBytesFree) {
  // A measurement that was disturbed while small requests were read.
  DeviceProfile profile;
  profile.rates = {Rate(16 << 10, 8, 100e3, 1.0), Rate(64 << 10, 8, 60e3, 2.0),
                   Rate(256 << 10, 8, 0, 4.0)};
  const auto cost = FitReadCost(profile, IoBackend::kUring);
  ASSERT_TRUE(cost);
  EXPECT_NEAR(cost->bytes_per_ns, 4.0, 1e-6);
  EXPECT_GT(cost->request_ns, 0);
  EXPECT_LT(cost->request_ns, 116e3);
  // Each size at one and the same time: even then.
  for (DeviceRate& rate : profile.rates) {
    rate.bytes_per_second = rate.shape.request_bytes * 10000;
  }
  const auto constant = FitReadCost(profile, IoBackend::kUring);
  ASSERT_TRUE(constant);
  EXPECT_NEAR(constant->bytes_per_ns, (256 << 10) * 1e-5, 1e-6);
  EXPECT_GT(constant->request_ns, 0);
  EXPECT_LT(constant->request_ns, 100e3);
}

}  // namespace
}  // namespace flashelm
