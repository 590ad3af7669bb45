// The dot products of the canonical order that matmul.h defines, inlined into
// each SIMD target. Included after hwy/highway.h, once per target.
#if defined(FLASHELM_KERNELS_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FLASHELM_KERNELS_DOT_INL_H_
#undef FLASHELM_KERNELS_DOT_INL_H_
#else
#define FLASHELM_KERNELS_DOT_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/float_types.h"
#include "kernels/prefetch.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The lanes of a vector divide the 32 partial sums. Their number is known at
// compile time, so that accumulators can be arrays; the build leaves out the
// targets (SVE, RVV) whose vectors cannot be elements of one.
constexpr size_t kNumPartials = 32;
using VectorTag = hn::CappedTag<float, 16>;
using Vector = hn::Vec<VectorTag>;
constexpr size_t kLanes = hn::MaxLanes(VectorTag());
constexpr size_t kNumVectors = kNumPartials / kLanes;
static_assert(kNumPartials % kLanes == 0);

// The rows of a file may lie far apart, where no processor expects the next
// ones: fetches `num_bytes` from `at` on of so many rows.
HWY_INLINE void FetchRows(const std::byte* at, size_t stride_bytes,
                          size_t num_rows, size_t num_bytes) {
  HWY_UNROLL(8)
  for (size_t r = 0; r < num_rows; ++r) {
    for (size_t b = 0; b < num_bytes; b += kCacheLine) {
      FetchLine(at + r * stride_bytes + b);
    }
  }
}

// For the last elements of an array: a full load could cross into a page after
// it.
using LaneTag = hn::CappedTag<float, 1>;

// The next Lanes(d) elements of type W, float or Bf16, as floats; exact. They
// may lie at any address, so they are loaded as bytes.
template <class W, class D>
HWY_INLINE hn::Vec<D> LoadElements(D d, const std::byte* from) {
#if HWY_TARGET == HWY_SCALAR
  W element;
  std::memcpy(&element, from, sizeof(W));
  if constexpr (std::is_same_v<W, Bf16>) {
    const hn::Rebind<uint32_t, D> d32;
    return hn::BitCast(d, hn::Set(d32, static_cast<uint32_t>(element) << 16));
  } else {
    return hn::Set(d, element);
  }
#else
  const auto* bytes = reinterpret_cast<const uint8_t*>(from);
  if constexpr (std::is_same_v<W, Bf16>) {
    const hn::Rebind<uint16_t, D> d16;
    const hn::Rebind<uint32_t, D> d32;
    const hn::Repartition<uint8_t, decltype(d16)> d8;
    const auto halves = hn::BitCast(d16, hn::LoadU(d8, bytes));
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, halves)));
  } else {
    const hn::Repartition<uint8_t, D> d8;
    return hn::BitCast(d, hn::LoadU(d8, bytes));
  }
#endif
}

