// Dot products of a row of quantized weights with one quantized token, in the
// canonical order that quant_matmul.h defines; inlined into each SIMD target.
// Included after hwy/highway.h, once per target.
#if defined(FLASHELM_KERNELS_QUANT_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FLASHELM_KERNELS_QUANT_DOT_INL_H_
#undef FLASHELM_KERNELS_QUANT_DOT_INL_H_
#else
#define FLASHELM_KERNELS_QUANT_DOT_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/dot-inl.h"
#include "kernels/dot_product-inl.h"
#include "kernels/float_types.h"
#include "kernels/quant_tokens.h"
#include "kernels/weight_view.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The eight partial sums, in the order of TokenBlock::scales.
using PartialTag = hn::CappedTag<float, kBlockGroups>;
using PartialVector = hn::Vec<PartialTag>;
constexpr size_t kPartialLanes = hn::MaxLanes(PartialTag());
constexpr size_t kPartialVectors = kBlockGroups / kPartialLanes;
using DotTag = hn::RebindToSigned<PartialTag>;
using DotVector = hn::Vec<DotTag>;

constexpr size_t kBlockCols = kBlockGroups * kQuantGroup;

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2

// Sums of four neighbours: lane i of a half has those of its part of
// sums[i], which are the groups 2 i (lower half) and 2 i + 1 (upper half).
HWY_INLINE __m256i SumsOfQuads(const __m256i (&sums)[4]) {
  return _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]),
                           _mm256_hadd_epi32(sums[2], sums[3]));
}

// The sums of products of the groups of a block, 8 of `codes`. kDotProduct:
// with ARM's instruction for it, which the CPU has to have.
template <WeightType kType, bool kDotProduct>
HWY_INLINE void BlockDots(const std::byte* codes, const TokenBlock& token,
                          DotVector (&dots)[kPartialVectors]) {
  const __m256i ones = _mm256_set1_epi16(1);
  const auto* from = reinterpret_cast<const __m128i*>(codes);
  const auto* activations = reinterpret_cast<const __m256i*>(token.codes);
  __m256i sums[4];
  if constexpr (kType == WeightType::kQ4) {
    const __m256i low_half = _mm256_set1_epi8(15);
    HWY_UNROLL(4)
    for (size_t p = 0; p < 4; ++p) {
      const __m256i both =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from) + p);
      const __m256i low = _mm256_and_si256(both, low_half);
      const __m256i high =
          _mm256_and_si256(_mm256_srli_epi16(both, 4), low_half);
      sums[p] =
          _mm256_add_epi16(_mm256_maddubs_epi16(low, activations[2 * p]),
                           _mm256_maddubs_epi16(high, activations[2 * p + 1]));
    }
    // At most 8 products of 15 and 127 in a lane: 16 bits hold them.
    const __m256i halves =
        _mm256_hadd_epi16(_mm256_hadd_epi16(sums[0], sums[1]),
                          _mm256_hadd_epi16(sums[2], sums[3]));
    dots[0].raw = _mm256_add_epi32(
        _mm256_madd_epi16(halves, ones),
        _mm256_load_si256(reinterpret_cast<const __m256i*>(token.offsets)));
  } else {
    HWY_UNROLL(4)
    for (size_t p = 0; p < 4; ++p) {
      __m256i half_sums[2];
      HWY_UNROLL(2)
      for (size_t half = 0; half < 2; ++half) {
        const __m256i code = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128(from + 4 * p + half)),
            _mm_loadu_si128(from + 4 * p + 2 + half), 1);
        // |code| and the activation with the sign of the code. Two products of
        // 128 and 127 stay below 2^15.
        half_sums[half] = _mm256_madd_epi16(
            _mm256_maddubs_epi16(
                _mm256_abs_epi8(code),
                _mm256_sign_epi8(activations[2 * p + half], code)),
            ones);
      }
      sums[p] = _mm256_add_epi32(half_sums[0], half_sums[1]);
    }
    dots[0].raw = SumsOfQuads(sums);
  }
}

HWY_INLINE void LoadScales(const std::byte* scales,
                           PartialVector (&out)[kPartialVectors]) {
  const __m128i evens_then_odds =
      _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
  out[0].raw = _mm256_cvtph_ps(_mm_shuffle_epi8(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales)),
      evens_then_odds));
}

#elif FLASHELM_IS_NEON64  // 64-bit ARM

static_assert(kPartialVectors == 2);

