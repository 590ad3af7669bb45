#include "kernels/attention.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>

#include "kernels/float_types.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/dot-inl.h"
#include "kernels/exp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {

constexpr size_t kBlockPositions = 64;
static_assert(kBlockPositions == 2 * kNumPartials);

// The softmax so far of one head.
struct Softmax {
  float max = -std::numeric_limits<float>::infinity();
  float sum = 0;
  float correction = 0;  // What the values mixed before are to be scaled by.
};

// scores[h][t] = dot(query h, key t) for the positions of a block.
template <class T, size_t kHeads>
HWY_INLINE void Score(const float* q, const std::byte* keys,
                      size_t num_positions, size_t head_dim,
                      float (*scores)[kBlockPositions]) {
  constexpr size_t kRows = kLanes == 16 ? 2 : 1;
  const size_t row_bytes = head_dim * sizeof(T);
  size_t t = 0;
  for (; num_positions - t >= kRows; t += kRows) {
    Dots<T, kRows, kHeads>(keys + t * row_bytes, row_bytes, q, head_dim,
                           head_dim, scores[0] + t, kBlockPositions);
  }
  if constexpr (kRows > 1) {
    for (; t < num_positions; ++t) {
      Dots<T, 1, kHeads>(keys + t * row_bytes, row_bytes, q, head_dim, head_dim,
                         scores[0] + t, kBlockPositions);
    }
  }
}

// Turns the dots of a block into exp(score - maximum) and takes their maximum
// and sum into `softmax`.
HWY_INLINE void UpdateSoftmax(float scale, size_t num_positions,
                              float (&block)[kBlockPositions],
                              Softmax& softmax) {
  const VectorTag d;
  const float old_max = softmax.max;
  for (size_t t = 0; t < num_positions; ++t) {
    block[t] *= scale;
    softmax.max = std::max(softmax.max, block[t]);
  }
  for (size_t t = num_positions; t < kBlockPositions; ++t) {
    block[t] = -std::numeric_limits<float>::infinity();
  }
  const Vector max = hn::Set(d, softmax.max);
  for (size_t t = 0; t < kBlockPositions; t += kLanes) {
    const Vector shifted = hn::Sub(hn::LoadU(d, block + t), max);
    hn::StoreU(ExpOfNegative(d, shifted), d, block + t);
  }
  Vector partials[kNumVectors];
  for (size_t i = 0; i < kNumVectors; ++i) {
    const float* p = block + i * kLanes;
    partials[i] = hn::Add(hn::LoadU(d, p), hn::LoadU(d, p + kNumPartials));
  }
  softmax.correction =
      hn::GetLane(ExpOfNegative(d, hn::Sub(hn::Set(d, old_max), max)));
  softmax.sum = softmax.sum * softmax.correction + ReducePartials(partials);
}

// Mixes a block's values into `out` at the columns of kColumns vectors.
template <class T, size_t kHeads, size_t kColumns, class D>
HWY_INLINE void MixColumns(D d, const float (*p)[kBlockPositions],
                           const Softmax* softmax, const std::byte* values,
                           size_t num_positions, size_t head_dim, bool is_first,
                           float* out) {
  constexpr size_t kStep = hn::MaxLanes(D());
  hn::Vec<D> mix[kHeads][kColumns];
  HWY_UNROLL(8)
  for (size_t h = 0; h < kHeads; ++h) {
    HWY_UNROLL(8)
    for (size_t c = 0; c < kColumns; ++c) mix[h][c] = hn::Zero(d);
  }
  for (size_t t = 0; t < num_positions; ++t) {
    const std::byte* row = values + t * head_dim * sizeof(T);
    hn::Vec<D> v[kColumns];
    HWY_UNROLL(8)
    for (size_t c = 0; c < kColumns; ++c) {
      v[c] = LoadElements<T>(d, row + c * kStep * sizeof(T));
    }
    HWY_UNROLL(8)
    for (size_t h = 0; h < kHeads; ++h) {
      const auto weight = hn::Set(d, p[h][t]);
      HWY_UNROLL(8)
      for (size_t c = 0; c < kColumns; ++c) {
        mix[h][c] = hn::MulAdd(weight, v[c], mix[h][c]);
      }
    }
  }
  HWY_UNROLL(8)
  for (size_t h = 0; h < kHeads; ++h) {
    const auto correction = hn::Set(d, softmax[h].correction);
    HWY_UNROLL(8)
    for (size_t c = 0; c < kColumns; ++c) {
      float* to = out + h * head_dim + c * kStep;
      if (is_first) {  // What `out` holds is not ours, perhaps NaN.
        hn::StoreU(mix[h][c], d, to);
      } else {
        hn::StoreU(hn::MulAdd(hn::LoadU(d, to), correction, mix[h][c]), d, to);
      }
    }
  }
}

