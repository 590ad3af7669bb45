#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "kernels/matmul.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/add_scaled_rows.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/dot-inl.h"
#include "kernels/weights-inl.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {

// One token. Rows that pass over y together: it is loaded and stored once for
// all of them, and each is read from its beginning to its end.
constexpr size_t kAddedRows = 8;
// The same while other memory is fetched: the fewer, the more evenly that is.
// With 8, a dozen lines follow each other, and a core of a Zen 5 processor
// waits for some of them.
constexpr size_t kFetchingRows = 2;

// Adds kRows rows to a token at the columns of one group.
//   rows   [kRows]  where the codes or elements of each begin; those of the
//                   group are `offset_bytes` further
//   units  [kRows], of which `group` is the index
template <class W, size_t kRows>
HWY_INLINE void AddRowsToGroup(const std::byte* const* rows,
                               size_t offset_bytes, const GroupUnits* units,
                               size_t group, const float* HWY_RESTRICT scale,
                               float* HWY_RESTRICT y) {
  const VectorTag d;
  constexpr size_t kHalf = kQuantGroup / 2;
  // Vectors of each half of the group that are in registers at once.
  constexpr size_t kPairs = std::min<size_t>(2, kHalf / kLanes);
  HWY_UNROLL(1)
  for (size_t j = 0; j < kHalf; j += kPairs * kLanes) {
    Vector low[kPairs], high[kPairs];
    HWY_UNROLL(2)
    for (size_t p = 0; p < kPairs; ++p) {
      const float* at = y + j + p * kLanes;
      low[p] = hn::LoadU(d, at);
      high[p] = hn::LoadU(d, at + kHalf);
    }
    HWY_UNROLL(8)
    for (size_t r = 0; r < kRows; ++r) {
      const UnitVectors row_units = BroadcastUnits<W>(units[r], group);
      const Vector factor = hn::Set(d, scale[r]);
      HWY_UNROLL(2)
      for (size_t p = 0; p < kPairs; ++p) {
        Vector w_low, w_high;
        LoadPair<W>(rows[r] + offset_bytes, j + p * kLanes, row_units, w_low,
                    w_high);
        low[p] = hn::MulAdd(factor, w_low, low[p]);
        high[p] = hn::MulAdd(factor, w_high, high[p]);
      }
    }
    HWY_UNROLL(2)
    for (size_t p = 0; p < kPairs; ++p) {
      float* at = y + j + p * kLanes;
      hn::StoreU(low[p], d, at);
      hn::StoreU(high[p], d, at + kHalf);
    }
  }
}

// kRows rows, whose scales are `scales_offset` behind where they begin. Other
// memory is fetched meanwhile: by `fetcher` where it has something
// to fetch, or of as many rows at `next_rows`, unless that is null.
template <class W, size_t kRows>
HWY_NOINLINE void AddRows(const std::byte* const* rows, size_t scales_offset,
                          size_t num_groups, const float* HWY_RESTRICT scale,
                          float* HWY_RESTRICT y,
                          const std::byte* const* next_rows,
                          LineFetcher& fetcher) {
  // Groups whose codes or elements fill a cache line.
  constexpr size_t kFetched = kCacheLine / std::min(kCacheLine, kGroupBytes<W>);
  constexpr size_t kFetchedBytes = kFetched * kGroupBytes<W>;
  LineFetcher lines = fetcher;  // In registers.
  for (size_t first = 0; first < num_groups; first += kScaledGroups) {
    const size_t groups = std::min(kScaledGroups, num_groups - first);
    GroupUnits units[kRows];
    for (size_t r = 0; r < kRows && kIsQuantized<W>; ++r) {
      LoadUnits<W>(rows[r] + scales_offset +
                       first * ScalesBytes(TypeOf<W>(), kQuantGroup),
                   groups, units[r]);
    }
    for (size_t g = 0; g < groups; ++g) {
      const size_t offset = (first + g) * kGroupBytes<W>;
      lines.Advance(kRows * kGroupBytes<W>);
      if (next_rows != nullptr && g % kFetched == 0) {
        HWY_UNROLL(8)
        for (size_t r = 0; r < kRows; ++r) {
          for (size_t b = 0; b < kFetchedBytes; b += kCacheLine) {
            FetchLine(next_rows[r] + offset + b);
          }
        }
      }
      AddRowsToGroup<W, kRows>(rows, offset, units, g, scale,
                               y + (first + g) * kQuantGroup);
    }
  }
  fetcher = lines;
}

