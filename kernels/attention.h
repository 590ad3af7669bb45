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

// One kv head and the query heads that share it, for one query position that
// sees all the keys given: out_h = sum over t of softmax(scale * q_h . k_t) v_t
//   q             [num_heads, head_dim]
//   keys, values  [num_positions, head_dim] of `type`; num_positions >= 1
//   out           [num_heads, head_dim]; overlaps no input
// All contiguous. No alignment beyond the element's; nothing past the ends is
// read. Scores must be finite. Uses about 2 KiB of stack for any head_dim.
//
// Order, for each head alone, so that its bits do not depend on which heads are
// given together: positions in blocks of 64, ascending. In a block,
//   s_t = dot(q, k_t) * scale, the dot in the canonical order of matmul.h
//   m'  = max(m, all s_t)         m is the maximum of the blocks before
//   p_t = exp(s_t - m')           absent positions of the last block have p = 0
//   sum = sum * exp(m - m') + block sum      t and t + 32 first, then the tree
//   out = fma(out, exp(m - m'), block mix)   fma from zero, t ascending
// and at the end out / sum. Targets agree as in matmul.h.
//
// Differs from reference::Attend by at most
// ((head_dim / 16 + 20) D + num_positions / 16 + 64) epsilon times the softmax
// mix of |v_t|, where D is the largest scale * |q| . |k_t|.
void Attend(const float* q, size_t num_heads, KvType type, const void* keys,
            const void* values, size_t num_positions, size_t head_dim,
            float scale, float* out);

// Stores keys or values in the cache's format; bf16 is rounded to nearest even.
//   in   [n]
//   out  [n] of `type`, aligned to an element; does not overlap in
void StoreKv(const float* in, size_t n, KvType type, void* out);

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_ATTENTION_H_
