#include "kernels/quant_sum.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/quant_sum.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/quant_quads-inl.h"
#include "kernels/weights-inl.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {

constexpr size_t kQuads = kQuantSumRows / 4;
// Groups of columns that are worked on together: a vector of the widest target.
constexpr size_t kStripGroups = 16;

// What a block of rows and a strip of columns have in common for all tokens.
struct Strip {
  const std::byte* codes[kQuantSumRows];  // Of absent rows: any row's.
  size_t num_groups;
  HWY_ALIGN float scales[kQuantSumRows][kStripGroups];
};

// A token's factors of a block, times the scales of a strip.
struct StripFactors {
  HWY_ALIGN int32_t quads[kQuads][kStripGroups];  // Four int8 each.
  HWY_ALIGN float units[kStripGroups];
  HWY_ALIGN int32_t sums[kStripGroups];
};

template <WeightType kType>
HWY_INLINE void LoadStrip(const WeightView& w, size_t num_rows,
                          size_t num_groups, Strip& strip) {
  strip.num_groups = num_groups;
  for (size_t i = 0; i < kQuantSumRows; ++i) {
    const size_t offset = i < num_rows ? i * w.stride_bytes : 0;
    strip.codes[i] = w.data + offset;
    HWY_ALIGN F16 halves[kStripGroups] = {};
    if (i < num_rows) {
      const size_t num_bytes = ScalesBytes(kType, num_groups * kQuantGroup);
      if (num_groups == kStripGroups) {  // A size known to the compiler.
        std::memcpy(halves, w.scales + offset, sizeof(halves));
      } else {
        std::memcpy(halves, w.scales + offset, num_bytes);
      }
    }
    const VectorTag d;
    for (size_t g = 0; g < kStripGroups; g += kLanes) {
      auto scale = LoadF16(d, reinterpret_cast<const std::byte*>(halves + g));
      if constexpr (kType == WeightType::kQ8) {
        scale = hn::Mul(scale, hn::Set(d, 1.0f / 16));
      }
      hn::Store(scale, d, strip.scales[i] + g);
    }
  }
}

// Lanes are groups.
HWY_INLINE void QuantizeFactors(const Strip& strip, size_t num_rows,
                                const float* HWY_RESTRICT factors,
                                StripFactors& out) {
  const VectorTag d;
  const hn::RebindToSigned<VectorTag> di;
  for (size_t g = 0; g < kStripGroups; g += kLanes) {
    HWY_ALIGN float products[kQuantSumRows][kLanes];
    // The magnitudes of floats are in the order of their bits, NaN on top.
    auto max_bits = hn::Zero(di);
    for (size_t i = 0; i < kQuantSumRows; ++i) {
      const float factor = i < num_rows ? factors[i] : 0.0f;
      const Vector p =
          hn::Mul(hn::Set(d, factor), hn::Load(d, strip.scales[i] + g));
      hn::Store(p, d, products[i]);
      max_bits = hn::Max(max_bits, hn::BitCast(di, hn::Abs(p)));
    }
    const Vector amax = hn::BitCast(d, max_bits);
    const auto is_finite = hn::Lt(max_bits, hn::Set(di, 0x7F800000));
    const auto is_small = hn::Lt(amax, hn::Set(d, 0x1p-80f));
    const auto has_codes =
        hn::And(is_finite, hn::Not(hn::RebindMask(di, is_small)));
    const Vector inverse = hn::Div(hn::Set(d, 127), amax);
    auto sum = hn::Zero(di);
    for (size_t q = 0; q < kQuads; ++q) {
      hn::Vec<decltype(di)> codes[4];
      for (size_t r = 0; r < 4; ++r) {
        const Vector p = hn::Load(d, products[4 * q + r]);
        codes[r] =
            hn::IfThenElseZero(has_codes, hn::NearestInt(hn::Mul(p, inverse)));
        sum = hn::Add(sum, codes[r]);
      }
      const auto byte = hn::Set(di, 255);
      const auto low = hn::Or(hn::And(codes[0], byte),
                              hn::ShiftLeft<8>(hn::And(codes[1], byte)));
      const auto high = hn::Or(hn::ShiftLeft<16>(hn::And(codes[2], byte)),
                               hn::ShiftLeft<24>(codes[3]));
      hn::Store(hn::Or(low, high), di, out.quads[q] + g);
    }
    hn::Store(sum, di, out.sums + g);
    const Vector unit =
        hn::IfThenZeroElse(is_small, hn::Div(amax, hn::Set(d, 127)));
    const Vector nan = hn::Set(d, std::numeric_limits<float>::quiet_NaN());
    hn::Store(hn::IfThenElse(hn::RebindMask(d, is_finite), unit, nan), d,
              out.units + g);
  }
}