// Rows side by side; the ones after them are fetched unless `next` is given.
template <class W>
HWY_INLINE void AddRowsToToken(const WeightView& w, size_t num_rows,
                               size_t num_groups, const float* scale, float* y,
                               std::span<const std::byte> next) {
  LineFetcher fetcher(next, num_rows * num_groups * kGroupBytes<W>,
                      FetchesNear());
  const size_t scales_offset = kIsQuantized<W> ? w.scales - w.data : 0;
  const std::byte* rows[2 * kAddedRows];
  size_t i = 0;
  const auto find_rows = [&](size_t count) {
    for (size_t r = 0; r < count; ++r) {
      rows[r] = w.data + (i + r) * w.stride_bytes;
    }
  };
  const auto add = [&](auto count, const std::byte* const* next_rows) HWY_ATTR {
    AddRows<W, count()>(rows, scales_offset, num_groups, scale + i, y,
                        next_rows, fetcher);
    i += count();
  };
  while (num_rows - i >= kAddedRows && next.empty()) {
    find_rows(2 * kAddedRows);
    add(std::integral_constant<size_t, kAddedRows>(), rows + kAddedRows);
  }
  while (num_rows - i >= kFetchingRows && !next.empty()) {
    find_rows(kFetchingRows);
    add(std::integral_constant<size_t, kFetchingRows>(), nullptr);
  }
  while (i < num_rows) {
    find_rows(1);
    add(std::integral_constant<size_t, 1>(), nullptr);
  }
}

// Rows anywhere; the next ones are fetched meanwhile.
template <class W>
HWY_INLINE void AddRowsAtToToken(const std::byte* const* rows, size_t num_rows,
                                 size_t scales_offset, size_t num_groups,
                                 const float* scale, float* y) {
  LineFetcher none;
  size_t i = 0;
  for (; num_rows - i >= kAddedRows; i += kAddedRows) {
    const bool has_next = num_rows - i >= 2 * kAddedRows;
    AddRows<W, kAddedRows>(rows + i, scales_offset, num_groups, scale + i, y,
                           has_next ? rows + i + kAddedRows : nullptr, none);
  }
  for (; i < num_rows; ++i) {
    AddRows<W, 1>(rows + i, scales_offset, num_groups, scale + i, y, nullptr,
                  none);
  }
}

// A batch. The weights of kStripRows rows in a few groups of columns, as
// floats: they stay in the nearest caches while all tokens use them.
constexpr size_t kStripRows = 128;
constexpr size_t kStripCols = 2 * kQuantGroup;
struct FloatStrip {
  alignas(kCacheLine) float weights[kStripRows][kStripCols];
};

// Tokens and vectors of columns that are summed at once: the sums and operands
// fill the 32 registers of AVX3 and NEON, or the 16 of the others.
#if HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr size_t kStripTokens = 6;
constexpr size_t kStripVectors = 4;
#else
constexpr size_t kStripTokens = 4;
constexpr size_t kStripVectors = 2;
#endif

// Column `col` on of `num_rows` rows, one group wide, to where the same column
// of a strip is. The group that will follow in the next strip is fetched
// meanwhile.
template <class W>
HWY_INLINE void LoadStrip(const WeightView& w, size_t num_rows, size_t col,
                          FloatStrip& strip, size_t strip_col) {
  const VectorTag d;
  constexpr size_t kHalf = kQuantGroup / 2;
  const WeightView part = Submatrix(w, 0, col);
  for (size_t r = 0; r < num_rows; ++r) {
    const std::byte* codes = part.data + r * w.stride_bytes;
    const std::byte* next = codes + 2 * kGroupBytes<W>;
    HWY_UNROLL(2)
    for (size_t b = 0; b < kGroupBytes<W>; b += kCacheLine) {
      FetchLine(next + b);
    }
    GroupUnits units;
    if constexpr (kIsQuantized<W>) {
      LoadUnits<W>(part.scales + r * w.stride_bytes, 1, units);
    }
    const UnitVectors row_units = BroadcastUnits<W>(units, 0);
    float* weights = strip.weights[r] + strip_col;
    HWY_UNROLL(4)
    for (size_t j = 0; j < kHalf; j += kLanes) {
      Vector low, high;
      LoadPair<W>(codes, j, row_units, low, high);
      hn::Store(low, d, weights + j);
      hn::Store(high, d, weights + kHalf + j);
    }
  }
}

