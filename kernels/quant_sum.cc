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
#include "kernels/dot_product-inl.h"
#include "kernels/quant_quads-inl.h"
#include "kernels/weights-inl.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {

constexpr size_t kRowQuads = kQuantSumRows / 4;
// Groups of columns that are worked on together: a vector of the widest target.
constexpr size_t kStripGroups = 16;

// What a block of rows and a strip of columns have in common for all tokens.
struct Strip {
  const std::byte* codes[kQuantSumRows];  // Of absent rows: any row's.
  size_t num_rows;
  size_t num_groups;
  HWY_ALIGN float ratios[kQuantSumRows][kStripGroups];
  HWY_ALIGN float max_scales[kStripGroups];
};

// A token's factors of a block.
struct BlockFactors {
  HWY_ALIGN float ratios[kQuantSumRows];
  float unit;
};

// Their products with the scales of a strip.
struct StripFactors {
  HWY_ALIGN int32_t quads[kRowQuads][kStripGroups];  // Four int8 each.
  HWY_ALIGN float units[kStripGroups];
  HWY_ALIGN int32_t sums[kStripGroups];
};

// The magnitudes of floats are in the order of their bits, NaN on top.
using BitsTag = hn::RebindToSigned<VectorTag>;
HWY_INLINE hn::Vec<BitsTag> MaxMagnitude(hn::Vec<BitsTag> max_bits, Vector v) {
  return hn::Max(max_bits, hn::BitCast(BitsTag(), hn::Abs(v)));
}
constexpr int32_t kInfinityBits = 0x7F800000;

template <WeightType kType>
HWY_INLINE void LoadStrip(const WeightView& w, size_t num_rows,
                          size_t num_groups, Strip& strip) {
  const VectorTag d;
  strip.num_rows = num_rows;
  strip.num_groups = num_groups;
  hn::Vec<BitsTag> max_bits[kStripGroups / kLanes];
  for (auto& bits : max_bits) bits = hn::Zero(BitsTag());
  for (size_t i = 0; i < kQuantSumRows; ++i) {
    const size_t offset = i < num_rows ? i * w.stride_bytes : 0;
    strip.codes[i] = w.data + offset;
    HWY_ALIGN F16 halves[kStripGroups] = {};
    if (i < num_rows && num_groups == kStripGroups) {
      std::memcpy(halves, w.scales + offset, sizeof(halves));
    } else if (i < num_rows) {
      std::memcpy(halves, w.scales + offset, num_groups * sizeof(F16));
    }
    for (size_t v = 0; v < kStripGroups / kLanes; ++v) {
      auto scale =
          LoadF16(d, reinterpret_cast<const std::byte*>(halves + v * kLanes));
      if constexpr (kType == WeightType::kQ8) {
        scale = hn::Mul(scale, hn::Set(d, 1.0f / 16));
      }
      hn::Store(scale, d, strip.ratios[i] + v * kLanes);
      max_bits[v] = MaxMagnitude(max_bits[v], scale);
    }
  }
  for (size_t v = 0; v < kStripGroups / kLanes; ++v) {
    const Vector max = hn::BitCast(d, max_bits[v]);
    hn::Store(max, d, strip.max_scales + v * kLanes);
    // Zero, where all scales are: so are the factors' codes.
    const auto is_zero = hn::Eq(max, hn::Zero(d));
    const Vector inverse =
        hn::IfThenZeroElse(is_zero, hn::Div(hn::Set(d, 1), max));
    for (auto& ratios : strip.ratios) {
      float* at = ratios + v * kLanes;
      hn::Store(hn::Mul(hn::Load(d, at), inverse), d, at);
    }
  }
}

HWY_INLINE void ScaleFactors(const Strip& strip, const float* factors,
                             BlockFactors& out) {
  float padded[kQuantSumRows] = {};
  if (strip.num_rows < kQuantSumRows) {
    std::memcpy(padded, factors, strip.num_rows * sizeof(float));
    factors = padded;
  }
  const VectorTag d;
  auto max_bits = hn::Zero(BitsTag());
  for (size_t i = 0; i < kQuantSumRows; i += kLanes) {
    max_bits = MaxMagnitude(max_bits, hn::LoadU(d, factors + i));
  }
  const int32_t max = hn::GetLane(hn::MaxOfLanes(BitsTag(), max_bits));
  float amax;
  std::memcpy(&amax, &max, sizeof(amax));
  const bool is_small = amax < 0x1p-80f;
  const auto inverse = hn::Set(d, is_small ? 0.0f : 127 / amax);
  for (size_t i = 0; i < kQuantSumRows; i += kLanes) {
    hn::Store(hn::Mul(hn::LoadU(d, factors + i), inverse), d, out.ratios + i);
  }
  out.unit = max >= kInfinityBits ? std::numeric_limits<float>::quiet_NaN()
             : is_small           ? 0.0f
                                  : amax / 127;
}