#if FLASHELM_HAS_QUADS

// The sums of the group's codes times the factors of one token begin here, and
// go to y when all rows are in.
struct GroupSums {
  QuadSum sums[kQuadVectors];
};

template <WeightType kType>
HWY_INLINE void Begin(const StripFactors& factors, size_t group,
                      GroupSums& sums) {
  const QuadSumTag d;
  HWY_UNROLL(8)
  for (QuadSum& sum : sums.sums) {
    sum = hn::Set(d, -kCodeOffset<kType> * factors.sums[group]);
  }
}

HWY_INLINE void AddTo(const StripFactors& factors, size_t group,
                      const GroupSums& sums, float* HWY_RESTRICT y) {
  const hn::RebindToFloat<QuadSumTag> d;
  const auto unit = hn::Set(d, factors.units[group]);
  HWY_UNROLL(8)
  for (size_t v = 0; v < kQuadVectors; ++v) {
    float* at = y + group * kQuantGroup + v * kQuadLanes;
    const auto sum = hn::ConvertTo(d, sums.sums[v]);
    hn::StoreU(hn::MulAdd(sum, unit, hn::LoadU(d, at)), d, at);
  }
}

// The codes of a strip as QuadVectors, for all tokens of a batch.
struct StripQuads {
  HWY_ALIGN uint8_t bytes[kStripGroups][kQuads][4 * kQuantGroup];
};

template <WeightType kType>
HWY_INLINE void ArrangeQuads(const Strip& strip, StripQuads& out) {
  const QuadTag d;
  for (size_t g = 0; g < strip.num_groups; ++g) {
    for (size_t q = 0; q < kQuads; ++q) {
      QuadVector codes[kQuadVectors];
      LoadGroupQuads<kType>(strip.codes + 4 * q, g, codes);
      for (size_t v = 0; v < kQuadVectors; ++v) {
        hn::Store(codes[v], d, out.bytes[g][q] + v * kQuadBytes);
      }
    }
  }
}

template <WeightType kType, size_t kTokens>
HWY_INLINE void AddStripToTokens(const Strip& strip, const StripQuads& quads,
                                 const StripFactors* factors, float* y,
                                 size_t y_stride) {
  for (size_t g = 0; g < strip.num_groups; ++g) {
    GroupSums sums[kTokens];
    HWY_UNROLL(8)
    for (size_t t = 0; t < kTokens; ++t) Begin<kType>(factors[t], g, sums[t]);
    HWY_UNROLL(8)
    for (size_t q = 0; q < kQuads; ++q) {
      HWY_UNROLL(8)
      for (size_t v = 0; v < kQuadVectors; ++v) {
        const QuadVector codes =
            hn::Load(QuadTag(), quads.bytes[g][q] + v * kQuadBytes);
        HWY_UNROLL(8)
        for (size_t t = 0; t < kTokens; ++t) {
          sums[t].sums[v] =
              AddDots<kType>(codes, factors[t].quads[q][g], sums[t].sums[v]);
        }
      }
    }
    HWY_UNROLL(8)
    for (size_t t = 0; t < kTokens; ++t) {
      AddTo(factors[t], g, sums[t], y + t * y_stride);
    }
  }
}

// Tokens whose sums and one vector of codes fit in the registers.
constexpr size_t kSumTokens = HWY_TARGET == HWY_AVX3_DL ? 8 : 2;

template <WeightType kType>
HWY_NOINLINE void AddStripToBatch(const Strip& strip, size_t num_rows,
                                  const float* factors, size_t factors_stride,
                                  size_t num_tokens, float* y,
                                  size_t y_stride) {
  StripQuads quads;
  ArrangeQuads<kType>(strip, quads);
  StripFactors quantized[kSumTokens];
  size_t t = 0;
  for (; num_tokens - t >= kSumTokens; t += kSumTokens) {
    for (size_t i = 0; i < kSumTokens; ++i) {
      QuantizeFactors(strip, num_rows, factors + (t + i) * factors_stride,
                      quantized[i]);
    }
    AddStripToTokens<kType, kSumTokens>(strip, quads, quantized,
                                        y + t * y_stride, y_stride);
  }
  for (; t < num_tokens; ++t) {
    QuantizeFactors(strip, num_rows, factors + t * factors_stride,
                    quantized[0]);
    AddStripToTokens<kType, 1>(strip, quads, quantized, y + t * y_stride,
                               y_stride);
  }
}

