// Rows of quantized weights side by side, a row in each lane, for products with
// a batch of tokens; on x86 with AVX2 or more, and on 64-bit ARM. Included
// after hwy/highway.h, once per target.
#if defined(FLASHELM_KERNELS_QUANT_PANEL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FLASHELM_KERNELS_QUANT_PANEL_INL_H_
#undef FLASHELM_KERNELS_QUANT_PANEL_INL_H_
#else
#define FLASHELM_KERNELS_QUANT_PANEL_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/dot_product-inl.h"
#include "kernels/prefetch.h"
#include "kernels/quant_tokens.h"
#include "kernels/weight_view.h"

#undef FLASHELM_HAS_QUANT_BATCH
#if (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2) || FLASHELM_IS_NEON64
#define FLASHELM_HAS_QUANT_BATCH 1
#else
#define FLASHELM_HAS_QUANT_BATCH 0
#endif

#if FLASHELM_HAS_QUANT_BATCH
HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A row of weights in each lane of 32 bits.
using RowTag = hn::CappedTag<int32_t, 16>;
using RowVector = hn::Vec<RowTag>;
using RowFloatTag = hn::Rebind<float, RowTag>;
using RowFloatVector = hn::Vec<RowFloatTag>;
using RowByteTag = hn::Repartition<uint8_t, RowTag>;
using RowByteVector = hn::Vec<RowByteTag>;

constexpr size_t kVectorRows = hn::MaxLanes(RowTag());
constexpr size_t kPanelVectors = 2;
constexpr size_t kPanelRows = kPanelVectors * kVectorRows;
constexpr size_t kQuads = kQuantGroup / 4;

// Whether instructions take codes with a sign, as ARM's do. x86's take unsigned
// ones.
constexpr bool kHasSignedCodes = FLASHELM_IS_NEON64;

// A group of the rows of a panel. The codes are n of q4; q of q8, or q + 128
// where they have no sign.
struct alignas(64) PanelGroup {
  uint8_t codes[kQuads][kPanelRows][4];
  float scales[kPanelRows];
};
static_assert(sizeof(PanelGroup) <= kMaxPanelGroupBytes);

// Where the groups of partial sum `j` begin in a panel: those of a partial sum
// follow each other there.
HWY_INLINE size_t PanelBegin(size_t num_groups, size_t j) {
  return num_groups / kBlockGroups * j + std::min(num_groups % kBlockGroups, j);
}

// 16 bytes of every fourth row, `stride_bytes` apart, one row in each block of
// the vector.
HWY_INLINE RowVector LoadFourthRows(const std::byte* from,
                                    size_t stride_bytes) {
#if HWY_ARCH_X86
  const auto row = [&](size_t block) HWY_ATTR {
    return _mm_loadu_si128(
        reinterpret_cast<const __m128i*>(from + 4 * block * stride_bytes));
  };
#endif
#if HWY_TARGET <= HWY_AVX3
  __m512i rows = _mm512_castsi128_si512(row(0));
  rows = _mm512_mask_broadcast_i32x4(rows, 0x00F0, row(1));
  rows = _mm512_mask_broadcast_i32x4(rows, 0x0F00, row(2));
  return RowVector{_mm512_mask_broadcast_i32x4(rows, 0xF000, row(3))};
#elif HWY_ARCH_X86
  return RowVector{
      _mm256_inserti128_si256(_mm256_castsi128_si256(row(0)), row(1), 1)};
#else
  static_assert(kVectorRows == 4);
  static_cast<void>(stride_bytes);
  return hn::BitCast(
      RowTag(),
      hn::LoadU(RowByteTag(), reinterpret_cast<const uint8_t*>(from)));
#endif
}

// Turns 16 bytes of each row of a vector, `stride_bytes` apart, into 4 vectors
// that have four bytes of every row.
HWY_INLINE void LoadTransposed(const std::byte* from, size_t stride_bytes,
                               RowVector (&quads)[4]) {
  const RowTag d;
  const hn::Repartition<int64_t, RowTag> d64;
  const RowVector rows0 = LoadFourthRows(from, stride_bytes);
  const RowVector rows1 = LoadFourthRows(from + stride_bytes, stride_bytes);
  const RowVector rows2 = LoadFourthRows(from + 2 * stride_bytes, stride_bytes);
  const RowVector rows3 = LoadFourthRows(from + 3 * stride_bytes, stride_bytes);
  const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, rows0, rows1));
  const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d, rows2, rows3));
  const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(d, rows0, rows1));
  const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(d, rows2, rows3));
  quads[0] = hn::BitCast(d, hn::InterleaveLower(d64, low01, low23));
  quads[1] = hn::BitCast(d, hn::InterleaveUpper(d64, low01, low23));
  quads[2] = hn::BitCast(d, hn::InterleaveLower(d64, high01, high23));
  quads[3] = hn::BitCast(d, hn::InterleaveUpper(d64, high01, high23));
}

// The codes of a group of a vector of rows, as rows `row` and up of a panel.
template <WeightType kType>
HWY_INLINE void PackCodes(const std::byte* codes, size_t stride_bytes,
                          size_t row, PanelGroup& out) {
  const RowTag d;
  RowVector first[4];  // Elements 0 to 15.
  RowVector second[4];
  LoadTransposed(codes, stride_bytes, first);
  if constexpr (kType == WeightType::kQ4) {
    const RowVector low_halves = hn::Set(d, 0x0F0F0F0F);
    HWY_UNROLL(4)
    for (size_t q = 0; q < 4; ++q) {
      second[q] = hn::And(hn::ShiftRight<4>(first[q]), low_halves);
      first[q] = hn::And(first[q], low_halves);
    }
  } else {
    LoadTransposed(codes + 16, stride_bytes, second);
    if constexpr (!kHasSignedCodes) {
      const RowVector sign_bits = hn::Set(d, static_cast<int32_t>(0x80808080u));
      HWY_UNROLL(4)
      for (size_t q = 0; q < 4; ++q) {
        first[q] = hn::Xor(first[q], sign_bits);
        second[q] = hn::Xor(second[q], sign_bits);
      }
    }
  }
  const RowByteTag d8;
  HWY_UNROLL(4)
  for (size_t q = 0; q < 4; ++q) {
    hn::Store(hn::BitCast(d8, first[q]), d8, out.codes[q][row]);
    hn::Store(hn::BitCast(d8, second[q]), d8, out.codes[4 + q][row]);
  }
}

