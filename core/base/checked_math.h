// Arithmetic on sizes that came from outside.
#ifndef FLASHELM_CORE_BASE_CHECKED_MATH_H_
#define FLASHELM_CORE_BASE_CHECKED_MATH_H_

#include <cstdint>
#include <numeric>
#include <optional>

namespace flashelm {

// a * b, or nothing when it does not fit.
constexpr std::optional<uint64_t> CheckedMul(uint64_t a, uint64_t b) {
  uint64_t out = 0;
  if (__builtin_mul_overflow(a, b, &out)) return std::nullopt;
  return out;
}

// `value` rounded down or up to a multiple of `step`, which is not 0.
// RoundUp: the caller knows that the result fits.
// The largest number where the sum is larger.
constexpr uint64_t SaturatingAdd(uint64_t a, uint64_t b) {
  return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

constexpr uint64_t RoundDown(uint64_t value, uint64_t step) {
  return value - value % step;
}
constexpr uint64_t RoundUp(uint64_t value, uint64_t step) {
  return RoundDown(value + (step - 1), step);
}
constexpr uint64_t CeilDiv(uint64_t value, uint64_t step) {
  return value / step + (value % step != 0 ? 1 : 0);
}

}  // namespace flashelm

#endif  // FLASHELM_CORE_BASE_CHECKED_MATH_H_