// Lanes are groups. A product plus 1.5 * 2^23 has the nearest integer in its
// lowest bits, in two's complement. Where a unit is NaN any codes will do.
HWY_INLINE void QuantizeFactors(const Strip& strip, const BlockFactors& factors,
                                StripFactors& out) {
  const VectorTag d;
  const hn::RebindToUnsigned<VectorTag> du;
  const Vector shift = hn::Set(d, 0x1.8p23f);
  constexpr uint32_t kShiftBits = 0x4B400000;
  for (size_t g = 0; g < kStripGroups; g += kLanes) {
    auto sum = hn::Set(du, 0 - kShiftBits * uint32_t{kQuantSumRows});
    HWY_UNROLL(8)
    for (size_t q = 0; q < kRowQuads; ++q) {
      const auto code = [&](size_t r) HWY_ATTR {
        const size_t i = 4 * q + r;
        const auto bits = hn::BitCast(
            du, hn::MulAdd(hn::Set(d, factors.ratios[i]),
                           hn::Load(d, strip.ratios[i] + g), shift));
        sum = hn::Add(sum, bits);
        return bits;
      };
      const auto byte = hn::Set(du, 255);
      auto quad = hn::And(code(0), byte);
      quad = hn::Or(quad, hn::ShiftLeft<8>(hn::And(code(1), byte)));
      quad = hn::Or(quad, hn::ShiftLeft<16>(hn::And(code(2), byte)));
      quad = hn::Or(quad, hn::ShiftLeft<24>(code(3)));
      hn::Store(hn::BitCast(BitsTag(), quad), BitsTag(), out.quads[q] + g);
    }
    hn::Store(hn::BitCast(BitsTag(), sum), BitsTag(), out.sums + g);
    hn::Store(
        hn::Mul(hn::Set(d, factors.unit), hn::Load(d, strip.max_scales + g)), d,
        out.units + g);
  }
}

HWY_INLINE void QuantizeFactors(const Strip& strip, const float* factors,
                                StripFactors& out) {
  BlockFactors scaled;
  ScaleFactors(strip, factors, scaled);
  QuantizeFactors(strip, scaled, out);
}

#if FLASHELM_HAS_QUADS

// The sums of the group's codes times the factors of one token begin here, and
// go to y when all rows are in.
// The constructors are written out: those that a compiler makes by itself are
// not for this target, so that NEON's vectors could not be made in them.
struct GroupSums {
  HWY_INLINE GroupSums() {}
  QuadSum sums[kQuadVectors];
};

using FloatSumTag = hn::RebindToFloat<QuadSumTag>;
struct FloatSums {
  HWY_INLINE FloatSums() {}
  hn::Vec<FloatSumTag> sums[kQuadVectors];
};

HWY_INLINE void LoadSums(const float* from, FloatSums& sums) {
  HWY_UNROLL(8)
  for (size_t v = 0; v < kQuadVectors; ++v) {
    sums.sums[v] = hn::LoadU(FloatSumTag(), from + v * kQuadLanes);
  }
}

HWY_INLINE void StoreSums(const FloatSums& sums, float* to) {
  HWY_UNROLL(8)
  for (size_t v = 0; v < kQuadVectors; ++v) {
    hn::StoreU(sums.sums[v], FloatSumTag(), to + v * kQuadLanes);
  }
}

template <WeightType kType>
HWY_INLINE void Begin(const StripFactors& factors, size_t group,
                      GroupSums& sums) {
  // Unsigned: what comes of factors that are not finite may wrap around.
  constexpr auto kOffset = static_cast<uint32_t>(kCodeOffset<kType>);
  const auto codes = static_cast<uint32_t>(factors.sums[group]);
  HWY_UNROLL(8)
  for (QuadSum& sum : sums.sums) {
    sum = hn::Set(QuadSumTag(), static_cast<int32_t>(0 - kOffset * codes));
  }
}