template <WeightType kType, bool kDotProduct>
HWY_INLINE void BlockDots(const std::byte* codes, const TokenBlock& token,
                          DotVector (&dots)[kPartialVectors]) {
  HWY_UNROLL(2)
  for (size_t odd = 0; odd < 2; ++odd) {
    int32x4_t sums[4];
    HWY_UNROLL(4)
    for (size_t p = 0; p < 4; ++p) {
      const size_t g = 2 * p + odd;
      int8x16_t group[2];
      if constexpr (kType == WeightType::kQ4) {
        const uint8x16_t both =
            vld1q_u8(reinterpret_cast<const uint8_t*>(codes) + g * 16);
        group[0] = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
        group[1] = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
      } else {
        const auto* from = reinterpret_cast<const int8_t*>(codes) + g * 32;
        group[0] = vld1q_s8(from);
        group[1] = vld1q_s8(from + 16);
      }
      const int8_t* activations = token.codes + TokenBlock::CodesIndex(g);
      sums[p] = vdupq_n_s32(0);
      HWY_UNROLL(2)
      for (size_t half = 0; half < 2; ++half) {
        sums[p] = AddQuadProducts<kDotProduct>(
            sums[p], group[half],
            vld1q_s8(activations + half * TokenBlock::kHalfStride));
      }
    }
    int32x4_t dot =
        vpaddq_s32(vpaddq_s32(sums[0], sums[1]), vpaddq_s32(sums[2], sums[3]));
    if constexpr (kType == WeightType::kQ4) {
      dot = vaddq_s32(dot, vld1q_s32(token.offsets + odd * 4));
    }
    dots[odd] = DotVector(dot);
  }
}

HWY_INLINE void LoadScales(const std::byte* scales,
                           PartialVector (&out)[kPartialVectors]) {
  const uint16x8_t all =
      vreinterpretq_u16_u8(vld1q_u8(reinterpret_cast<const uint8_t*>(scales)));
  const uint16x8_t evens = vuzp1q_u16(all, all);
  const uint16x8_t odds = vuzp2q_u16(all, all);
  out[0] =
      PartialVector(vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(evens))));
  out[1] =
      PartialVector(vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(odds))));
}

#else  // All other targets: one group at a time.

// The sum of 32 products of codes c, in order, with the activations of a group
// of a TokenBlock.
HWY_INLINE int32_t GroupDot(const int8_t* HWY_RESTRICT c,
                            const int8_t* HWY_RESTRICT a) {
#if HWY_TARGET == HWY_SCALAR
  int32_t sum = 0;
  for (size_t k = 0; k < kQuantGroup; ++k) {
    sum += c[k] * a[k % 16 + k / 16 * TokenBlock::kHalfStride];
  }
  return sum;
#else
  const hn::FixedTag<int8_t, 8> d8;
  const hn::FixedTag<int16_t, 8> d16;
  const hn::FixedTag<int32_t, 4> d32;
  auto sum0 = hn::Zero(d32);
  auto sum1 = hn::Zero(d32);
  HWY_UNROLL(4)
  for (size_t k = 0; k < kQuantGroup; k += 8) {
    sum0 = hn::ReorderWidenMulAccumulate(
        d32, hn::PromoteTo(d16, hn::LoadU(d8, c + k)),
        hn::PromoteTo(
            d16, hn::LoadU(d8, a + k % 16 + k / 16 * TokenBlock::kHalfStride)),
        sum0, sum1);
  }
  return hn::GetLane(hn::SumOfLanes(d32, hn::Add(sum0, sum1)));
#endif
}

template <WeightType kType, bool kDotProduct>
HWY_INLINE void BlockDots(const std::byte* codes, const TokenBlock& token,
                          DotVector (&dots)[kPartialVectors]) {
  HWY_ALIGN int32_t sums[kBlockGroups];
  for (size_t g = 0; g < kBlockGroups; ++g) {
    const int8_t* activations = token.codes + TokenBlock::CodesIndex(g);
    const size_t at = TokenBlock::ScaleIndex(g);
    int32_t& sum = sums[at];
    if constexpr (kType == WeightType::kQ4) {
      HWY_ALIGN int8_t unpacked[kQuantGroup];
      for (size_t j = 0; j < 16; ++j) {
        const auto both = std::to_integer<unsigned>(codes[g * 16 + j]);
        unpacked[j] = static_cast<int8_t>(both & 15);
        unpacked[16 + j] = static_cast<int8_t>(both >> 4);
      }
      sum = GroupDot(unpacked, activations) + token.offsets[at];
    } else {
      sum = GroupDot(reinterpret_cast<const int8_t*>(codes) + g * kQuantGroup,
                     activations);
    }
  }
  for (size_t i = 0; i < kPartialVectors; ++i) {
    dots[i] = hn::Load(DotTag(), sums + i * kPartialLanes);
  }
}