template <class D>
HWY_INLINE void DivideAt(D d, float sum, float* out) {
  hn::StoreU(hn::Div(hn::LoadU(d, out), hn::Set(d, sum)), d, out);
}

// Heads that share the loads of keys and values.
template <class T, size_t kHeads>
HWY_NOINLINE void AttendHeads(const float* q, const std::byte* keys,
                              const std::byte* values, size_t num_positions,
                              size_t head_dim, float scale, float* out) {
  HWY_ALIGN float block[kHeads][kBlockPositions];
  Softmax softmax[kHeads];
  const size_t row_bytes = head_dim * sizeof(T);
  for (size_t first = 0; first < num_positions; first += kBlockPositions) {
    const size_t count = std::min(kBlockPositions, num_positions - first);
    const std::byte* block_values = values + first * row_bytes;
    Score<T, kHeads>(q, keys + first * row_bytes, count, head_dim, block);
    for (size_t h = 0; h < kHeads; ++h) {
      UpdateSoftmax(scale, count, block[h], softmax[h]);
    }
    constexpr size_t kColumns = 2;
    size_t c = 0;
    for (; head_dim - c >= kColumns * kLanes; c += kColumns * kLanes) {
      MixColumns<T, kHeads, kColumns>(VectorTag(), block, softmax,
                                      block_values + c * sizeof(T), count,
                                      head_dim, first == 0, out + c);
    }
    for (; c < head_dim; ++c) {
      MixColumns<T, kHeads, 1>(LaneTag(), block, softmax,
                               block_values + c * sizeof(T), count, head_dim,
                               first == 0, out + c);
    }
  }
  for (size_t h = 0; h < kHeads; ++h) {
    float* head = out + h * head_dim;
    size_t c = 0;
    for (; head_dim - c >= kLanes; c += kLanes) {
      DivideAt(VectorTag(), softmax[h].sum, head + c);
    }
    for (; c < head_dim; ++c) DivideAt(LaneTag(), softmax[h].sum, head + c);
  }
}

template <class T>
HWY_INLINE void AttendOf(const float* q, size_t num_heads, const void* keys,
                         const void* values, size_t num_positions,
                         size_t head_dim, float scale, float* out) {
  const auto* k = static_cast<const std::byte*>(keys);
  const auto* v = static_cast<const std::byte*>(values);
  constexpr size_t kHeads = 4;  // A group in every OpenELM model.
  size_t h = 0;
  for (; num_heads - h >= kHeads; h += kHeads) {
    AttendHeads<T, kHeads>(q + h * head_dim, k, v, num_positions, head_dim,
                           scale, out + h * head_dim);
  }
  for (; h < num_heads; ++h) {
    AttendHeads<T, 1>(q + h * head_dim, k, v, num_positions, head_dim, scale,
                      out + h * head_dim);
  }
}

void Attend(const float* q, size_t num_heads, KvType type, const void* keys,
            const void* values, size_t num_positions, size_t head_dim,
            float scale, float* out) {
  if (type == KvType::kBf16) {
    AttendOf<Bf16>(q, num_heads, keys, values, num_positions, head_dim, scale,
                   out);
  } else {
    AttendOf<float>(q, num_heads, keys, values, num_positions, head_dim, scale,
                    out);
  }
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flashelm {

HWY_EXPORT(Attend);

void Attend(const float* q, size_t num_heads, KvType type, const void* keys,
            const void* values, size_t num_positions, size_t head_dim,
            float scale, float* out) {
  HWY_DYNAMIC_DISPATCH(Attend)
  (q, num_heads, type, keys, values, num_positions, head_dim, scale, out);
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
