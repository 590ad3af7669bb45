#include "kernels/quant_matmul.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/quant_matmul.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/dot_product-inl.h"
#include "kernels/quant_batch-inl.h"
#include "kernels/quant_dot-inl.h"
#include "kernels/quant_tokens.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {

struct QuantizedGroup {
  HWY_ALIGN int8_t codes[kQuantGroup];
  float scale;
  int32_t sum;
};

HWY_INLINE void QuantizeGroup(const float* x, QuantizedGroup& group) {
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<int8_t, decltype(d)> d8;
  constexpr size_t kNumLanes = hn::MaxLanes(d);

  // The magnitudes of floats are in the order of their bits, NaN on top.
  auto max_bits = hn::Zero(di);
  for (size_t k = 0; k < kQuantGroup; k += kNumLanes) {
    max_bits = hn::Max(max_bits, hn::BitCast(di, hn::Abs(hn::LoadU(d, x + k))));
  }
  const int32_t amax_bits = hn::GetLane(hn::MaxOfLanes(di, max_bits));
  float amax;
  std::memcpy(&amax, &amax_bits, sizeof(amax));

  constexpr int32_t kInfinityBits = 0x7F800000;
  if (amax_bits >= kInfinityBits || amax < 0x1p-80f) {
    std::memset(group.codes, 0, sizeof(group.codes));
    group.scale = amax_bits >= kInfinityBits
                      ? std::numeric_limits<float>::quiet_NaN()
                      : 0.0f;
    group.sum = 0;
    return;
  }
  group.scale = amax / 127;
  const auto inverse = hn::Set(d, 127 / amax);
  auto sum = hn::Zero(di);
  for (size_t k = 0; k < kQuantGroup; k += kNumLanes) {
    const auto code = hn::NearestInt(hn::Mul(hn::LoadU(d, x + k), inverse));
    sum = hn::Add(sum, code);
    hn::StoreU(hn::DemoteTo(d8, code), d8, group.codes + k);
  }
  group.sum = hn::GetLane(hn::SumOfLanes(di, sum));
}

// blocks  [NumBlocks(num_groups)]
HWY_INLINE void QuantizeToBlocks(const float* x, size_t num_groups,
                                 TokenBlock* blocks) {
  if (num_groups % kBlockGroups != 0) {
    std::memset(blocks + num_groups / kBlockGroups, 0, sizeof(TokenBlock));
  }
  QuantizedGroup group;
  for (size_t g = 0; g < num_groups; ++g) {
    QuantizeGroup(x + g * kQuantGroup, group);
    TokenBlock& block = blocks[g / kBlockGroups];
    const size_t j = g % kBlockGroups;
    int8_t* codes = block.codes + TokenBlock::CodesIndex(j);
    std::memcpy(codes, group.codes, 16);
    std::memcpy(codes + TokenBlock::kHalfStride, group.codes + 16, 16);
    block.scales[TokenBlock::ScaleIndex(j)] = group.scale;
    block.offsets[TokenBlock::ScaleIndex(j)] = group.sum * -8;
  }
}

void QuantizeTokens(const float* x, size_t x_stride, size_t num_cols,
                    size_t first, size_t last, size_t /*num_tokens*/,
                    std::byte* out) {
  const size_t num_groups = num_cols / kQuantGroup;
  for (size_t t = first; t < last; ++t) {
    QuantizeToBlocks(
        x + t * x_stride, num_groups,
        reinterpret_cast<TokenBlock*>(out) + t * NumBlocks(num_groups));
  }
}

// One row after the other, as in MatMul().
template <WeightType kType, bool kDotProduct>
HWY_NOINLINE void QuantDots(const WeightView& w, size_t num_rows,
                            size_t num_cols, const TokenBlock* tokens,
                            size_t num_tokens, float* out, size_t out_stride,
                            std::span<const std::byte> next) {
  const size_t num_groups = num_cols / kQuantGroup;
  const size_t num_blocks = NumBlocks(num_groups);
  const size_t row_bytes = RowBytes(kType, num_cols);
  RowFetcher fetcher(w.data, w.stride_bytes, row_bytes, num_rows, next);
  for (size_t r = 0; r < num_rows; ++r) {
    const size_t offset = r * w.stride_bytes;
    LineFetcher& lines = fetcher.BeginRow(r);
    for (size_t t = 0; t < num_tokens; ++t) {
      out[t * out_stride + r] = QuantDot<kType, kDotProduct>(
          w.data + offset, w.scales + offset, num_groups,
          tokens + t * num_blocks, lines);
    }
  }
}

template <WeightType kType, bool kDotProduct>
HWY_INLINE void QuantMatMulOf(const WeightView& w, size_t num_rows,
                              size_t num_cols, const TokenBlock* tokens,
                              size_t num_tokens,
                              [[maybe_unused]] std::byte* workspace, float* out,
                              size_t out_stride,
                              std::span<const std::byte> next) {
#if FLASHELM_HAS_QUANT_BATCH
  if (num_tokens >= kMinBatchTokens<kType> && num_rows >= kMinBatchRows) {
    QuantBatch<kType, kDotProduct>(w, num_rows, num_cols, tokens, num_tokens,
                                   workspace, out, out_stride);
    return;
  }
#endif
  QuantDots<kType, kDotProduct>(w, num_rows, num_cols, tokens, num_tokens, out,
                                out_stride, next);
}

void QuantMatMul(const WeightView& w, size_t num_rows, size_t num_cols,
                 const std::byte* tokens, size_t num_tokens,
                 std::byte* workspace, float* out, size_t out_stride,
                 std::span<const std::byte> next) {
  const auto* blocks = reinterpret_cast<const TokenBlock*>(tokens);
  WithDotProduct([&](auto dot_product) HWY_ATTR {
    constexpr bool kDotProduct = decltype(dot_product)::value;
    if (w.type == WeightType::kQ4) {
      QuantMatMulOf<WeightType::kQ4, kDotProduct>(w, num_rows, num_cols, blocks,
                                                  num_tokens, workspace, out,
                                                  out_stride, next);
    } else {
      QuantMatMulOf<WeightType::kQ8, kDotProduct>(w, num_rows, num_cols, blocks,
                                                  num_tokens, workspace, out,
                                                  out_stride, next);
    }
  });
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flashelm {

HWY_EXPORT(QuantizeTokens);
HWY_EXPORT(QuantMatMul);

size_t QuantizedTokensBytes(size_t num_cols, size_t num_tokens) {
  const size_t num_groups = num_cols / kQuantGroup;
  return num_tokens * NumBlocks(num_groups) * sizeof(TokenBlock);
}

void QuantizeTokens(const float* x, size_t x_stride, size_t num_cols,
                    size_t first, size_t last, size_t num_tokens,
                    std::byte* out) {
  HWY_DYNAMIC_DISPATCH(QuantizeTokens)
  (x, x_stride, num_cols, first, last, num_tokens, out);
}

size_t QuantMatMulWorkspaceBytes(size_t num_cols) {
  return num_cols / kQuantGroup * kMaxPanelGroupBytes;
}

void QuantMatMul(const WeightView& w, size_t num_rows, size_t num_cols,
                 const std::byte* tokens, size_t num_tokens,
                 std::byte* workspace, float* out, size_t out_stride,
                 std::span<const std::byte> next) {
  HWY_DYNAMIC_DISPATCH(QuantMatMul)
  (w, num_rows, num_cols, tokens, num_tokens, workspace, out, out_stride, next);
}

}  // namespace flashelm
#endif  // HWY_ONCE
