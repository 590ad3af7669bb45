// How quantized tokens lie in memory, on all SIMD targets.
#ifndef FLASHELM_KERNELS_QUANT_TOKENS_H_
#define FLASHELM_KERNELS_QUANT_TOKENS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/weight_view.h"

namespace flashelm {

// A token is a row of these, zero where its columns do not fill the last one.
// The eight groups of a block are the eight partial sums of the canonical
// order, and they come as pairs of two neighbours:
//   codes  [4 pairs][2 halves][2 groups][16]
//   scales, offsets  [2][4 pairs]   first the even groups, then the odd ones
struct alignas(64) TokenBlock {
  int8_t codes[256];
  float scales[8];
  // -8 times the sum of a group's codes: what makes n of q4 to n - 8.
  int32_t offsets[8];

  // Where group j of the block has its scale and offset, the first half of its
  // codes, and how much further the second half begins.
  static constexpr size_t ScaleIndex(size_t j) { return j % 2 * 4 + j / 2; }
  static constexpr size_t CodesIndex(size_t j) {
    return j / 2 * 2 * kQuantGroup + j % 2 * 16;
  }
  static constexpr size_t kHalfStride = kQuantGroup;
};
constexpr size_t kBlockGroups = 8;

constexpr size_t NumBlocks(size_t num_groups) {
  return (num_groups + kBlockGroups - 1) / kBlockGroups;
}

// Of a batch, the most rows that are multiplied at once. They are copied to the
// workspace, with codes of a byte and scales of f32.
constexpr size_t kMaxPanelRows = 32;
constexpr size_t kMaxPanelGroupBytes =
    kMaxPanelRows * (kQuantGroup + sizeof(float));

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_QUANT_TOKENS_H_
