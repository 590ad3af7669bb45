#include "kernels/float_types.h"

#include <bit>

namespace flashelm {

float F32FromBf16(Bf16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}

float F32FromF16(F16 value) {
  const uint32_t sign = static_cast<uint32_t>(value & 0x8000u) << 16;
  const uint32_t exponent = (value >> 10) & 0x1Fu;
  const uint32_t mantissa = value & 0x3FFu;
  if (exponent == 0x1F) {  // Infinity or NaN.
    return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));
  }
  if (exponent == 0) {  // Zero or subnormal: mantissa * 2^-24, exact in f32.
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) |
                              (mantissa << 13));
}

Bf16 Bf16FromF32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) {
    return static_cast<Bf16>((bits >> 16) | 0x40u);  // Quiet, never infinity.
  }
  const uint32_t round = 0x7FFFu + ((bits >> 16) & 1u);
  return static_cast<Bf16>((bits + round) >> 16);
}

F16 F16FromF32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<F16>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) {
    return static_cast<F16>(sign | 0x7E00u | ((magnitude >> 13) & 0x3FFu));
  }
  if (magnitude >= 0x477FF000u) {  // From half a step above 65504 on.
    return static_cast<F16>(sign | 0x7C00u);
  }
  if (magnitude < 0x38800000u) {
    // Subnormal, in steps of 2^-24: those of an f32 between 1/2 and 1, so the
    // addition rounds, and leaves the steps in the mantissa.
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<F16>(sign | (std::bit_cast<uint32_t>(sum) & 0x7FFu));
  }
  const uint32_t round = 0xFFFu + ((magnitude >> 13) & 1u);
  return static_cast<F16>(sign | ((magnitude - 0x38000000u + round) >> 13));
}

void ConvertBf16ToF32(const Bf16* in, size_t count, float* out) {
  for (size_t i = 0; i < count; ++i) out[i] = F32FromBf16(in[i]);
}

void ConvertF16ToF32(const F16* in, size_t count, float* out) {
  for (size_t i = 0; i < count; ++i) out[i] = F32FromF16(in[i]);
}

void ConvertF32ToBf16(const float* in, size_t count, Bf16* out) {
  for (size_t i = 0; i < count; ++i) out[i] = Bf16FromF32(in[i]);
}

size_t CountNonFinite(const float* values, size_t count) {
  size_t found = 0;
  for (size_t i = 0; i < count; ++i) {
    found += (std::bit_cast<uint32_t>(values[i]) & 0x7F800000u) == 0x7F800000u;
  }
  return found;
}

}  // namespace flashelm
