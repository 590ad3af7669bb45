// Attention of one position: scores, softmax and the mix of the values.
#ifndef FLASHELM_KERNELS_ATTENTION_H_
#define FLASHELM_KERNELS_ATTENTION_H_

#include <cstddef>
#include <cstdint>

namespace flashelm {

// How keys and values are kept.
enum class KvType : uint8_t { kF32, kBf16 };

constexpr size_t ElementBytes(KvType type) {
  return type == KvType::kF32 ? 4 : 2;
}

// Positions of the past that are attended to on their own; where segments begin
// and end is part of the result.
inline constexpr size_t kAttentionSegment = 256;

constexpr size_t NumAttentionSegments(size_t num_positions) {
  return (num_positions + kAttentionSegment - 1) / kAttentionSegment;
}

// Floats of one segment's part of the result, in whole cache lines:
//   [num_heads, head_dim] mixed values, then [num_heads] maxima of the scores,
//   then [num_heads] sums
constexpr size_t AttentionPartFloats(size_t num_heads, size_t head_dim) {
  return (num_heads * (head_dim + 2) + 15) / 16 * 16;
}

// One kv head and the query heads that share it, for one query position that
// sees all the keys given: out_h = sum over t of softmax(scale * q_h . k_t) v_t
//   q             [num_heads, head_dim]
//   keys, values  [num_positions, head_dim] of `type`; num_positions >= 1
//   parts         workspace, [NumAttentionSegments(num_positions),
//                 AttentionPartFloats(num_heads, head_dim)]
//   out           [num_heads, head_dim]; overlaps no input
// All contiguous. No alignment beyond the element's; nothing past the ends is
// read. Scores must be finite. Uses about 5 KiB of stack for any head_dim.
//
// Order, for each head alone, so that its bits do not depend on which heads are
// given together: positions in segments of 256, each on its own:
//   s_t = dot(q, k_t) * scale, the dot in the canonical order of matmul.h
//   m   = max of all s_t
//   p_t = exp(s_t - m)
//   sum = that of p_t, in 32 interleaved partial sums from zero, t ascending;
//         those are added up by the tree of matmul.h
//   mix = fma(p_t, v_t, mix) from zero, t ascending
// Then with M the maximum of all m, segments ascending from zero:
//   f = exp(m - M), total = fma(sum, f, total), out = fma(mix, f, out)
// and at the end out / total. Targets agree as in matmul.h.
//
// Differs from reference::Attend by at most
// ((head_dim / 16 + 20) D + num_positions / 256 + 320) epsilon times the
// softmax mix of |v_t|, where D is the largest scale * |q| . |k_t|.
//
// Derivation. Let u = epsilon / 2, a rounding's relative error. A score errs by
// (head_dim / 32 + 6) u D in its dot, see MatMul(), and by u D when scaled;
// s_t - m and m - M by u times what is 2 D together. Errors of m and M cancel.
// Two exps err by 2 u each (Highway says 1 ulp). So a weight errs by a relative
// ((head_dim / 32 + 9) D + 4) u, in the mix and in the total. More roundings:
// 256 in a segment's mix, 7 + 5 in its sum, one of each for every segment that
// is merged, and the quotient's. Of num_positions / 256 + 1 segments, that is
//   ((head_dim / 32 + 9) D + num_positions / 256 + 139.5) epsilon
// to first order. Twice the D part is for e^a - 1 <= 2 a, which holds where the
// bound's D part times epsilon is at most 1; the other 180 are for products of
// errors, up to 2^23 positions. Underflow is not counted: a weight below the
// least normal number errs by up to a least subnormal, or vanishes.
void Attend(const float* q, size_t num_heads, KvType type, const void* keys,
            const void* values, size_t num_positions, size_t head_dim,
            float scale, float* parts, float* out);

// The two halves of Attend(), for threads to share a head's past.
// Of one segment, 1 to 256 positions: writes its part.
void AttendSegment(const float* q, size_t num_heads, KvType type,
                   const void* keys, const void* values, size_t num_positions,
                   size_t head_dim, float scale, float* part);
// Of all parts, [num_segments] one after the other, which are lost.
void MergeSegments(size_t num_heads, size_t head_dim, size_t num_segments,
                   float* parts, float* out);

// Stores keys or values in the cache's format; bf16 is rounded to nearest even.
//   in   [n]
//   out  [n] of `type`, aligned to an element; does not overlap in
void StoreKv(const float* in, size_t n, KvType type, void* out);

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_ATTENTION_H_
