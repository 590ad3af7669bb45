#include "kernels/attention.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>

#include "kernels/float_types.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/dot-inl.h"
#include "kernels/exp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {

static_assert(kAttentionSegment % kNumPartials == 0);

// Heads that share the loads of keys and values: a group of every OpenELM
// model.
constexpr size_t kGroup = 4;

// Scores or weights of one head in a segment.
using Scores = float[kAttentionSegment];

HWY_INLINE void PrefetchRow(const std::byte* row, size_t row_bytes) {
  for (size_t b = 0; b < row_bytes; b += kCacheLine) hwy::Prefetch(row + b);
}

#if HWY_TARGET != HWY_SCALAR
// Of each vector of 16 bytes, lanes i and i + 2 of `a` are added up in lanes 0
// and 1, those of `b` in lanes 2 and 3.
HWY_INLINE Vector AddPairs(Vector a, Vector b) {
  const VectorTag d;
  const hn::RepartitionToWide<hn::RebindToUnsigned<VectorTag>> d64;
  const auto wide_a = hn::BitCast(d64, a);
  const auto wide_b = hn::BitCast(d64, b);
  return hn::Add(hn::BitCast(d, hn::InterleaveLower(d64, wide_a, wide_b)),
                 hn::BitCast(d, hn::InterleaveUpper(d64, wide_a, wide_b)));
}

// Lanes 2i and 2i + 1 of `a` are added up in lane 2i, those of `b` in 2i + 1.
HWY_INLINE Vector AddNeighbors(Vector a, Vector b) {
  const VectorTag d;
  return hn::Add(hn::OddEven(b, a), hn::Reverse2(d, hn::OddEven(a, b)));
}

// One step of the tree for the dots of kGroup heads, whose partial sums fill
// v[0] to v[kGroup - 1]: from 16 or 8 lanes for each down to 4, which are a
// block of 16 bytes. Leaves kGroup * 4 / kLanes vectors, heads ascending.
HWY_INLINE void ReduceToBlocks(Vector (&v)[kGroup]) {
  [[maybe_unused]] const VectorTag d;
  if constexpr (kLanes == 16) {
    const Vector a = hn::Add(hn::ConcatLowerLower(d, v[2], v[0]),
                             hn::ConcatUpperUpper(d, v[2], v[0]));
    const Vector b = hn::Add(hn::ConcatLowerLower(d, v[3], v[1]),
                             hn::ConcatUpperUpper(d, v[3], v[1]));
    v[0] = hn::Add(hn::OddEvenBlocks(b, a),
                   hn::SwapAdjacentBlocks(hn::OddEvenBlocks(a, b)));
  } else if constexpr (kLanes == 8) {
    v[0] = hn::Add(hn::ConcatLowerLower(d, v[1], v[0]),
                   hn::ConcatUpperUpper(d, v[1], v[0]));
    v[1] = hn::Add(hn::ConcatLowerLower(d, v[3], v[2]),
                   hn::ConcatUpperUpper(d, v[3], v[2]));
  }
}

// The dots of kRows keys with kGroup queries, down to ReduceToBlocks().
// head_dim is a multiple of 32.
template <class T, size_t kRows>
HWY_INLINE void DotsToBlocks(const float* q, const std::byte* keys,
                             size_t head_dim, Vector (*blocks)[kGroup]) {
  const VectorTag d;
  Vector partials[kRows][kGroup][kNumVectors];
  HWY_UNROLL(2)
  for (size_t r = 0; r < kRows; ++r) {
    HWY_UNROLL(4)
    for (size_t h = 0; h < kGroup; ++h) {
      HWY_UNROLL(8)
      for (size_t i = 0; i < kNumVectors; ++i) {
        partials[r][h][i] = hn::Zero(d);
      }
    }
  }
  for (size_t k = 0; k < head_dim; k += kNumPartials) {
    HWY_UNROLL(8)
    for (size_t i = 0; i < kNumVectors; ++i) {
      const size_t first = k + i * kLanes;
      Vector key[kRows];
      HWY_UNROLL(2)
      for (size_t r = 0; r < kRows; ++r) {
        key[r] = LoadElements<T>(d, keys + (r * head_dim + first) * sizeof(T));
      }
      HWY_UNROLL(4)
      for (size_t h = 0; h < kGroup; ++h) {
        const Vector query = hn::LoadU(d, q + h * head_dim + first);
        HWY_UNROLL(2)
        for (size_t r = 0; r < kRows; ++r) {
          partials[r][h][i] = hn::MulAdd(key[r], query, partials[r][h][i]);
        }
      }
    }
  }
  HWY_UNROLL(2)
  for (size_t r = 0; r < kRows; ++r) {
    HWY_UNROLL(4)
    for (size_t h = 0; h < kGroup; ++h) {
      blocks[r][h] = AddVectors(partials[r][h]);
    }
    ReduceToBlocks(blocks[r]);
  }
}

