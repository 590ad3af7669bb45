#include "core/convert/encode.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cstring>

#include "kernels/float_types.h"
#include "kernels/quantize.h"

namespace flashelm {
namespace {

// Rows and columns of a transposed block: what it reads and what it writes stay
// in the first-level cache.
constexpr size_t kTile = kEncodeColumns;

uint32_t EncodedBytes(Encoding encoding) { return EncodingBits(encoding) / 8; }

// How many elements, read as unsigned with the sign cleared, reach `least`.
template <class T>
uint64_t CountAtLeast(const std::byte* in, size_t count, T least) {
  constexpr T kMagnitude = static_cast<T>(~T{0}) >> 1;
  const auto* values = reinterpret_cast<const T*>(in);
  uint64_t found = 0;
  for (size_t i = 0; i < count; ++i) found += (values[i] & kMagnitude) >= least;
  return found;
}

// tile [rows][kTile] to column i at out + i * stride_bytes.
template <class T>
void TransposeTile(const std::byte* tile, size_t rows, size_t columns,
                   std::byte* out, uint64_t stride_bytes) {
  const auto* in = reinterpret_cast<const T*>(tile);
  for (size_t i = 0; i < columns; ++i) {
    auto* column = reinterpret_cast<T*>(out + i * stride_bytes);
    for (size_t row = 0; row < rows; ++row) column[row] = in[row * kTile + i];
  }
}

}  // namespace

void Encode(ElementType type, const std::byte* in, size_t count,
            Encoding encoding, std::byte* out) {
  const auto* in16 = reinterpret_cast<const uint16_t*>(in);
  const auto* in32 = reinterpret_cast<const float*>(in);
  auto* out16 = reinterpret_cast<Bf16*>(out);
  auto* out32 = reinterpret_cast<float*>(out);
  const bool same = encoding == Encoding::kF32 ? type == ElementType::kF32
                                               : type == ElementType::kBf16;
  if (same) {  // Also keeps the payload of a NaN.
    std::memcpy(out, in, count * EncodedBytes(encoding));
  } else if (type == ElementType::kF32) {
    ConvertF32ToBf16(in32, count, out16);
  } else if (type == ElementType::kBf16) {
    ConvertBf16ToF32(in16, count, out32);
  } else if (encoding == Encoding::kF32) {
    ConvertF16ToF32(in16, count, out32);
  } else {
    std::array<float, 256> wide;
    for (size_t at = 0; at < count; at += wide.size()) {
      const size_t n = std::min(wide.size(), count - at);
      ConvertF16ToF32(in16 + at, n, wide.data());
      ConvertF32ToBf16(wide.data(), n, out16 + at);
    }
  }
}

void EncodeColumns(ElementType type, const std::byte* in,
                   uint64_t in_stride_bytes, size_t rows, size_t columns,
                   Encoding encoding, std::byte* out,
                   uint64_t out_stride_bytes) {
  assert(columns <= kEncodeColumns);
  alignas(64) std::array<std::byte, kTile * kTile * sizeof(float)> tile;
  const uint64_t encoded_bytes = EncodedBytes(encoding);
  for (size_t row = 0; row < rows; row += kTile) {
    const size_t tile_rows = std::min(kTile, rows - row);
    for (size_t i = 0; i < tile_rows; ++i) {
      Encode(type, in + (row + i) * in_stride_bytes, columns, encoding,
             tile.data() + i * kTile * encoded_bytes);
    }
    std::byte* to = out + row * encoded_bytes;
    if (encoded_bytes == 2) {
      TransposeTile<uint16_t>(tile.data(), tile_rows, columns, to,
                              out_stride_bytes);
    } else {
      TransposeTile<uint32_t>(tile.data(), tile_rows, columns, to,
                              out_stride_bytes);
    }
  }
}

uint64_t CountNonFiniteEncoded(ElementType type, const std::byte* in,
                               size_t count, Encoding encoding) {
  switch (type) {
    case ElementType::kF32:
      // From half a bf16 step below 2^128 on, rounding gives infinity.
      return CountAtLeast<uint32_t>(
          in, count, encoding == Encoding::kBf16 ? 0x7F7F8000u : 0x7F800000u);
    case ElementType::kBf16:
      return CountAtLeast<uint16_t>(in, count, 0x7F80);
    case ElementType::kF16:  // Every finite one is far inside bf16's range.
      return CountAtLeast<uint16_t>(in, count, 0x7C00);
    case ElementType::kOther:
      break;
  }
  return 0;
}

uint64_t CountUnquantizable(ElementType type, const std::byte* in,
                            size_t count) {
  constexpr auto kLargest = std::bit_cast<uint32_t>(kMaxQuantized);
  switch (type) {
    case ElementType::kF32:
      return CountAtLeast<uint32_t>(in, count, kLargest + 1);
    case ElementType::kBf16:
      return CountAtLeast<uint16_t>(in, count, (kLargest >> 16) + 1);
    case ElementType::kF16:  // Every finite one has.
      return CountAtLeast<uint16_t>(in, count, 0x7C00);
    case ElementType::kOther:
      break;
  }
  return 0;
}

}  // namespace flashelm