HWY_INLINE void LoadScales(const std::byte* scales,
                           PartialVector (&out)[kPartialVectors]) {
  HWY_ALIGN float values[kBlockGroups];
  for (size_t g = 0; g < kBlockGroups; ++g) {
    F16 bits;
    std::memcpy(&bits, scales + g * sizeof(bits), sizeof(bits));
    values[TokenBlock::ScaleIndex(g)] = F32FromF16(bits);
  }
  for (size_t i = 0; i < kPartialVectors; ++i) {
    out[i] = hn::Load(PartialTag(), values + i * kPartialLanes);
  }
}

#endif

// Adds the products of a block to the partial sums.
template <WeightType kType, bool kDotProduct>
HWY_INLINE void AddBlock(const std::byte* codes, const std::byte* scales,
                         const TokenBlock& token,
                         PartialVector (&partials)[kPartialVectors]) {
  const PartialTag d;
  DotVector dots[kPartialVectors];
  PartialVector w_scales[kPartialVectors];
  BlockDots<kType, kDotProduct>(codes, token, dots);
  LoadScales(scales, w_scales);
  HWY_UNROLL(8)
  for (size_t i = 0; i < kPartialVectors; ++i) {
    PartialVector scale = w_scales[i];
    if constexpr (kType == WeightType::kQ8) {
      scale = hn::Mul(scale, hn::Set(d, 1.0f / 16));
    }
    scale = hn::Mul(scale, hn::Load(d, token.scales + i * kPartialLanes));
    partials[i] = hn::MulAdd(hn::ConvertTo(d, dots[i]), scale, partials[i]);
  }
}

// ((p0 + p4) + (p2 + p6)) + ((p1 + p5) + (p3 + p7)); the even ones come first.
HWY_INLINE float SumOfPartials(
    const PartialVector (&partials)[kPartialVectors]) {
  HWY_ALIGN float p[kBlockGroups];
  for (size_t i = 0; i < kPartialVectors; ++i) {
    hn::Store(partials[i], PartialTag(), p + i * kPartialLanes);
  }
  return ((p[0] + p[2]) + (p[1] + p[3])) + ((p[4] + p[6]) + (p[5] + p[7]));
}

// The dot product of a row with a token, [NumBlocks(num_groups)].
// `fetcher` advances by the bytes of the row.
template <WeightType kType, bool kDotProduct>
HWY_INLINE float QuantDot(const std::byte* codes, const std::byte* scales,
                          size_t num_groups, const TokenBlock* token,
                          LineFetcher& fetcher) {
  constexpr size_t kBlockBytes = ElementsBytes(kType, kBlockCols);
  constexpr size_t kBlockScales = ScalesBytes(kType, kBlockCols);
  PartialVector partials[kPartialVectors];
  for (PartialVector& partial : partials) partial = hn::Zero(PartialTag());
  const size_t num_whole = num_groups / kBlockGroups;
  for (size_t b = 0; b < num_whole; ++b) {
    fetcher.Advance(kBlockBytes + kBlockScales);
    AddBlock<kType, kDotProduct>(codes + b * kBlockBytes,
                                 scales + b * kBlockScales, token[b], partials);
  }
  if (const size_t rest = num_groups % kBlockGroups; rest > 0) {
    // From copies: nothing past the row may be read. A group that is not there
    // adds +0 to a partial sum, which is never -0: no sum of a product that is
    // not 0 and +0 is.
    HWY_ALIGN std::byte rest_codes[kBlockBytes] = {};
    HWY_ALIGN std::byte rest_scales[kBlockScales] = {};
    std::memcpy(rest_codes, codes + num_whole * kBlockBytes,
                ElementsBytes(kType, rest * kQuantGroup));
    std::memcpy(rest_scales, scales + num_whole * kBlockScales,
                ScalesBytes(kType, rest * kQuantGroup));
    AddBlock<kType, kDotProduct>(rest_codes, rest_scales, token[num_whole],
                                 partials);
  }
  return SumOfPartials(partials);
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // FLASHELM_KERNELS_QUANT_DOT_INL_H_
