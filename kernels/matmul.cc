#include "kernels/matmul.h"

#include <algorithm>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/dot-inl.h"
#include "kernels/weights-inl.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {

// Rows and tokens of a block of a batch, chosen so that its partial sums
// (kNumVectors each) and operands fit in the 32 registers of AVX3 and NEON or
// the 16 of the others.
#if HWY_TARGET <= HWY_AVX3
constexpr size_t kBatchRows = 4;
constexpr size_t kBatchTokens = 3;
#elif HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_NEON
constexpr size_t kBatchRows = 1;
constexpr size_t kBatchTokens = 3;
#else
constexpr size_t kBatchRows = 1;
constexpr size_t kBatchTokens = 1;
#endif

template <class W, size_t kRows, size_t kTokens>
HWY_INLINE void MatMulBlock(const std::byte* rows, size_t stride_bytes,
                            size_t num_cols, const float* x, size_t x_stride,
                            size_t num_tokens, float* out, size_t out_stride) {
  size_t t = 0;
  for (; num_tokens - t >= kTokens; t += kTokens) {
    Dots<W, kRows, kTokens, kRows == 1 && kTokens == 1>(
        rows, stride_bytes, x + t * x_stride, x_stride, num_cols,
        out + t * out_stride, out_stride);
  }
  if constexpr (kTokens > 1) {
    for (; t < num_tokens; ++t) {
      Dots<W, kRows, 1>(rows, stride_bytes, x + t * x_stride, x_stride,
                        num_cols, out + t * out_stride, out_stride);
    }
  }
}

template <class W, size_t kRows, size_t kTokens>
HWY_NOINLINE void MatMulRows(const WeightView& w, size_t num_rows,
                             size_t num_cols, const float* x, size_t x_stride,
                             size_t num_tokens, float* out, size_t out_stride) {
  size_t r = 0;
  for (; num_rows - r >= kRows; r += kRows) {
    MatMulBlock<W, kRows, kTokens>(w.data + r * w.stride_bytes, w.stride_bytes,
                                   num_cols, x, x_stride, num_tokens, out + r,
                                   out_stride);
  }
  if constexpr (kRows > 1) {
    for (; r < num_rows; ++r) {
      MatMulBlock<W, 1, kTokens>(w.data + r * w.stride_bytes, w.stride_bytes,
                                 num_cols, x, x_stride, num_tokens, out + r,
                                 out_stride);
    }
  }
}

template <class W>
HWY_INLINE void MatMulOf(const WeightView& w, size_t num_rows, size_t num_cols,
                         const float* x, size_t x_stride, size_t num_tokens,
                         float* out, size_t out_stride) {
  if (num_tokens < kBatchTokens) {
    // One row at a time: DRAM then sees one ascending stream, which is up to
    // twice as fast as two or four rows in turn (measured on an EPYC).
    MatMulRows<W, 1, 1>(w, num_rows, num_cols, x, x_stride, num_tokens, out,
                        out_stride);
  } else {
    MatMulRows<W, kBatchRows, kBatchTokens>(w, num_rows, num_cols, x, x_stride,
                                            num_tokens, out, out_stride);
  }
}

void MatMul(const WeightView& w, size_t num_rows, size_t num_cols,
            const float* x, size_t x_stride, size_t num_tokens, float* out,
            size_t out_stride) {
  if (w.type == WeightType::kBf16) {
    MatMulOf<Bf16>(w, num_rows, num_cols, x, x_stride, num_tokens, out,
                   out_stride);
  } else {
    MatMulOf<float>(w, num_rows, num_cols, x, x_stride, num_tokens, out,
                    out_stride);
  }
}