// scores[h][t] for 4 keys and kGroup queries. Their trees share instructions:
// one at a time they would take as long as the products do.
template <class T>
HWY_INLINE void ScoreFour(const float* q, const std::byte* keys,
                          size_t head_dim, float scale, float* scores) {
  constexpr size_t kRows = kLanes == 16 ? 2 : 1;
  constexpr size_t kVectors = kGroup * 4 / kLanes;
  const VectorTag d;
  Vector blocks[4][kGroup];
  HWY_UNROLL(4)
  for (size_t r = 0; r < 4; r += kRows) {
    DotsToBlocks<T, kRows>(q, keys + r * head_dim * sizeof(T), head_dim,
                           blocks + r);
  }
  HWY_ALIGN float tile[kGroup * 4];
  HWY_UNROLL(4)
  for (size_t i = 0; i < kVectors; ++i) {
    const Vector even = AddPairs(blocks[0][i], blocks[2][i]);
    const Vector odd = AddPairs(blocks[1][i], blocks[3][i]);
    hn::Store(hn::Mul(AddNeighbors(even, odd), hn::Set(d, scale)), d,
              tile + i * kLanes);
  }
  HWY_UNROLL(4)
  for (size_t h = 0; h < kGroup; ++h) {
    std::memcpy(scores + h * kAttentionSegment, tile + h * 4,
                4 * sizeof(float));
  }
}
#endif  // HWY_TARGET != HWY_SCALAR

// scores[h][t] = dot(query h, key t) * scale. Fetches the values meanwhile.
template <class T, size_t kHeads>
HWY_INLINE void Score(const float* q, const std::byte* keys,
                      const std::byte* values, size_t num_positions,
                      size_t head_dim, float scale, Scores* scores) {
  const size_t row_bytes = head_dim * sizeof(T);
  size_t t = 0;
#if HWY_TARGET != HWY_SCALAR
  if constexpr (kHeads == kGroup) {
    if (head_dim % kNumPartials == 0) {
      for (; num_positions - t >= 4; t += 4) {
        PrefetchRow(values + t * row_bytes, 4 * row_bytes);
        ScoreFour<T>(q, keys + t * row_bytes, head_dim, scale, scores[0] + t);
      }
    }
  }
#endif
  for (; t < num_positions; ++t) {
    PrefetchRow(values + t * row_bytes, row_bytes);
    Dots<T, 1, kHeads>(keys + t * row_bytes, row_bytes, q, head_dim, head_dim,
                       scores[0] + t, kAttentionSegment);
    for (size_t h = 0; h < kHeads; ++h) scores[h][t] *= scale;
  }
}

// Turns scores into exp(score - maximum); returns their sum.
HWY_INLINE float Exponentiate(size_t num_positions, float* scores, float& max) {
  const VectorTag d;
  size_t padded = num_positions;
  for (; padded % kNumPartials != 0; ++padded) {
    scores[padded] = -std::numeric_limits<float>::infinity();
  }
  Vector maxima = hn::Set(d, -std::numeric_limits<float>::infinity());
  for (size_t t = 0; t < padded; t += kLanes) {
    maxima = hn::Max(maxima, hn::LoadU(d, scores + t));
  }
  const Vector shift = hn::MaxOfLanes(d, maxima);
  max = hn::GetLane(shift);
  Vector partials[kNumVectors];
  for (size_t i = 0; i < kNumVectors; ++i) partials[i] = hn::Zero(d);
  for (size_t t = 0; t < padded; t += kNumPartials) {
    for (size_t i = 0; i < kNumVectors; ++i) {
      float* at = scores + t + i * kLanes;
      const Vector p = ExpOfNegative(d, hn::Sub(hn::LoadU(d, at), shift));
      hn::StoreU(p, d, at);
      partials[i] = hn::Add(partials[i], p);
    }
  }
  return ReducePartials(partials);
}

