// Dot products of rows of 1-bit or 2-bit codes with whole numbers.
//
// A row is a whole number of blocks of 32 bytes, each of them 16 little-endian
// words of 16 bits. A block has 256 codes of 1 bit or 128 of 2 bits: code k has
// the bits from bits * (k / 16) on of word k % 16. So one shift of all words
// makes the next 16 codes, in order.
#ifndef FLASHELM_KERNELS_LOW_BIT_DOT_H_
#define FLASHELM_KERNELS_LOW_BIT_DOT_H_

#include <cstddef>
#include <cstdint>

namespace flashelm {

inline constexpr size_t kLowBitBlockBytes = 32;
inline constexpr size_t kLowBitWords = kLowBitBlockBytes / 2;
// So that 2^17 products fit 32 bits.
inline constexpr int kLowBitMaxActivation = 4095;
inline constexpr size_t kLowBitMaxCols = size_t{1} << 17;

// `bits` is 1 or 2 here and below.
constexpr size_t LowBitBlockCodes(unsigned bits) {
  return kLowBitBlockBytes * 8 / bits;
}

constexpr size_t LowBitNumBlocks(unsigned bits, size_t num_cols) {
  return (num_cols + LowBitBlockCodes(bits) - 1) / LowBitBlockCodes(bits);
}

// Sets code k of a row whose bits there are 0.
inline void PutLowBitCode(unsigned bits, size_t k, unsigned code,
                          std::byte* row) {
  const size_t in_block = k % LowBitBlockCodes(bits);
  const size_t bit = in_block / kLowBitWords * bits;
  row[k / LowBitBlockCodes(bits) * kLowBitBlockBytes +
      in_block % kLowBitWords * 2 + bit / 8] |=
      static_cast<std::byte>(code << bit % 8);
}

// out[r] = sum over k of code(r, k) * a[k], exactly, so that all targets agree.
//   rows  [num_rows, num_blocks * kLowBitBlockBytes]  at any address
//   a     [num_blocks * LowBitBlockCodes(bits)]  magnitudes up to
//         kLowBitMaxActivation; at most kLowBitMaxCols are not 0
//   out   [num_rows]  overlaps no input
// Sizes may be 0. Nothing past the end of the rows is read.
void LowBitDots(unsigned bits, const std::byte* rows, size_t num_rows,
                size_t num_blocks, const int16_t* a, int32_t* out);

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_LOW_BIT_DOT_H_
