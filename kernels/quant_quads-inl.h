// Sums over four rows at a time: the codes of four rows side by side, times
// four factors. Inlined into each SIMD target that has an instruction for it;
// FLASHELM_HAS_QUADS says whether this one does. Included after hwy/highway.h,
// once per target.
#if defined(FLASHELM_KERNELS_QUANT_QUADS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FLASHELM_KERNELS_QUANT_QUADS_INL_H_
#undef FLASHELM_KERNELS_QUANT_QUADS_INL_H_
#else
#define FLASHELM_KERNELS_QUANT_QUADS_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/dot_product-inl.h"
#include "kernels/weight_view.h"

#undef FLASHELM_HAS_QUADS
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_SSSE3
#define FLASHELM_HAS_QUADS 1
#elif FLASHELM_IS_NEON64
#define FLASHELM_HAS_QUADS 1
#else
#define FLASHELM_HAS_QUADS 0
#endif

#if FLASHELM_HAS_QUADS
HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A lane of 32 bits holds the codes that four rows have at one column.
#if HWY_TARGET <= HWY_AVX3_DL
constexpr size_t kQuadBytes = 64;
#elif HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
constexpr size_t kQuadBytes = 32;
#else
constexpr size_t kQuadBytes = 16;
#endif
using QuadTag = hn::FixedTag<uint8_t, kQuadBytes>;
using QuadVector = hn::Vec<QuadTag>;
using QuadSumTag = hn::Repartition<int32_t, QuadTag>;
using QuadSum = hn::Vec<QuadSumTag>;
constexpr size_t kQuadLanes = kQuadBytes / 4;
// Vectors of the 32 columns of a group.
constexpr size_t kQuadVectors = kQuantGroup / kQuadLanes;

// What is added to codes to have them as QuadVectors. x86's instructions
// multiply unsigned bytes with signed ones, in sums of four (VNNI) or of two
// that have to fit in 16 bits: those of q8 with offset would not.
template <WeightType kType>
constexpr int32_t kCodeOffset = kType == WeightType::kQ4    ? 8
                                : HWY_TARGET <= HWY_AVX3_DL ? 128
                                                            : 0;

#if HWY_TARGET <= HWY_AVX3_DL

// The 16 columns from `offset` on, one vector.
HWY_INLINE void LoadQuads(const std::byte* const* rows, size_t offset,
                          QuadVector* out) {
  // Byte 4 c + r comes from column c of row r.
  alignas(64) static constexpr auto kIndices = [] {
    struct {
      uint8_t at[64] = {};
    } indices;
    for (size_t i = 0; i < 64; ++i) {
      indices.at[i] = static_cast<uint8_t>(i % 4 * 16 + i / 4);
    }
    return indices;
  }();
  const auto load = [&](size_t r) HWY_ATTR {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[r] + offset));
  };
  __m512i all = _mm512_castsi128_si512(load(0));
  all = _mm512_inserti32x4(all, load(1), 1);
  all = _mm512_inserti32x4(all, load(2), 2);
  all = _mm512_inserti32x4(all, load(3), 3);
  out[0].raw = _mm512_permutexvar_epi8(_mm512_load_si512(kIndices.at), all);
}

// sum + the products of four codes and four factors, which lie in `factors`.
// The assembler's name, since the target's options lack avx512vnni.
template <WeightType kType, bool kDotProduct>
HWY_INLINE QuadSum AddDots(QuadVector codes, const int32_t& factors,
                           QuadSum sum) {
  asm("vpdpbusd %2%{1to16%}, %1, %0"
      : "+v"(sum.raw)
      : "v"(codes.raw), "m"(factors));
  return sum;
}

#else