// Adds kWidth vectors of columns, from `weights` on in the first row.
template <size_t kTokens, size_t kWidth>
HWY_INLINE void AddStripVectors(const float* HWY_RESTRICT weights,
                                size_t num_rows,
                                const float* HWY_RESTRICT scale,
                                size_t scale_stride, float* HWY_RESTRICT y,
                                size_t y_stride, bool has_next) {
  const VectorTag d;
  Vector sums[kTokens][kWidth];
  HWY_UNROLL(6)
  for (size_t t = 0; t < kTokens; ++t) {
    HWY_UNROLL(4)
    for (size_t v = 0; v < kWidth; ++v) {
      const float* at = y + t * y_stride + v * kLanes;
      sums[t][v] = hn::LoadU(d, at);
      if (has_next) hwy::Prefetch(at + kTokens * y_stride);
    }
  }
  for (size_t r = 0; r < num_rows; ++r) {
    Vector row[kWidth];
    HWY_UNROLL(4)
    for (size_t v = 0; v < kWidth; ++v) {
      row[v] = hn::Load(d, weights + r * kStripCols + v * kLanes);
    }
    HWY_UNROLL(6)
    for (size_t t = 0; t < kTokens; ++t) {
      const Vector factor = hn::Set(d, scale[t * scale_stride + r]);
      HWY_UNROLL(4)
      for (size_t v = 0; v < kWidth; ++v) {
        sums[t][v] = hn::MulAdd(factor, row[v], sums[t][v]);
      }
    }
  }
  HWY_UNROLL(6)
  for (size_t t = 0; t < kTokens; ++t) {
    HWY_UNROLL(4)
    for (size_t v = 0; v < kWidth; ++v) {
      hn::StoreU(sums[t][v], d, y + t * y_stride + v * kLanes);
    }
  }
}

// The first `num_rows` rows and `num_cols` columns, a multiple of a group.
HWY_NOINLINE void AddStrip(const FloatStrip& strip, size_t num_rows,
                           size_t num_cols, const float* scale,
                           size_t scale_stride, size_t num_tokens, float* y,
                           size_t y_stride) {
  size_t t = 0;
  const auto add = [&](auto tokens) HWY_ATTR {
    // Two tiles of 4 are faster than one of 6 and one of 2.
    for (; num_tokens - t >= tokens() && (tokens() < 6 || num_tokens - t != 8);
         t += tokens()) {
      const auto add_vectors = [&](auto width, size_t j) HWY_ATTR {
        AddStripVectors<tokens(), width()>(
            strip.weights[0] + j, num_rows, scale + t * scale_stride,
            scale_stride, y + t * y_stride + j, y_stride,
            num_tokens - t >= 2 * tokens());
      };
      size_t j = 0;
      for (; num_cols - j >= kStripVectors * kLanes;
           j += kStripVectors * kLanes) {
        add_vectors(std::integral_constant<size_t, kStripVectors>(), j);
      }
      for (; j < num_cols; j += 2 * kLanes) {
        add_vectors(std::integral_constant<size_t, 2>(), j);
      }
    }
  };
  add(std::integral_constant<size_t, kStripTokens>());
  if constexpr (kStripTokens > 4) add(std::integral_constant<size_t, 4>());
  add(std::integral_constant<size_t, 2>());
  add(std::integral_constant<size_t, 1>());
}

