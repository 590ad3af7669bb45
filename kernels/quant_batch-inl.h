// Products of a panel of quantized rows with a batch of quantized tokens. The
// order of quant_matmul.h keeps the groups of a partial sum apart from those of
// the others, so they are taken one partial sum after the other: all that is
// live of two vectors of rows and a few tokens then fits in registers. Included
// after hwy/highway.h, once per target.
#if defined(FLASHELM_KERNELS_QUANT_BATCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FLASHELM_KERNELS_QUANT_BATCH_INL_H_
#undef FLASHELM_KERNELS_QUANT_BATCH_INL_H_
#else
#define FLASHELM_KERNELS_QUANT_BATCH_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/dot_product-inl.h"
#include "kernels/quant_panel-inl.h"
#include "kernels/quant_tokens.h"
#include "kernels/weight_view.h"

#if FLASHELM_HAS_QUANT_BATCH
HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {

// Whether this target adds four products to each lane in one step.
#undef FLASHELM_ADDS_QUADS
#if HWY_TARGET <= HWY_AVX3_DL || FLASHELM_IS_NEON64
#define FLASHELM_ADDS_QUADS 1
#else
#define FLASHELM_ADDS_QUADS 0
#endif

// Tokens that are multiplied with a panel at once. Of AVX3_DL and NEON, their
// sums, integers and partial, and the operands take 28 of the 32 registers, two
// more where NEON lacks the dot product. Of AVX2, integers and operands take 12
// of 16; the partial sums may be in memory.
constexpr size_t kTileTokens = FLASHELM_ADDS_QUADS ? 6 : 4;

constexpr size_t NumTiles(size_t num_tokens) {
  return (num_tokens + kTileTokens - 1) / kTileTokens;
}

// Tokens of a tile at the groups of one partial sum.
struct TilePart {
  HWY_INLINE RowByteVector Quad(size_t t, size_t q) const {
    int32_t quad;
    std::memcpy(&quad,
                blocks[t * num_blocks].codes + codes_at +
                    q / 4 * TokenBlock::kHalfStride + q % 4 * 4,
                sizeof(quad));
    return hn::BitCast(RowByteTag(), hn::Set(RowTag(), quad));
  }
  HWY_INLINE RowFloatVector Scale(size_t t) const {
    return hn::Set(RowFloatTag(), blocks[t * num_blocks].scales[scale_at]);
  }
  // What the offset of the codes adds to a sum.
  template <WeightType kType>
  HWY_INLINE RowVector Offset(size_t t) const {
    if constexpr (kType == WeightType::kQ8 && kHasSignedCodes) {
      return hn::Zero(RowTag());
    }
    const RowVector by_8 =
        hn::Set(RowTag(), blocks[t * num_blocks].offsets[scale_at]);
    return kType == WeightType::kQ8 ? hn::ShiftLeft<4>(by_8) : by_8;
  }

  const TokenBlock* blocks;  // Of the first token; another every num_blocks.
  size_t num_blocks;
  size_t codes_at;
  size_t scale_at;
};

template <size_t kTokens>
using TileDots = RowVector[kTokens][kPanelVectors];

#if FLASHELM_ADDS_QUADS

// sum + the products of four codes and the activations in each lane. x86's
// instruction takes unsigned and signed bytes; Highway does not have it, and
// compiles this target without the flag that its intrinsic would need.
template <bool kDotProduct>
HWY_INLINE void AddProducts(RowByteVector codes, RowByteVector activations,
                            RowVector& sum) {
#if HWY_ARCH_X86
  asm("vpdpbusd %2, %1, %0"
      : "+v"(sum.raw)
      : "v"(codes.raw), "v"(activations.raw));
#else
  sum.raw =
      AddQuadProducts<kDotProduct>(sum.raw, vreinterpretq_s8_u8(codes.raw),
                                   vreinterpretq_s8_u8(activations.raw));
#endif
}

// The sums of the products of a group.
template <WeightType kType, bool kDotProduct, size_t kTokens>
HWY_INLINE void GroupDots(const PanelGroup& group, const TilePart& tile,
                          TileDots<kTokens>& dots) {
  HWY_UNROLL(6)
  for (size_t t = 0; t < kTokens; ++t) {
    const RowVector offset = tile.Offset<kType>(t);
    HWY_UNROLL(2)
    for (size_t v = 0; v < kPanelVectors; ++v) dots[t][v] = offset;
  }
  HWY_UNROLL(8)
  for (size_t q = 0; q < kQuads; ++q) {
    RowByteVector codes[kPanelVectors];
    HWY_UNROLL(2)
    for (size_t v = 0; v < kPanelVectors; ++v) {
      codes[v] = hn::Load(RowByteTag(), group.codes[q][v * kVectorRows]);
    }
    HWY_UNROLL(6)
    for (size_t t = 0; t < kTokens; ++t) {
      const RowByteVector activations = tile.Quad(t, q);
      HWY_UNROLL(2)
      for (size_t v = 0; v < kPanelVectors; ++v) {
        AddProducts<kDotProduct>(codes[v], activations, dots[t][v]);
      }
    }
  }
}

#else

using PairTag = hn::Repartition<int16_t, RowTag>;
using PairVector = hn::Vec<PairTag>;

// Sums of products of two neighbours, unsigned and signed bytes.
HWY_INLINE PairVector PairProducts(RowByteVector codes,
                                   RowByteVector activations) {
#if HWY_TARGET <= HWY_AVX3
  return PairVector{_mm512_maddubs_epi16(codes.raw, activations.raw)};
#else
  return PairVector{_mm256_maddubs_epi16(codes.raw, activations.raw)};
#endif
}

HWY_INLINE RowVector SumsOfPairs(PairVector pairs) {
#if HWY_TARGET <= HWY_AVX3
  return RowVector{_mm512_madd_epi16(pairs.raw, _mm512_set1_epi16(1))};
#else
  return RowVector{_mm256_madd_epi16(pairs.raw, _mm256_set1_epi16(1))};
#endif
}

// The sums of the products of a group with one half of its codes, from bit
// kShift on, which is all that codes of q4 have: 16 products of 15 and 127 in a
// lane of 16 bits fit, those with codes of q8 would not.
template <WeightType kType, int kShift, size_t kTokens>
HWY_INLINE void HalfDots(const PanelGroup& group, const TilePart& tile,
                         TileDots<kTokens>& dots) {
  const PairTag d16;
  PairVector sums[kTokens][kPanelVectors];
  HWY_UNROLL(8)
  for (size_t q = 0; q < kQuads; ++q) {
    RowByteVector codes[kPanelVectors];
    HWY_UNROLL(2)
    for (size_t v = 0; v < kPanelVectors; ++v) {
      const RowByteTag d8;
      codes[v] = hn::Load(d8, group.codes[q][v * kVectorRows]);
      if constexpr (kType == WeightType::kQ8) {
        codes[v] = hn::BitCast(
            d8, hn::And(hn::ShiftRight<kShift>(hn::BitCast(d16, codes[v])),
                        hn::Set(d16, 0x0F0F)));
      }
    }
    HWY_UNROLL(6)
    for (size_t t = 0; t < kTokens; ++t) {
      const RowByteVector activations = tile.Quad(t, q);
      HWY_UNROLL(2)
      for (size_t v = 0; v < kPanelVectors; ++v) {
        const PairVector products = PairProducts(codes[v], activations);
        sums[t][v] = q == 0 ? products : hn::Add(sums[t][v], products);
        // Else GCC adds in another order, for which registers do not suffice.
        asm("" : "+v"(sums[t][v].raw));
      }
    }
  }
  HWY_UNROLL(6)
  for (size_t t = 0; t < kTokens; ++t) {
    HWY_UNROLL(2)
    for (size_t v = 0; v < kPanelVectors; ++v) {
      dots[t][v] = SumsOfPairs(sums[t][v]);
    }
  }
}

// The sums of the products of a group.
template <WeightType kType, bool kDotProduct, size_t kTokens>
HWY_INLINE void GroupDots(const PanelGroup& group, const TilePart& tile,
                          TileDots<kTokens>& dots) {
  TileDots<kTokens> high;
  if constexpr (kType == WeightType::kQ8) {
    HalfDots<kType, 4, kTokens>(group, tile, high);
    // Else GCC keeps the broadcast activations for the other halves, on the
    // stack.
    asm("" ::: "memory");
  }
  HalfDots<kType, 0, kTokens>(group, tile, dots);
  HWY_UNROLL(6)
  for (size_t t = 0; t < kTokens; ++t) {
    const RowVector offset = tile.Offset<kType>(t);
    HWY_UNROLL(2)
    for (size_t v = 0; v < kPanelVectors; ++v) {
      dots[t][v] = hn::Add(dots[t][v], offset);
      if constexpr (kType == WeightType::kQ8) {
        dots[t][v] = hn::Add(dots[t][v], hn::ShiftLeft<4>(high[t][v]));
      }
    }
  }
}

#endif

// One partial sum of the rows of a panel with each of kTokens tokens.
//   group     the first of the partial sum's, of `count`
//   partials  [kTokens][kPanelVectors]
template <WeightType kType, bool kDotProduct, size_t kTokens>
HWY_INLINE void PartialSums(const PanelGroup* group, size_t count,
                            TilePart tile, PanelPrefetcher& prefetcher,
                            RowFloatVector* partials) {
  const RowFloatTag d;
  RowFloatVector sums[kTokens][kPanelVectors];
  HWY_UNROLL(6)
  for (size_t t = 0; t < kTokens; ++t) {
    HWY_UNROLL(2)
    for (size_t v = 0; v < kPanelVectors; ++v) sums[t][v] = hn::Zero(d);
  }
  const PanelGroup* end = group + count;
  for (; group != end; ++group, ++tile.blocks) {
    prefetcher.Fetch();
    TileDots<kTokens> dots;
    GroupDots<kType, kDotProduct, kTokens>(*group, tile, dots);
    HWY_UNROLL(6)
    for (size_t t = 0; t < kTokens; ++t) {
      HWY_UNROLL(2)
      for (size_t v = 0; v < kPanelVectors; ++v) {
        const RowFloatVector scale = hn::Mul(
            hn::Load(d, group->scales + v * kVectorRows), tile.Scale(t));
        sums[t][v] =
            hn::MulAdd(hn::ConvertTo(d, dots[t][v]), scale, sums[t][v]);
      }
    }
  }
  HWY_UNROLL(6)
  for (size_t t = 0; t < kTokens; ++t) {
    HWY_UNROLL(2)
    for (size_t v = 0; v < kPanelVectors; ++v) {
      partials[t * kPanelVectors + v] = sums[t][v];
    }
  }
}

// The products of a panel with kTokens tokens. The rows of vector v of the
// panel have theirs from out[rows[v]] on.
template <WeightType kType, bool kDotProduct, size_t kTokens>
HWY_NOINLINE void PanelDots(const PanelGroup* panel, size_t num_groups,
                            const size_t* rows, const TokenBlock* tokens,
                            PanelPrefetcher& prefetcher, float* out,
                            size_t out_stride) {
  RowFloatVector p[kBlockGroups][kTokens * kPanelVectors];
  for (size_t j = 0; j < kBlockGroups; ++j) {
    const TilePart tile = {tokens, NumBlocks(num_groups),
                           TokenBlock::CodesIndex(j),
                           TokenBlock::ScaleIndex(j)};
    const size_t begin = PanelBegin(num_groups, j);
    const size_t end = PanelBegin(num_groups, j + 1);
    PartialSums<kType, kDotProduct, kTokens>(panel + begin, end - begin, tile,
                                             prefetcher, p[j]);
  }
  for (size_t t = 0; t < kTokens; ++t) {
    for (size_t v = 0; v < kPanelVectors; ++v) {
      const size_t i = t * kPanelVectors + v;
      const auto sum = [&](size_t a, size_t b)
                           HWY_ATTR { return hn::Add(p[a][i], p[b][i]); };
      const RowFloatVector total =
          hn::Add(hn::Add(sum(0, 4), sum(2, 6)), hn::Add(sum(1, 5), sum(3, 7)));
      hn::StoreU(total, RowFloatTag(), out + t * out_stride + rows[v]);
    }
  }
}

// A panel with all tokens, in tiles of about equal size.
template <WeightType kType, bool kDotProduct>
HWY_INLINE void PanelBatch(const PanelGroup* panel, size_t num_groups,
                           const size_t* rows, const TokenBlock* tokens,
                           size_t num_tokens, PanelPrefetcher& prefetcher,
                           float* out, size_t out_stride) {
  const auto dots = [&](auto dots_of, size_t t) {
    dots_of(panel, num_groups, rows, tokens + t * NumBlocks(num_groups),
            prefetcher, out + t * out_stride, out_stride);
  };
  size_t num_left = NumTiles(num_tokens);
  for (size_t t = 0; t < num_tokens; --num_left) {
    const size_t count = (num_tokens - t + num_left - 1) / num_left;
    switch (count) {
#if FLASHELM_ADDS_QUADS
      case 6:
        dots(PanelDots<kType, kDotProduct, 6>, t);
        break;
      case 5:
        dots(PanelDots<kType, kDotProduct, 5>, t);
        break;
#else
      case 2:
        dots(PanelDots<kType, kDotProduct, 2>, t);
        break;
#endif
      case 4:
        dots(PanelDots<kType, kDotProduct, 4>, t);
        break;
      default:
        dots(PanelDots<kType, kDotProduct, 3>, t);
    }
    t += count;
  }
}

// From so many on, packing the rows pays (measured on an EPYC; not on ARM).
#if FLASHELM_ADDS_QUADS
template <WeightType kType>
constexpr size_t kMinBatchTokens = kType == WeightType::kQ4 ? 4 : 3;
#else
template <WeightType kType>
constexpr size_t kMinBatchTokens = kType == WeightType::kQ4 ? 6 : 4;
#endif
constexpr size_t kMinBatchRows = kVectorRows;

// As QuantMatMul(), for at least so many tokens and rows.
template <WeightType kType, bool kDotProduct>
HWY_NOINLINE void QuantBatch(const WeightView& w, size_t num_rows,
                             size_t num_cols, const TokenBlock* tokens,
                             size_t num_tokens, std::byte* workspace,
                             float* out, size_t out_stride) {
  auto* panel = reinterpret_cast<PanelGroup*>(workspace);
  const size_t num_groups = num_cols / kQuantGroup;
  const size_t num_calls =
      std::max<size_t>(NumTiles(num_tokens) * num_groups, 1);
  for (size_t r = 0; r < num_rows; r += kPanelRows) {
    const size_t next = std::min(r + kPanelRows, num_rows);
    PanelPrefetcher prefetcher(w, next, std::min(kPanelRows, num_rows - next),
                               num_cols, num_calls);
    // What lacks rows starts earlier, and computes some of them again.
    size_t rows[kPanelVectors];
    for (size_t v = 0; v < kPanelVectors; ++v) {
      rows[v] = std::min(r + v * kVectorRows, num_rows - kVectorRows);
      PackRows<kType>(Submatrix(w, rows[v], 0), num_groups, v * kVectorRows,
                      panel);
    }
    PanelBatch<kType, kDotProduct>(panel, num_groups, rows, tokens, num_tokens,
                                   prefetcher, out, out_stride);
  }
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // FLASHELM_HAS_QUANT_BATCH

#endif  // FLASHELM_KERNELS_QUANT_BATCH_INL_H_
