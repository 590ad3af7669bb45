// Conversions between the float formats of weights, and a check on values.
#ifndef FLASHELM_KERNELS_FLOAT_TYPES_H_
#define FLASHELM_KERNELS_FLOAT_TYPES_H_

#include <cstddef>
#include <cstdint>

namespace flashelm {

// Bit patterns, little-endian in files: bfloat16 is the high half of a float.
using Bf16 = uint16_t;
using F16 = uint16_t;

// The value of one element; exact.
float F32FromBf16(Bf16 value);
float F32FromF16(F16 value);

// Rounded to nearest, ties to even; NaN stays NaN, overflow becomes infinity.
Bf16 Bf16FromF32(float value);
F16 F16FromF32(float value);

// Whole arrays, [count] to [count], which do not overlap.
void ConvertBf16ToF32(const Bf16* in, size_t count, float* out);
void ConvertF16ToF32(const F16* in, size_t count, float* out);
void ConvertF32ToBf16(const float* in, size_t count, Bf16* out);

// How many of the values, [count], are NaN or infinite.
size_t CountNonFinite(const float* values, size_t count);

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_FLOAT_TYPES_H_