// The scales of eight groups of a vector of rows: those of group j to out[j].
template <WeightType kType>
HWY_INLINE void PackScales(const std::byte* scales, size_t stride_bytes,
                           RowFloatVector (&out)[kBlockGroups]) {
  const RowFloatTag d;
  const hn::RebindToUnsigned<RowTag> d32;
  const hn::Rebind<uint16_t, RowTag> d16;
  const hn::Rebind<hwy::float16_t, RowTag> df16;
  RowVector pairs[4];
  LoadTransposed(scales, stride_bytes, pairs);
  HWY_UNROLL(8)
  for (size_t j = 0; j < kBlockGroups; ++j) {
    const RowVector pair = pairs[j / 2];
    const RowVector bits =
        j % 2 == 0
            ? hn::And(pair, hn::Set(RowTag(), 0xFFFF))
            : hn::BitCast(RowTag(), hn::ShiftRight<16>(hn::BitCast(d32, pair)));
    out[j] = hn::PromoteTo(d, hn::BitCast(df16, hn::DemoteTo(d16, bits)));
    if constexpr (kType == WeightType::kQ8) {
      out[j] = hn::Mul(out[j], hn::Set(d, 1.0f / 16));
    }
  }
}

// As PackScales() of `count` groups, from copies: nothing past the end of a row
// may be read.
template <WeightType kType>
HWY_INLINE void PackRestOfScales(const std::byte* scales, size_t stride_bytes,
                                 size_t count,
                                 RowFloatVector (&out)[kBlockGroups]) {
  constexpr size_t kScaleBytes = ScalesBytes(kType, kQuantGroup);
  std::byte rest[kVectorRows][kBlockGroups * kScaleBytes] = {};
  for (size_t r = 0; r < kVectorRows; ++r) {
    std::memcpy(rest[r], scales + r * stride_bytes, count * kScaleBytes);
  }
  PackScales<kType>(rest[0], sizeof(rest[0]), out);
}

// Packs a vector of rows as rows `row` and up of a panel.
template <WeightType kType>
HWY_NOINLINE void PackRows(const WeightView& w, size_t num_groups, size_t row,
                           PanelGroup* panel) {
  constexpr size_t kGroupBytes = ElementsBytes(kType, kQuantGroup);
  constexpr size_t kBlockBytes = kGroupBytes * kBlockGroups;
  constexpr size_t kScaleBytes = ScalesBytes(kType, kQuantGroup);
  const size_t stride_bytes = w.stride_bytes;
  for (size_t g = 0; g < num_groups; g += kBlockGroups) {
    const std::byte* codes = w.data + g * kGroupBytes;
    const std::byte* scales = w.scales + g * kScaleBytes;
    for (size_t r = 0; r < kVectorRows; ++r) {
      HWY_UNROLL(4)
      for (size_t i = 0; i < kBlockBytes; i += 64) {
        hwy::Prefetch(codes + kBlockBytes + r * stride_bytes + i);
      }
    }
    RowFloatVector block_scales[kBlockGroups];
    const size_t count = std::min(kBlockGroups, num_groups - g);
    if (count == kBlockGroups) {
      PackScales<kType>(scales, stride_bytes, block_scales);
    } else {
      PackRestOfScales<kType>(scales, stride_bytes, count, block_scales);
    }
    for (size_t j = 0; j < count; ++j) {
      PanelGroup& to = panel[PanelBegin(num_groups, j) + g / kBlockGroups];
      PackCodes<kType>(codes + j * kGroupBytes, stride_bytes, row, to);
      hn::Store(block_scales[j], RowFloatTag(), to.scales + row);
    }
  }
}

// Asks for the rows of the next panel, a part with every call, while this one
// is computed with.
class PanelPrefetcher {
 public:
  // `num_rows` rows from `first` on, in `num_calls` calls.
  PanelPrefetcher(const WeightView& w, size_t first, size_t num_rows,
                  size_t num_cols, size_t num_calls)
      : row_(w.data + first * w.stride_bytes),
        stride_bytes_(w.stride_bytes),
        row_bytes_(RowBytes(w.type, num_cols)),
        num_rows_(num_rows),
        num_lines_((num_rows * (row_bytes_ / kCacheLine + 1) + num_calls - 1) /
                   num_calls) {}

  HWY_INLINE void Fetch() {
    for (size_t i = 0; i < num_lines_ && num_rows_ > 0; ++i) {
      FetchLine(row_ + at_);
      at_ += kCacheLine;
      if (at_ < row_bytes_) continue;
      at_ = 0;
      row_ += stride_bytes_;
      --num_rows_;
    }
  }

 private:
  const std::byte* row_;
  size_t stride_bytes_;
  size_t row_bytes_;
  size_t num_rows_;
  size_t num_lines_;
  size_t at_ = 0;
};

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // FLASHELM_HAS_QUANT_BATCH

#endif  // FLASHELM_KERNELS_QUANT_PANEL_INL_H_