HWY_INLINE void AddTo(const StripFactors& factors, size_t group,
                      const GroupSums& sums, FloatSums& y) {
  const FloatSumTag d;
  const auto unit = hn::Set(d, factors.units[group]);
  HWY_UNROLL(8)
  for (size_t v = 0; v < kQuadVectors; ++v) {
    y.sums[v] = hn::MulAdd(hn::ConvertTo(d, sums.sums[v]), unit, y.sums[v]);
  }
}

// Blocks whose sums join before they go to memory.
constexpr size_t kMaxBlocks = 8;
// Tokens whose sums, of integers and of floats, fit in the registers.
constexpr size_t kSumTokens = HWY_TARGET <= HWY_AVX3_DL ? 6 : 1;

// What a batch is worked on in.
struct BatchWorkspace {
  Strip strips[kMaxBlocks];
  // The codes as QuadVectors.
  HWY_ALIGN uint8_t quads[kStripGroups][kMaxBlocks][kRowQuads][4 * kQuantGroup];
  StripFactors factors[kSumTokens][kMaxBlocks];
};

template <WeightType kType>
HWY_INLINE void ArrangeQuads(size_t block, BatchWorkspace& work) {
  const QuadTag d;
  const Strip& strip = work.strips[block];
  for (size_t g = 0; g < strip.num_groups; ++g) {
    for (size_t q = 0; q < kRowQuads; ++q) {
      QuadVector codes[kQuadVectors];
      LoadGroupQuads<kType>(strip.codes + 4 * q, g, codes);
      for (size_t v = 0; v < kQuadVectors; ++v) {
        hn::Store(codes[v], d, work.quads[g][block][q] + v * kQuadBytes);
      }
    }
  }
}

// Adds a group of all blocks to kTokens tokens.
template <WeightType kType, bool kDotProduct, size_t kTokens>
HWY_INLINE void AddGroupToTokens(const BatchWorkspace& work, size_t group,
                                 size_t num_blocks, float* y, size_t y_stride) {
  FloatSums totals[kTokens];
  HWY_UNROLL(8)
  for (size_t t = 0; t < kTokens; ++t) LoadSums(y + t * y_stride, totals[t]);
  for (size_t block = 0; block < num_blocks; ++block) {
    GroupSums sums[kTokens];
    HWY_UNROLL(8)
    for (size_t t = 0; t < kTokens; ++t) {
      Begin<kType>(work.factors[t][block], group, sums[t]);
    }
    HWY_UNROLL(8)
    for (size_t q = 0; q < kRowQuads; ++q) {
      HWY_UNROLL(8)
      for (size_t v = 0; v < kQuadVectors; ++v) {
        const QuadVector codes =
            hn::Load(QuadTag(), work.quads[group][block][q] + v * kQuadBytes);
        HWY_UNROLL(8)
        for (size_t t = 0; t < kTokens; ++t) {
          sums[t].sums[v] = AddDots<kType, kDotProduct>(
              codes, work.factors[t][block].quads[q][group], sums[t].sums[v]);
        }
      }
    }
    HWY_UNROLL(8)
    for (size_t t = 0; t < kTokens; ++t) {
      AddTo(work.factors[t][block], group, sums[t], totals[t]);
    }
  }
  HWY_UNROLL(8)
  for (size_t t = 0; t < kTokens; ++t) StoreSums(totals[t], y + t * y_stride);
}

template <WeightType kType, bool kDotProduct, size_t kTokens>
HWY_NOINLINE void AddStripsToTokens(BatchWorkspace& work, size_t num_blocks,
                                    const float* factors, size_t factors_stride,
                                    float* y, size_t y_stride) {
  for (size_t t = 0; t < kTokens; ++t) {
    for (size_t block = 0; block < num_blocks; ++block) {
      QuantizeFactors(work.strips[block],
                      factors + t * factors_stride + block * kQuantSumRows,
                      work.factors[t][block]);
    }
  }
  for (size_t g = 0; g < work.strips[0].num_groups; ++g) {
    AddGroupToTokens<kType, kDotProduct, kTokens>(
        work, g, num_blocks, y + g * kQuantGroup, y_stride);
  }
}