// out[h] = sum over t of weights[h][t] * value t, at the columns of kColumns
// vectors. Fetches what is at `next` meanwhile, a row for each position; null:
// nothing.
template <class T, size_t kHeads, size_t kColumns, class D>
HWY_INLINE void MixColumns(D d, const Scores* weights, const std::byte* values,
                           size_t num_positions, size_t head_dim,
                           const std::byte* next, float* out) {
  constexpr size_t kStep = hn::MaxLanes(D());
  hn::Vec<D> mix[kHeads][kColumns];
  HWY_UNROLL(8)
  for (size_t h = 0; h < kHeads; ++h) {
    HWY_UNROLL(8)
    for (size_t c = 0; c < kColumns; ++c) mix[h][c] = hn::Zero(d);
  }
  for (size_t t = 0; t < num_positions; ++t) {
    const std::byte* row = values + t * head_dim * sizeof(T);
    if (next != nullptr) {
      PrefetchRow(next + t * head_dim * sizeof(T), head_dim * sizeof(T));
    }
    hn::Vec<D> v[kColumns];
    HWY_UNROLL(8)
    for (size_t c = 0; c < kColumns; ++c) {
      v[c] = LoadElements<T>(d, row + c * kStep * sizeof(T));
    }
    HWY_UNROLL(8)
    for (size_t h = 0; h < kHeads; ++h) {
      const auto weight = hn::Set(d, weights[h][t]);
      HWY_UNROLL(8)
      for (size_t c = 0; c < kColumns; ++c) {
        mix[h][c] = hn::MulAdd(weight, v[c], mix[h][c]);
      }
    }
  }
  HWY_UNROLL(8)
  for (size_t h = 0; h < kHeads; ++h) {
    HWY_UNROLL(8)
    for (size_t c = 0; c < kColumns; ++c) {
      hn::StoreU(mix[h][c], d, out + h * head_dim + c * kStep);
    }
  }
}

template <class T, size_t kHeads>
HWY_NOINLINE void AttendHeads(const float* q, const std::byte* keys,
                              const std::byte* values, size_t num_positions,
                              size_t head_dim, float scale, float* mix,
                              float* max, float* sum) {
  HWY_ALIGN Scores scores[kHeads];
  Score<T, kHeads>(q, keys, values, num_positions, head_dim, scale, scores);
  for (size_t h = 0; h < kHeads; ++h) {
    sum[h] = Exponentiate(num_positions, scores[h], max[h]);
  }
  // As many as leave registers for values and a weight.
  constexpr size_t kColumns = kLanes == 16 ? 4 : 2;
  // Full segments have more behind them, mostly; that begins with keys.
  const std::byte* next = num_positions == kAttentionSegment
                              ? keys + num_positions * head_dim * sizeof(T)
                              : nullptr;
  size_t c = 0;
  for (; head_dim - c >= kColumns * kLanes; c += kColumns * kLanes) {
    MixColumns<T, kHeads, kColumns>(VectorTag(), scores, values + c * sizeof(T),
                                    num_positions, head_dim,
                                    c == 0 ? next : nullptr, mix + c);
  }
  for (; c < head_dim; ++c) {
    MixColumns<T, kHeads, 1>(LaneTag(), scores, values + c * sizeof(T),
                             num_positions, head_dim, c == 0 ? next : nullptr,
                             mix + c);
  }
}

template <class T>
HWY_INLINE void AttendSegmentOf(const float* q, size_t num_heads,
                                const void* keys, const void* values,
                                size_t num_positions, size_t head_dim,
                                float scale, float* part) {
  const auto* k = static_cast<const std::byte*>(keys);
  const auto* v = static_cast<const std::byte*>(values);
  float* max = part + num_heads * head_dim;
  float* sum = max + num_heads;
  size_t h = 0;
  for (; num_heads - h >= kGroup; h += kGroup) {
    AttendHeads<T, kGroup>(q + h * head_dim, k, v, num_positions, head_dim,
                           scale, part + h * head_dim, max + h, sum + h);
  }
  for (; h < num_heads; ++h) {
    AttendHeads<T, 1>(q + h * head_dim, k, v, num_positions, head_dim, scale,
                      part + h * head_dim, max + h, sum + h);
  }
}

