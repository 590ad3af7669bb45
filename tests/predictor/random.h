// Random arrays from a fixed seed.
#ifndef FLASHELM_TESTS_PREDICTOR_RANDOM_H_
#define FLASHELM_TESTS_PREDICTOR_RANDOM_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace flashelm {

// Bell-shaped, with mean 0 and about the standard deviation given: sums of four
// uniform numbers, which every standard library computes alike.
inline std::vector<float> RandomNormals(size_t n, uint32_t seed,
                                        float deviation = 1) {
  std::mt19937 random(seed);
  std::vector<float> values(n);
  for (float& value : values) {
    double sum = 0;
    for (int i = 0; i < 4; ++i) {
      sum += static_cast<double>(random()) * 0x1p-32 - 0.5;
    }
    // Four uniform numbers have the variance 4 / 12.
    value = deviation * static_cast<float>(sum * 1.7320508);
  }
  return values;
}

}  // namespace flashelm

#endif  // FLASHELM_TESTS_PREDICTOR_RANDOM_H_