// Rows that pass over y together: it is loaded and stored once for all of
// them, and each is read from its beginning to its end.
constexpr size_t kAddedRows = 8;
// Adds kRows rows to kTokens tokens at the columns of one group.
//   rows   where each row's codes or elements of the group begin
//   units  [kRows], of which `group` is the index
template <class W, size_t kRows, size_t kTokens>
HWY_INLINE void AddRowsToGroup(const std::byte* rows, size_t stride_bytes,
                               const GroupUnits* units, size_t group,
                               const float* HWY_RESTRICT scale,
                               size_t scale_stride, float* HWY_RESTRICT y,
                               size_t y_stride) {
  const VectorTag d;
  constexpr size_t kHalf = kQuantGroup / 2;
  // Vectors of each half of the group that are in registers at once.
  constexpr size_t kPairs =
      kTokens > 1 ? 1 : std::min<size_t>(2, kHalf / kLanes);
  HWY_UNROLL(1)
  for (size_t j = 0; j < kHalf; j += kPairs * kLanes) {
    Vector low[kTokens][kPairs], high[kTokens][kPairs];
    HWY_UNROLL(4)
    for (size_t t = 0; t < kTokens; ++t) {
      HWY_UNROLL(2)
      for (size_t p = 0; p < kPairs; ++p) {
        const float* at = y + t * y_stride + j + p * kLanes;
        low[t][p] = hn::LoadU(d, at);
        high[t][p] = hn::LoadU(d, at + kHalf);
      }
    }
    HWY_UNROLL(8)
    for (size_t r = 0; r < kRows; ++r) {
      const UnitVectors row_units = BroadcastUnits<W>(units[r], group);
      HWY_UNROLL(2)
      for (size_t p = 0; p < kPairs; ++p) {
        Vector w_low, w_high;
        LoadPair<W>(rows + r * stride_bytes, j + p * kLanes, row_units, w_low,
                    w_high);
        HWY_UNROLL(4)
        for (size_t t = 0; t < kTokens; ++t) {
          const Vector factor = hn::Set(d, scale[t * scale_stride + r]);
          low[t][p] = hn::MulAdd(factor, w_low, low[t][p]);
          high[t][p] = hn::MulAdd(factor, w_high, high[t][p]);
        }
      }
    }
    HWY_UNROLL(4)
    for (size_t t = 0; t < kTokens; ++t) {
      HWY_UNROLL(2)
      for (size_t p = 0; p < kPairs; ++p) {
        float* at = y + t * y_stride + j + p * kLanes;
        hn::StoreU(low[t][p], d, at);
        hn::StoreU(high[t][p], d, at + kHalf);
      }
    }
  }
}

// The rows of a file may lie far apart, where no processor expects the next
// ones: fetches `num_bytes` from `at` on of kRows rows.
template <size_t kRows>
HWY_INLINE void PrefetchRows(const std::byte* at, size_t stride_bytes,
                             size_t num_bytes) {
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t b = 0; b < num_bytes; b += kCacheLine) {
      hwy::Prefetch(at + r * stride_bytes + b);
    }
  }
}

// The first kRows rows of w at `num_groups` groups of columns, at most
// kScaledGroups. `has_next`: as many rows follow, and will be added next.
template <class W, size_t kRows, size_t kTokens>
HWY_INLINE void AddRowsToTokens(const WeightView& w, size_t num_groups,
                                const GroupUnits* units,
                                const float* HWY_RESTRICT scale,
                                size_t scale_stride, float* HWY_RESTRICT y,
                                size_t y_stride, bool has_next) {
  // Groups whose codes or elements fill a cache line.
  constexpr size_t kFetched = kCacheLine / std::min(kCacheLine, kGroupBytes<W>);
  for (size_t g = 0; g < num_groups; ++g) {
    const std::byte* rows = w.data + g * kGroupBytes<W>;
    if (has_next && g % kFetched == 0) {
      PrefetchRows<kRows>(rows + kRows * w.stride_bytes, w.stride_bytes,
                          kFetched * kGroupBytes<W>);
    }
    AddRowsToGroup<W, kRows, kTokens>(rows, w.stride_bytes, units, g, scale,
                                      scale_stride, y + g * kQuantGroup,
                                      y_stride);
  }
}

// Lane by lane, the columns after the last whole group.
template <class W>
HWY_INLINE void AddRowsToRest(const WeightView& w, size_t num_rows,
                              size_t num_cols, const float* HWY_RESTRICT scale,
                              size_t scale_stride, size_t num_tokens,
                              float* HWY_RESTRICT y, size_t y_stride) {
  const LaneTag d;
  for (size_t t = 0; t < num_tokens; ++t) {
    for (size_t c = 0; c < num_cols; ++c) {
      auto sum = hn::Set(d, y[t * y_stride + c]);
      for (size_t i = 0; i < num_rows; ++i) {
        const std::byte* at = w.data + i * w.stride_bytes + c * sizeof(W);
        sum = hn::MulAdd(hn::Set(d, scale[t * scale_stride + i]),
                         LoadElements<W>(d, at), sum);
      }
      y[t * y_stride + c] = hn::GetLane(sum);
    }
  }
}