template <class W>
HWY_NOINLINE void AddRowsToBatch(const WeightView& w, size_t num_rows,
                                 size_t num_cols, const float* scale,
                                 size_t scale_stride, size_t num_tokens,
                                 float* y, size_t y_stride) {
  FloatStrip strip;
  for (size_t r = 0; r < num_rows; r += kStripRows) {
    const size_t rows = std::min(kStripRows, num_rows - r);
    for (size_t c = 0; c < num_cols; c += kStripCols) {
      const size_t cols = std::min(kStripCols, num_cols - c);
      for (size_t j = 0; j < cols; j += kQuantGroup) {
        LoadStrip<W>(Submatrix(w, r, 0), rows, c + j, strip, j);
      }
      AddStrip(strip, rows, cols, scale + r, scale_stride, num_tokens, y + c,
               y_stride);
    }
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

template <class W>
HWY_INLINE void AddScaledRowsOf(const WeightView& w, size_t num_rows,
                                size_t num_cols, const float* scale,
                                size_t scale_stride, size_t num_tokens,
                                float* y, size_t y_stride,
                                std::span<const std::byte> next) {
  const size_t num_groups = num_cols / kQuantGroup;
  if (num_tokens == 1) {
    AddRowsToToken<W>(w, num_rows, num_groups, scale, y, next);
  } else {
    AddRowsToBatch<W>(w, num_rows, num_groups * kQuantGroup, scale,
                      scale_stride, num_tokens, y, y_stride);
  }
  if constexpr (!kIsQuantized<W>) {
    const size_t col = num_groups * kQuantGroup;
    AddRowsToRest<W>(Submatrix(w, 0, col), num_rows, num_cols - col, scale,
                     scale_stride, num_tokens, y + col, y_stride);
  }
}

void AddScaledRows(const WeightView& w, size_t num_rows, size_t num_cols,
                   const float* scale, size_t scale_stride, size_t num_tokens,
                   float* y, size_t y_stride, std::span<const std::byte> next) {
  WithEncoding(w.type, [&](auto encoding) {
    AddScaledRowsOf<decltype(encoding)>(w, num_rows, num_cols, scale,
                                        scale_stride, num_tokens, y, y_stride,
                                        next);
  });
}

template <class W>
HWY_INLINE void AddScaledRowsAtOf(const std::byte* const* rows,
                                  size_t scales_offset, size_t num_rows,
                                  size_t num_cols, const float* scale,
                                  float* y) {
  const size_t num_groups = num_cols / kQuantGroup;
  AddRowsAtToToken<W>(rows, num_rows, scales_offset, num_groups, scale, y);
  if constexpr (!kIsQuantized<W>) {
    const size_t col = num_groups * kQuantGroup;
    for (size_t i = 0; i < num_rows && col < num_cols; ++i) {
      const WeightView row{rows[i] + col * sizeof(W), 0, TypeOf<W>()};
      AddRowsToRest<W>(row, 1, num_cols - col, scale + i, 1, 1, y + col, 0);
    }
  }
}

void AddScaledRowsAt(const std::byte* const* rows, WeightType type,
                     size_t scales_offset, size_t num_rows, size_t num_cols,
                     const float* scale, float* y) {
  WithEncoding(type, [&](auto encoding) {
    AddScaledRowsAtOf<decltype(encoding)>(rows, scales_offset, num_rows,
                                          num_cols, scale, y);
  });
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flashelm {

HWY_EXPORT(AddScaledRows);

void AddScaledRows(const WeightView& w, size_t num_rows, size_t num_cols,
                   const float* scale, size_t scale_stride, size_t num_tokens,
                   float* y, size_t y_stride, std::span<const std::byte> next) {
  HWY_DYNAMIC_DISPATCH(AddScaledRows)
  (w, num_rows, num_cols, scale, scale_stride, num_tokens, y, y_stride, next);
}

HWY_EXPORT(AddScaledRowsAt);

void AddScaledRowsAt(const std::byte* const* rows, WeightType type,
                     size_t scales_offset, size_t num_rows, size_t num_cols,
                     const float* scale, float* y) {
  HWY_DYNAMIC_DISPATCH(AddScaledRowsAt)
  (rows, type, scales_offset, num_rows, num_cols, scale, y);
}

}  // namespace flashelm
#endif  // HWY_ONCE
