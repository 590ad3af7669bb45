// How quantized tokens lie in memory, on all SIMD targets.
#ifndef FLASHELM_KERNELS_QUANT_TOKENS_H_
#define FLASHELM_KERNELS_QUANT_TOKENS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/weight_view.h"

namespace flashelm {

// Where a token is by itself, it is a row of these, zero where its columns do
// not fill the last one. The eight groups of a block are the eight partial sums
// of the canonical order, and they come as pairs of two neighbours:
//   codes  [4 pairs][2 halves][2 groups][16]
//   scales, sums_by_8  [2][4 pairs]   first the even groups, then the odd ones
struct alignas(64) TokenBlock {
  int8_t codes[256];
  float scales[8];
  int32_t sums_by_8[8];  // 8 times the sum of a group's codes.
};
constexpr size_t kBlockGroups = 8;

// In a batch four tokens lie together, one of these for every group. The codes
// of four columns are loaded at once, for a row of weights in each lane.
struct alignas(32) TileGroup {
  static constexpr size_t kTokens = 4;
  int8_t codes[kQuantGroup / 4][kTokens][4];
  float scales[kTokens];
  int32_t sums_by_8[kTokens];
};

constexpr size_t NumBlocks(size_t num_groups) {
  return (num_groups + kBlockGroups - 1) / kBlockGroups;
}

constexpr size_t NumTiles(size_t num_tokens) {
  return (num_tokens + TileGroup::kTokens - 1) / TileGroup::kTokens;
}

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_QUANT_TOKENS_H_