// The tree within a vector: upper half onto lower half until one lane is left.
template <class D>
HWY_INLINE float ReduceLanes(D /*d*/, hn::Vec<D> v) {
#if HWY_TARGET != HWY_SCALAR  // Its vectors have one lane and no halves.
  if constexpr (hn::MaxLanes(D()) > 1) {
    const hn::Half<D> half;
    return ReduceLanes(half,
                       hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
#endif
  return hn::GetLane(v);
}

// The tree's steps that add up whole vectors, from those of 32 partial sums, or
// of their even or odd ones, to one.
template <size_t kVectors>
HWY_INLINE Vector AddVectors(Vector (&partials)[kVectors]) {
  HWY_UNROLL(8)
  for (size_t half = kVectors / 2; half > 0; half /= 2) {
    HWY_UNROLL(16)
    for (size_t i = 0; i < half; ++i) {
      partials[i] = hn::Add(partials[i], partials[i + half]);
    }
  }
  return partials[0];
}

// The whole tree, from 32 partial sums to one.
HWY_INLINE float ReducePartials(Vector (&partials)[kNumVectors]) {
  return ReduceLanes(VectorTag(), AddVectors(partials));
}

// out[t * out_stride + r] = dot(row r, token t) for a block of rows and tokens
// that share the loads.
//   rows  [kRows, num_cols] of W   row r begins at rows + r * stride_bytes
//   x     [kTokens, num_cols]      token t begins at x + t * x_stride
// `fetcher`: advances by the bytes of a row, unless it is null.
template <class W, size_t kRows, size_t kTokens>
HWY_INLINE void Dots(const std::byte* rows, size_t stride_bytes, const float* x,
                     size_t x_stride, size_t num_cols, float* out,
                     size_t out_stride, LineFetcher* fetcher = nullptr) {
  const VectorTag d;
  Vector partials[kRows][kTokens][kNumVectors];
  HWY_UNROLL(8)
  for (size_t r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (size_t t = 0; t < kTokens; ++t) {
      HWY_UNROLL(32)
      for (size_t i = 0; i < kNumVectors; ++i) {
        partials[r][t][i] = hn::Zero(d);
      }
    }
  }

  size_t k = 0;
  for (; num_cols - k >= kNumPartials; k += kNumPartials) {
    if (fetcher != nullptr) fetcher->Advance(kNumPartials * sizeof(W));
    HWY_UNROLL(32)
    for (size_t i = 0; i < kNumVectors; ++i) {
      const size_t first = k + i * kLanes;
      Vector xs[kTokens];
      HWY_UNROLL(8)
      for (size_t t = 0; t < kTokens; ++t) {
        xs[t] = hn::LoadU(d, x + t * x_stride + first);
      }
      HWY_UNROLL(8)
      for (size_t r = 0; r < kRows; ++r) {
        const Vector w =
            LoadElements<W>(d, rows + r * stride_bytes + first * sizeof(W));
        HWY_UNROLL(8)
        for (size_t t = 0; t < kTokens; ++t) {
          partials[r][t][i] = hn::MulAdd(w, xs[t], partials[r][t][i]);
        }
      }
    }
  }

  if (k < num_cols) {
    // From copies: a full load could cross into a page after the row.
    const size_t rest = num_cols - k;
    HWY_ALIGN float x_rest[kTokens][kNumPartials] = {};
    HWY_ALIGN std::byte w_rest[kRows][kNumPartials * sizeof(W)] = {};
    for (size_t t = 0; t < kTokens; ++t) {
      std::memcpy(x_rest[t], x + t * x_stride + k, rest * sizeof(float));
    }
    for (size_t r = 0; r < kRows; ++r) {
      std::memcpy(w_rest[r], rows + r * stride_bytes + k * sizeof(W),
                  rest * sizeof(W));
    }
    HWY_UNROLL(32)
    for (size_t i = 0; i < kNumVectors; ++i) {
      const size_t first = i * kLanes;
      // A partial sum without an element stays as it is, even if it is -0.
      const auto has_element =
          hn::FirstN(d, std::min(kLanes, rest - std::min(rest, first)));
      HWY_UNROLL(8)
      for (size_t r = 0; r < kRows; ++r) {
        const Vector w = LoadElements<W>(d, w_rest[r] + first * sizeof(W));
        HWY_UNROLL(8)
        for (size_t t = 0; t < kTokens; ++t) {
          const Vector sum =
              hn::MulAdd(w, hn::LoadU(d, x_rest[t] + first), partials[r][t][i]);
          partials[r][t][i] =
              hn::IfThenElse(has_element, sum, partials[r][t][i]);
        }
      }
    }
  }

  HWY_UNROLL(8)
  for (size_t r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (size_t t = 0; t < kTokens; ++t) {
      out[t * out_stride + r] = ReducePartials(partials[r][t]);
    }
  }
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // FLASHELM_KERNELS_DOT_INL_H_