template <WeightType kType>
HWY_NOINLINE void AddStripToOne(const Strip& strip, size_t num_rows,
                                const float* factors, float* y) {
  StripFactors quantized;
  QuantizeFactors(strip, num_rows, factors, quantized);
  for (size_t g = 0; g < strip.num_groups; ++g) {
    GroupSums sums;
    Begin<kType>(quantized, g, sums);
    HWY_UNROLL(8)
    for (size_t q = 0; q < kQuads; ++q) {
      QuadVector codes[kQuadVectors];
      LoadGroupQuads<kType>(strip.codes + 4 * q, g, codes);
      HWY_UNROLL(8)
      for (size_t v = 0; v < kQuadVectors; ++v) {
        sums.sums[v] =
            AddDots<kType>(codes[v], quantized.quads[q][g], sums.sums[v]);
      }
    }
    AddTo(quantized, g, sums, y);
  }
}

template <WeightType kType>
HWY_INLINE void AddStrip(const Strip& strip, size_t num_rows,
                         const float* factors, size_t factors_stride,
                         size_t num_tokens, float* y, size_t y_stride) {
  if (num_tokens == 1) {
    AddStripToOne<kType>(strip, num_rows, factors, y);
  } else {
    AddStripToBatch<kType>(strip, num_rows, factors, factors_stride, num_tokens,
                           y, y_stride);
  }
}

#else  // One column after the other.

template <WeightType kType>
HWY_NOINLINE void AddStrip(const Strip& strip, size_t num_rows,
                           const float* factors, size_t factors_stride,
                           size_t num_tokens, float* y, size_t y_stride) {
  const auto code = [&](size_t i, size_t g, size_t k) -> int32_t {
    if constexpr (kType == WeightType::kQ8) {
      return static_cast<int8_t>(strip.codes[i][g * kQuantGroup + k]);
    }
    const auto both = std::to_integer<int32_t>(strip.codes[i][g * 16 + k % 16]);
    return (k < 16 ? both & 15 : both >> 4) - 8;
  };
  const LaneTag d;
  StripFactors quantized;
  for (size_t t = 0; t < num_tokens; ++t) {
    QuantizeFactors(strip, num_rows, factors + t * factors_stride, quantized);
    for (size_t g = 0; g < strip.num_groups; ++g) {
      for (size_t k = 0; k < kQuantGroup; ++k) {
        int32_t sum = 0;
        for (size_t i = 0; i < kQuantSumRows; ++i) {
          const auto quad = static_cast<uint32_t>(quantized.quads[i / 4][g]);
          sum += code(i, g, k) * static_cast<int8_t>(quad >> (i % 4 * 8));
        }
        float* at = y + t * y_stride + g * kQuantGroup + k;
        const auto product =
            hn::MulAdd(hn::Set(d, static_cast<float>(sum)),
                       hn::Set(d, quantized.units[g]), hn::Set(d, *at));
        *at = hn::GetLane(product);
      }
    }
  }
}

#endif  // FLASHELM_HAS_QUADS

template <WeightType kType>
HWY_INLINE void AddQuantRowsOf(const WeightView& w, size_t num_rows,
                               size_t num_cols, const float* factors,
                               size_t factors_stride, size_t num_tokens,
                               float* y, size_t y_stride) {
  const size_t num_groups = num_cols / kQuantGroup;
  for (size_t i = 0; i < num_rows; i += kQuantSumRows) {
    const size_t rows = std::min(kQuantSumRows, num_rows - i);
    for (size_t g = 0; g < num_groups; g += kStripGroups) {
      Strip strip;
      LoadStrip<kType>(Submatrix(w, i, g * kQuantGroup), rows,
                       std::min(kStripGroups, num_groups - g), strip);
      AddStrip<kType>(strip, rows, factors + i, factors_stride, num_tokens,
                      y + g * kQuantGroup, y_stride);
    }
  }
}

void AddQuantRows(const WeightView& w, size_t num_rows, size_t num_cols,
                  const float* factors, size_t factors_stride,
                  size_t num_tokens, float* y, size_t y_stride) {
  if (w.type == WeightType::kQ4) {
    AddQuantRowsOf<WeightType::kQ4>(w, num_rows, num_cols, factors,
                                    factors_stride, num_tokens, y, y_stride);
  } else {
    AddQuantRowsOf<WeightType::kQ8>(w, num_rows, num_cols, factors,
                                    factors_stride, num_tokens, y, y_stride);
  }
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flashelm {

HWY_EXPORT(AddQuantRows);

void AddQuantRows(const WeightView& w, size_t num_rows, size_t num_cols,
                  const float* factors, size_t factors_stride,
                  size_t num_tokens, float* y, size_t y_stride) {
  HWY_DYNAMIC_DISPATCH(AddQuantRows)
  (w, num_rows, num_cols, factors, factors_stride, num_tokens, y, y_stride);
}

}  // namespace flashelm
#endif  // HWY_ONCE