// At most kMaxBlocks blocks of rows, one strip of columns.
template <WeightType kType, bool kDotProduct>
HWY_INLINE void AddStripsToBatch(const WeightView& w, size_t num_rows,
                                 size_t num_groups, const float* factors,
                                 size_t factors_stride, size_t num_tokens,
                                 BatchWorkspace& work, float* y,
                                 size_t y_stride) {
  const size_t num_blocks = (num_rows + kQuantSumRows - 1) / kQuantSumRows;
  for (size_t block = 0; block < num_blocks; ++block) {
    const size_t row = block * kQuantSumRows;
    LoadStrip<kType>(Submatrix(w, row, 0),
                     std::min(kQuantSumRows, num_rows - row), num_groups,
                     work.strips[block]);
    ArrangeQuads<kType>(block, work);
  }
  size_t t = 0;
  for (; num_tokens - t >= kSumTokens; t += kSumTokens) {
    AddStripsToTokens<kType, kDotProduct, kSumTokens>(
        work, num_blocks, factors + t * factors_stride, factors_stride,
        y + t * y_stride, y_stride);
  }
  for (; t < num_tokens; ++t) {
    AddStripsToTokens<kType, kDotProduct, 1>(
        work, num_blocks, factors + t * factors_stride, 0, y + t * y_stride, 0);
  }
}

template <WeightType kType, bool kDotProduct>
HWY_NOINLINE void AddRowsToBatch(const WeightView& w, size_t num_rows,
                                 size_t num_cols, const float* factors,
                                 size_t factors_stride, size_t num_tokens,
                                 BatchWorkspace& work, float* y,
                                 size_t y_stride) {
  constexpr size_t kRows = kMaxBlocks * kQuantSumRows;
  constexpr size_t kCols = kStripGroups * kQuantGroup;
  for (size_t row = 0; row < num_rows; row += kRows) {
    for (size_t col = 0; col < num_cols; col += kCols) {
      AddStripsToBatch<kType, kDotProduct>(
          Submatrix(w, row, col), std::min(kRows, num_rows - row),
          std::min(kCols, num_cols - col) / kQuantGroup, factors + row,
          factors_stride, num_tokens, work, y + col, y_stride);
    }
  }
}

template <WeightType kType, bool kDotProduct>
HWY_INLINE void AddStripToOne(const Strip& strip, const float* factors,
                              float* y, LineFetcher& fetcher) {
  StripFactors quantized;
  QuantizeFactors(strip, factors, quantized);
  for (size_t g = 0; g < strip.num_groups; ++g) {
    FloatSums total;
    LoadSums(y + g * kQuantGroup, total);
    GroupSums sums;
    Begin<kType>(quantized, g, sums);
    HWY_UNROLL(8)
    for (size_t q = 0; q < kRowQuads; ++q) {
      fetcher.Advance(4 * RowBytes(kType, kQuantGroup));
      QuadVector codes[kQuadVectors];
      LoadGroupQuads<kType>(strip.codes + 4 * q, g, codes);
      HWY_UNROLL(8)
      for (size_t v = 0; v < kQuadVectors; ++v) {
        sums.sums[v] = AddDots<kType, kDotProduct>(
            codes[v], quantized.quads[q][g], sums.sums[v]);
      }
    }
    AddTo(quantized, g, sums, total);
    StoreSums(total, y + g * kQuantGroup);
  }
}

#else  // One column after the other.

template <WeightType kType, bool kDotProduct>
HWY_INLINE void AddStripToOne(const Strip& strip, const float* factors,
                              float* y, LineFetcher& /*fetcher*/) {
  const auto code = [&](size_t i, size_t g, size_t k) -> int32_t {
    if constexpr (kType == WeightType::kQ8) {
      return static_cast<int8_t>(strip.codes[i][g * kQuantGroup + k]);
    }
    const auto both = std::to_integer<int32_t>(strip.codes[i][g * 16 + k % 16]);
    return (k < 16 ? both & 15 : both >> 4) - 8;
  };
  const LaneTag d;
  StripFactors quantized;
  QuantizeFactors(strip, factors, quantized);
  for (size_t g = 0; g < strip.num_groups; ++g) {
    for (size_t k = 0; k < kQuantGroup; ++k) {
      int32_t sum = 0;
      for (size_t i = 0; i < kQuantSumRows; ++i) {
        const auto quad = static_cast<uint32_t>(quantized.quads[i / 4][g]);
        sum += code(i, g, k) * static_cast<int8_t>(quad >> (i % 4 * 8));
      }
      float* at = y + g * kQuantGroup + k;
      *at = hn::GetLane(hn::MulAdd(hn::Set(d, static_cast<float>(sum)),
                                   hn::Set(d, quantized.units[g]),
                                   hn::Set(d, *at)));
    }
  }
}

#endif  // FLASHELM_HAS_QUADS