template <class W, size_t kRows>
HWY_INLINE void AddRows(const WeightView& w, size_t num_groups,
                        const float* HWY_RESTRICT scale, size_t scale_stride,
                        size_t num_tokens, float* HWY_RESTRICT y,
                        size_t y_stride, bool has_next) {
  for (size_t g = 0; g < num_groups; g += kScaledGroups) {
    const size_t groups = std::min(kScaledGroups, num_groups - g);
    const WeightView part = Submatrix(w, 0, g * kQuantGroup);
    GroupUnits units[kRows];
    for (size_t r = 0; r < kRows && kIsQuantized<W>; ++r) {
      const std::byte* scales = part.scales + r * w.stride_bytes;
      if (has_next) hwy::Prefetch(scales + kRows * w.stride_bytes);
      LoadUnits<W>(scales, groups, units[r]);
    }
    // No more tokens at once: their strides are often multiples of 4 KiB, and
    // the tokens then share one set of the first-level cache.
    constexpr size_t kTokens = 4;
    float* columns = y + g * kQuantGroup;
    size_t t = 0;
    for (; num_tokens - t >= kTokens; t += kTokens) {
      AddRowsToTokens<W, kRows, kTokens>(
          part, groups, units, scale + t * scale_stride, scale_stride,
          columns + t * y_stride, y_stride, has_next && t == 0);
    }
    for (; t < num_tokens; ++t) {
      AddRowsToTokens<W, kRows, 1>(
          part, groups, units, scale + t * scale_stride, scale_stride,
          columns + t * y_stride, y_stride, has_next && t == 0);
    }
  }
}

template <class W>
HWY_NOINLINE void AddScaledRowsOf(const WeightView& w, size_t num_rows,
                                  size_t num_cols, const float* scale,
                                  size_t scale_stride, size_t num_tokens,
                                  float* y, size_t y_stride) {
  const size_t num_groups = num_cols / kQuantGroup;
  size_t i = 0;
  for (; num_rows - i >= kAddedRows; i += kAddedRows) {
    AddRows<W, kAddedRows>(Submatrix(w, i, 0), num_groups, scale + i,
                           scale_stride, num_tokens, y, y_stride,
                           num_rows - i >= 2 * kAddedRows);
  }
  for (; i < num_rows; ++i) {
    AddRows<W, 1>(Submatrix(w, i, 0), num_groups, scale + i, scale_stride,
                  num_tokens, y, y_stride, /*has_next=*/false);
  }
  if constexpr (!kIsQuantized<W>) {
    const size_t col = num_groups * kQuantGroup;
    AddRowsToRest<W>(Submatrix(w, 0, col), num_rows, num_cols - col, scale,
                     scale_stride, num_tokens, y + col, y_stride);
  }
}

void AddScaledRows(const WeightView& w, size_t num_rows, size_t num_cols,
                   const float* scale, size_t scale_stride, size_t num_tokens,
                   float* y, size_t y_stride) {
  WithEncoding(w.type, [&](auto encoding) {
    AddScaledRowsOf<decltype(encoding)>(w, num_rows, num_cols, scale,
                                        scale_stride, num_tokens, y, y_stride);
  });
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flashelm {

HWY_EXPORT(MatMul);
HWY_EXPORT(AddScaledRows);

void MatMul(const WeightView& w, size_t num_rows, size_t num_cols,
            const float* x, size_t x_stride, size_t num_tokens, float* out,
            size_t out_stride) {
  HWY_DYNAMIC_DISPATCH(MatMul)
  (w, num_rows, num_cols, x, x_stride, num_tokens, out, out_stride);
}

void AddScaledRows(const WeightView& w, size_t num_rows, size_t num_cols,
                   const float* scale, size_t scale_stride, size_t num_tokens,
                   float* y, size_t y_stride) {
  HWY_DYNAMIC_DISPATCH(AddScaledRows)
  (w, num_rows, num_cols, scale, scale_stride, num_tokens, y, y_stride);
}

}  // namespace flashelm
#endif  // HWY_ONCE
