#include "kernels/float_types.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace flashelm {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The value of a pattern with the given field widths, from the definition.
double Decode(uint32_t bits, int exponent_bits, int mantissa_bits) {
  const uint32_t mantissa = bits & ((1u << mantissa_bits) - 1);
  const uint32_t max_exponent = (1u << exponent_bits) - 1;
  const uint32_t exponent = (bits >> mantissa_bits) & max_exponent;
  const double sign = bits >> (exponent_bits + mantissa_bits) ? -1 : 1;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  if (exponent == max_exponent) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::quiet_NaN();
  }
  if (exponent == 0) {
    return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  }
  return sign * std::ldexp(mantissa + (1u << mantissa_bits),
                           static_cast<int>(exponent) - bias - mantissa_bits);
}

void ExpectSameValue(float value, double expected) {
  if (std::isnan(expected)) {
    EXPECT_TRUE(std::isnan(value));
  } else {
    EXPECT_EQ(static_cast<double>(value), expected);
    EXPECT_EQ(std::signbit(value), std::signbit(expected));
  }
}

TEST(FloatTypesTest, EveryBf16PatternHasItsValueAndComesBack) {
  for (uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    SCOPED_TRACE(bits);
    const float value = F32FromBf16(static_cast<Bf16>(bits));
    ExpectSameValue(value, Decode(bits, 8, 7));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(F32FromBf16(Bf16FromF32(value))));
    } else {
      EXPECT_EQ(Bf16FromF32(value), bits);
    }
  }
}

TEST(FloatTypesTest, EveryF16PatternHasItsValueAndComesBack) {
  for (uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    SCOPED_TRACE(bits);
    const float value = F32FromF16(static_cast<F16>(bits));
    ExpectSameValue(value, Decode(bits, 5, 10));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(F32FromF16(F16FromF32(value))));
    } else {
      EXPECT_EQ(F16FromF32(value), bits);
    }
  }
}

TEST(FloatTypesTest, RoundsToTheNearestF16AndTiesToEven) {
  // Up to the midpoint between the largest one and what would follow it.
  for (uint32_t bits = 0; bits <= 0x7BFF; ++bits) {
    SCOPED_TRACE(bits);
    const double below = Decode(bits, 5, 10);
    const double above = bits == 0x7BFF ? 65536.0 : Decode(bits + 1, 5, 10);
    const auto midpoint = static_cast<float>((below + above) / 2);  // Exact.
    const uint32_t even = bits + (bits & 1);
    for (const float sign : {1.0f, -1.0f}) {
      const uint32_t sign16 = sign < 0 ? 0x8000u : 0u;
      EXPECT_EQ(F16FromF32(sign * std::nextafter(midpoint, 0.0f)),
                sign16 | bits);
      EXPECT_EQ(F16FromF32(sign * midpoint), sign16 | even);
      EXPECT_EQ(F16FromF32(sign * std::nextafter(midpoint, kInfinity)),
                sign16 | (bits + 1));
    }
  }
  for (const float value : {65536.0f, 1e10f, kInfinity}) {
    EXPECT_EQ(F16FromF32(value), 0x7C00);
    EXPECT_EQ(F16FromF32(-value), 0xFC00);
  }
  EXPECT_EQ(F16FromF32(std::numeric_limits<float>::denorm_min()), 0);
  // A NaN whose payload lies below what F16 keeps.
  EXPECT_TRUE(
      std::isnan(F32FromF16(F16FromF32(std::bit_cast<float>(0x7F800001u)))));
}

TEST(FloatTypesTest, RoundsToTheNearestBf16AndTiesToEven) {
  // For neighbours a < b of one sign: their midpoint, and a float either side.
  for (uint32_t bits = 0; bits < 0x7F7F; ++bits) {
    SCOPED_TRACE(bits);
    const uint32_t midpoint = (bits << 16) | 0x8000u;
    const uint32_t even = bits + (bits & 1);
    for (const uint32_t sign : {0u, 0x8000u}) {
      const uint32_t sign32 = sign << 16;
      EXPECT_EQ(Bf16FromF32(std::bit_cast<float>(sign32 | (midpoint - 1))),
                sign | bits);
      EXPECT_EQ(Bf16FromF32(std::bit_cast<float>(sign32 | midpoint)),
                sign | even);
      EXPECT_EQ(Bf16FromF32(std::bit_cast<float>(sign32 | (midpoint + 1))),
                sign | (bits + 1));
    }
  }
}

TEST(FloatTypesTest, OverflowBecomesInfinityAndNanStaysNan) {
  struct Case {
    const char* name;
    uint32_t f32_bits;
    Bf16 expected;
  };
  const Case cases[] = {
      {"largest that rounds down", 0x7F7F7FFF, 0x7F7F},
      {"tie above the largest bf16", 0x7F7F8000, 0x7F80},
      {"largest float", 0x7F7FFFFF, 0x7F80},
      {"most negative float", 0xFF7FFFFF, 0xFF80},
      {"infinity", 0x7F800000, 0x7F80},
      {"negative infinity", 0xFF800000, 0xFF80},
      {"NaN with only low bits", 0x7F800001, 0x7FC0},
      {"NaN that rounding up would wrap", 0x7FFFFFFF, 0x7FFF},
      {"negative NaN that rounding up would wrap", 0xFFFFFFFF, 0xFFFF},
      {"negative zero", 0x80000000, 0x8000},
      {"least subnormal", 0x00000001, 0x0000},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    EXPECT_EQ(Bf16FromF32(std::bit_cast<float>(c.f32_bits)), c.expected);
  }
}

TEST(FloatTypesTest, ArraysAreConvertedElementByElement) {
  const std::vector<float> values = {0.0f, -1.0f, 3.14159265f, 1e30f, -1e-40f};
  std::vector<Bf16> bf16(values.size());
  ConvertF32ToBf16(values.data(), values.size(), bf16.data());
  std::vector<float> from_bf16(values.size());
  ConvertBf16ToF32(bf16.data(), bf16.size(), from_bf16.data());
  const std::vector<F16> f16 = {0x3C00, 0xC000, 0x0001, 0x7BFF, 0x8000};
  std::vector<float> from_f16(f16.size());
  ConvertF16ToF32(f16.data(), f16.size(), from_f16.data());
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(bf16[i], Bf16FromF32(values[i]));
    EXPECT_EQ(from_bf16[i], F32FromBf16(bf16[i]));
  }
  EXPECT_EQ(from_f16,
            (std::vector<float>{1.0f, -2.0f, 0x1p-24f, 65504.0f, -0.0f}));
}

TEST(FloatTypesTest, CountsNanAndInfinity) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> values = {0, nan, 1, kInfinity, -kInfinity, 3e38f};
  EXPECT_EQ(CountNonFinite(values.data(), values.size()), 3u);
  EXPECT_EQ(CountNonFinite(values.data(), 1), 0u);
  EXPECT_EQ(CountNonFinite(nullptr, 0), 0u);
}

}  // namespace
}  // namespace flashelm
