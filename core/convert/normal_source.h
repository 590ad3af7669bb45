// Normally distributed numbers by counter, and the normal distribution itself.
#ifndef FLASHELM_CORE_CONVERT_NORMAL_SOURCE_H_
#define FLASHELM_CORE_CONVERT_NORMAL_SOURCE_H_

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace flashelm {

// The standard normal density at `x`, and the probability of more than `x`.
double NormalDensity(double x);
double NormalAbove(double x);
// The x with NormalAbove(x) == p, for p in (0, 1).
double NormalThreshold(double p);
// The probability that two standard normal numbers with correlation
// sin(angle), angle in [0, pi / 2], are both above `threshold`.
double BothAbove(double threshold, double angle);

// 64 bits that look random, the same for equal arguments everywhere.
uint64_t RandomBits(uint64_t key, uint64_t counter);
// The key of a stream of its own per seed and name.
uint64_t RandomKey(uint64_t seed, std::string_view name);

// Every number follows from a key and its index alone, so any part of a stream
// can be made by any thread. They are quantiles of the normal distribution with
// linear pieces between 4097 nodes, scaled to variance 1: none is beyond 3.7,
// and the fourth moment is 2.99. Immutable, so thread-safe.
class NormalSource {
 public:
  NormalSource();

  // out[i] = deviation * number `first` + i of the stream `key`.
  void Fill(uint64_t key, uint64_t first, float deviation,
            std::span<float> out) const;

 private:
  std::vector<float> nodes_;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_CONVERT_NORMAL_SOURCE_H_