void AttendSegment(const float* q, size_t num_heads, KvType type,
                   const void* keys, const void* values, size_t num_positions,
                   size_t head_dim, float scale, float* part) {
  if (type == KvType::kBf16) {
    AttendSegmentOf<Bf16>(q, num_heads, keys, values, num_positions, head_dim,
                          scale, part);
  } else {
    AttendSegmentOf<float>(q, num_heads, keys, values, num_positions, head_dim,
                           scale, part);
  }
}

template <class D>
HWY_INLINE void MergeAt(D d, const float* mix, const float* factors,
                        size_t part_floats, size_t num_segments, float sum,
                        float* out) {
  auto total = hn::Zero(d);
  for (size_t s = 0; s < num_segments * part_floats; s += part_floats) {
    total = hn::MulAdd(hn::LoadU(d, mix + s), hn::Set(d, factors[s]), total);
  }
  hn::StoreU(hn::Div(total, hn::Set(d, sum)), d, out);
}

void MergeSegments(size_t num_heads, size_t head_dim, size_t num_segments,
                   float* parts, float* out) {
  const LaneTag lane;
  const size_t part_floats = AttentionPartFloats(num_heads, head_dim);
  const size_t end = num_segments * part_floats;
  for (size_t h = 0; h < num_heads; ++h) {
    const float* mix = parts + h * head_dim;
    float* maxima = parts + num_heads * head_dim + h;  // Then factors.
    const float* sums = maxima + num_heads;
    float max = maxima[0];
    for (size_t s = 0; s < end; s += part_floats) {
      max = std::max(max, maxima[s]);
    }
    auto sum = hn::Zero(lane);
    for (size_t s = 0; s < end; s += part_floats) {
      const auto factor = ExpOfNegative(lane, hn::Set(lane, maxima[s] - max));
      maxima[s] = hn::GetLane(factor);
      sum = hn::MulAdd(hn::Set(lane, sums[s]), factor, sum);
    }
    const float total = hn::GetLane(sum);
    size_t c = 0;
    for (; head_dim - c >= kLanes; c += kLanes) {
      MergeAt(VectorTag(), mix + c, maxima, part_floats, num_segments, total,
              out + h * head_dim + c);
    }
    for (; c < head_dim; ++c) {
      MergeAt(lane, mix + c, maxima, part_floats, num_segments, total,
              out + h * head_dim + c);
    }
  }
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flashelm {

HWY_EXPORT(AttendSegment);
HWY_EXPORT(MergeSegments);

void AttendSegment(const float* q, size_t num_heads, KvType type,
                   const void* keys, const void* values, size_t num_positions,
                   size_t head_dim, float scale, float* part) {
  HWY_DYNAMIC_DISPATCH(AttendSegment)
  (q, num_heads, type, keys, values, num_positions, head_dim, scale, part);
}

void MergeSegments(size_t num_heads, size_t head_dim, size_t num_segments,
                   float* parts, float* out) {
  HWY_DYNAMIC_DISPATCH(MergeSegments)
  (num_heads, head_dim, num_segments, parts, out);
}

void Attend(const float* q, size_t num_heads, KvType type, const void* keys,
            const void* values, size_t num_positions, size_t head_dim,
            float scale, float* parts, float* out) {
  const size_t num_segments = NumAttentionSegments(num_positions);
  const size_t segment_bytes =
      kAttentionSegment * head_dim * ElementBytes(type);
  for (size_t s = 0; s < num_segments; ++s) {
    AttendSegment(
        q, num_heads, type,
        static_cast<const std::byte*>(keys) + s * segment_bytes,
        static_cast<const std::byte*>(values) + s * segment_bytes,
        std::min(kAttentionSegment, num_positions - s * kAttentionSegment),
        head_dim, scale, parts + s * AttentionPartFloats(num_heads, head_dim));
  }
  MergeSegments(num_heads, head_dim, num_segments, parts, out);
}

void StoreKv(const float* in, size_t n, KvType type, void* out) {
  if (n == 0) return;  // memcpy() takes no null pointers.
  if (type == KvType::kBf16) {
    ConvertF32ToBf16(in, n, static_cast<Bf16*>(out));
  } else {
    std::memcpy(out, in, n * sizeof(float));
  }
}

}  // namespace flashelm
#endif  // HWY_ONCE