HWY_INLINE void LoadQuads(const std::byte* const* rows, size_t offset,
                          QuadVector* out) {
  const hn::FixedTag<uint8_t, 16> d8;
  const hn::FixedTag<uint16_t, 8> d16;
  hn::Vec<decltype(d8)> row[4];
  for (size_t r = 0; r < 4; ++r) {
    row[r] = hn::LoadU(d8, reinterpret_cast<const uint8_t*>(rows[r] + offset));
  }
  const auto pair = [&](size_t r, bool upper) HWY_ATTR {
    return hn::BitCast(d16, upper ? hn::InterleaveUpper(d8, row[r], row[r + 1])
                                  : hn::InterleaveLower(row[r], row[r + 1]));
  };
  for (size_t half = 0; half < 2; ++half) {
    const auto low =
        hn::BitCast(d8, hn::InterleaveLower(d16, pair(0, half), pair(2, half)));
    const auto high =
        hn::BitCast(d8, hn::InterleaveUpper(d16, pair(0, half), pair(2, half)));
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
    out[half] = hn::Combine(QuadTag(), high, low);
#else
    out[2 * half] = low;
    out[2 * half + 1] = high;
#endif
  }
}

template <WeightType kType, bool kDotProduct>
HWY_INLINE QuadSum AddDots(QuadVector codes, const int32_t& factors,
                           QuadSum sum) {
  const QuadVector f = hn::BitCast(QuadTag(), hn::Set(QuadSumTag(), factors));
  // Two products of at most 128 and 127 fit in 16 bits.
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  __m256i pairs;
  if constexpr (kType == WeightType::kQ4) {
    pairs = _mm256_maddubs_epi16(codes.raw, f.raw);
  } else {  // |code|, and the factor with the code's sign.
    pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes.raw),
                                 _mm256_sign_epi8(f.raw, codes.raw));
  }
  const __m256i dots = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  return hn::Add(sum, QuadSum{dots});
#elif HWY_ARCH_X86
  __m128i pairs;
  if constexpr (kType == WeightType::kQ4) {
    pairs = _mm_maddubs_epi16(codes.raw, f.raw);
  } else {
    pairs = _mm_maddubs_epi16(_mm_abs_epi8(codes.raw),
                              _mm_sign_epi8(f.raw, codes.raw));
  }
  const __m128i dots = _mm_madd_epi16(pairs, _mm_set1_epi16(1));
  return hn::Add(sum, QuadSum{dots});
#else
  return QuadSum{AddQuadProducts<kDotProduct>(
      sum.raw, vreinterpretq_s8_u8(codes.raw), vreinterpretq_s8_u8(f.raw))};
#endif
}

#endif  // HWY_TARGET <= HWY_AVX3_DL

// The codes, with their offset, that four rows have at a group: column k is
// lane k % kQuadLanes of out[k / kQuadLanes].
//   rows   where the codes of the rows begin, 4
template <WeightType kType>
HWY_INLINE void LoadGroupQuads(const std::byte* const* rows, size_t group,
                               QuadVector (&out)[kQuadVectors]) {
  const QuadTag d;
  constexpr size_t kHalf = kQuadVectors / 2;
  if constexpr (kType == WeightType::kQ4) {
    LoadQuads(rows, group * 16, out);
    const hn::Repartition<uint16_t, QuadTag> d16;
    const auto low_half = hn::Set(d, 15);
    HWY_UNROLL(4)
    for (size_t v = 0; v < kHalf; ++v) {
      const auto high =
          hn::BitCast(d, hn::ShiftRight<4>(hn::BitCast(d16, out[v])));
      out[kHalf + v] = hn::And(high, low_half);
      out[v] = hn::And(out[v], low_half);
    }
  } else {
    LoadQuads(rows, group * 32, out);
    LoadQuads(rows, group * 32 + 16, out + kHalf);
    if constexpr (kCodeOffset<kType> != 0) {
      HWY_UNROLL(8)
      for (QuadVector& codes : out) codes = hn::Xor(codes, hn::Set(d, 128));
    }
  }
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // FLASHELM_HAS_QUADS

#endif  // FLASHELM_KERNELS_QUANT_QUADS_INL_H_