// The codes of the strip that follows the one at `row` and `col`.
template <WeightType kType>
HWY_INLINE void FetchNextStrip(const WeightView& w, size_t num_rows,
                               size_t num_cols, size_t row, size_t col) {
  constexpr size_t kCols = kStripGroups * kQuantGroup;
  col += kCols;
  if (col >= num_cols) {
    col = 0;
    row += kQuantSumRows;
  }
  if (row >= num_rows) return;
  FetchRows(Submatrix(w, row, col).data, w.stride_bytes,
            std::min(kQuantSumRows, num_rows - row),
            ElementsBytes(kType, std::min(kCols, num_cols - col)));
}

// Blocks first, then strips: DRAM then sees rows that lie together.
template <WeightType kType, bool kDotProduct>
HWY_NOINLINE void AddRowsToOne(const WeightView& w, size_t num_rows,
                               size_t num_cols, const float* factors, float* y,
                               std::span<const std::byte> next) {
  constexpr size_t kCols = kStripGroups * kQuantGroup;
  Strip strip;
  LineFetcher fetcher(next, num_rows * RowBytes(kType, num_cols),
                      FetchesNear());
  for (size_t row = 0; row < num_rows; row += kQuantSumRows) {
    for (size_t col = 0; col < num_cols; col += kCols) {
      if (next.empty()) {
        FetchNextStrip<kType>(w, num_rows, num_cols, row, col);
      }
      LoadStrip<kType>(Submatrix(w, row, col),
                       std::min(kQuantSumRows, num_rows - row),
                       std::min(kCols, num_cols - col) / kQuantGroup, strip);
      AddStripToOne<kType, kDotProduct>(strip, factors + row, y + col, fetcher);
    }
  }
}

template <WeightType kType, bool kDotProduct>
HWY_INLINE void AddQuantRowsOf(const WeightView& w, size_t num_rows,
                               size_t num_cols, const float* factors,
                               size_t factors_stride, size_t num_tokens,
                               [[maybe_unused]] std::byte* workspace, float* y,
                               size_t y_stride,
                               std::span<const std::byte> next) {
#if FLASHELM_HAS_QUADS
  if (num_tokens > 1) {
    AddRowsToBatch<kType, kDotProduct>(
        w, num_rows, num_cols, factors, factors_stride, num_tokens,
        *reinterpret_cast<BatchWorkspace*>(workspace), y, y_stride);
    return;
  }
#endif
  for (size_t t = 0; t < num_tokens; ++t) {
    AddRowsToOne<kType, kDotProduct>(w, num_rows, num_cols,
                                     factors + t * factors_stride,
                                     y + t * y_stride, next);
  }
}

size_t QuantSumWorkspaceBytes() {
#if FLASHELM_HAS_QUADS
  return sizeof(BatchWorkspace);
#else
  return 0;
#endif
}

void AddQuantRows(const WeightView& w, size_t num_rows, size_t num_cols,
                  const float* factors, size_t factors_stride,
                  size_t num_tokens, std::byte* workspace, float* y,
                  size_t y_stride, std::span<const std::byte> next) {
  WithDotProduct([&](auto dot_product) HWY_ATTR {
    constexpr bool kDotProduct = decltype(dot_product)::value;
    if (w.type == WeightType::kQ4) {
      AddQuantRowsOf<WeightType::kQ4, kDotProduct>(
          w, num_rows, num_cols, factors, factors_stride, num_tokens, workspace,
          y, y_stride, next);
    } else {
      AddQuantRowsOf<WeightType::kQ8, kDotProduct>(
          w, num_rows, num_cols, factors, factors_stride, num_tokens, workspace,
          y, y_stride, next);
    }
  });
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flashelm {

HWY_EXPORT(QuantSumWorkspaceBytes);
HWY_EXPORT(AddQuantRows);

size_t QuantSumWorkspaceBytes() {
  return HWY_DYNAMIC_DISPATCH(QuantSumWorkspaceBytes)();
}

void AddQuantRows(const WeightView& w, size_t num_rows, size_t num_cols,
                  const float* factors, size_t factors_stride,
                  size_t num_tokens, std::byte* workspace, float* y,
                  size_t y_stride, std::span<const std::byte> next) {
  HWY_DYNAMIC_DISPATCH(AddQuantRows)
  (w, num_rows, num_cols, factors, factors_stride, num_tokens, workspace, y,
   y_stride, next);
}

}  // namespace flashelm
#endif  // HWY_ONCE
