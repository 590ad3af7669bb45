// Where the rows of a weight matrix lie, and how their elements are encoded.
#ifndef FLASHELM_KERNELS_WEIGHT_VIEW_H_
#define FLASHELM_KERNELS_WEIGHT_VIEW_H_

#include <cstddef>
#include <cstdint>

namespace flashelm {

enum class WeightType : uint8_t { kF32, kBf16, kQ8, kQ4 };

// q8 and q4 are codes with one scale for every group of 32 along a row; a row
// is a whole number of groups. The codes of a row come first, then its scales,
// which are F16:
//
//   q4  w = (n - 8) d       n in [0, 15]. Byte j of a group's 16 has the n of
//                           its element j in the low half, of its element
//                           16 + j in the high half.
//   q8  w = q (d / 16)      q in [-128, 119], a byte each, in order.
//
// With q = 16 (n - 8) + l, l in [-8, 7], the n of a q8 row and its scales are a
// q4 row. A code times its scale is exact in f32.
inline constexpr size_t kQuantGroup = 32;

constexpr bool IsQuantized(WeightType type) {
  return type == WeightType::kQ8 || type == WeightType::kQ4;
}

// Bytes of the elements of a row, or of a part of it that is whole groups;
// scales come on top.
constexpr size_t ElementsBytes(WeightType type, size_t num_elements) {
  switch (type) {
    case WeightType::kF32:
      return num_elements * 4;
    case WeightType::kBf16:
      return num_elements * 2;
    case WeightType::kQ8:
      return num_elements;
    case WeightType::kQ4:
      return num_elements / 2;
  }
  return 0;
}

constexpr size_t ScalesBytes(WeightType type, size_t num_elements) {
  return IsQuantized(type) ? num_elements / kQuantGroup * 2 : 0;
}

// A row with its scales.
constexpr size_t RowBytes(WeightType type, size_t num_elements) {
  return ElementsBytes(type, num_elements) + ScalesBytes(type, num_elements);
}

// A matrix that lies in memory as records: row r begins at
// data + r * stride_bytes and its elements follow each other. Any address and
// any stride will do, so that a row can be a part of a bundle. Owns nothing:
// whoever made the view keeps the memory alive.
struct WeightView {
  const std::byte* data;
  size_t stride_bytes;
  WeightType type;
  // Of a quantized matrix: row r has its scales at scales + r * stride_bytes.
  const std::byte* scales = nullptr;
};

// A view of rows that are laid out as above, scales behind the codes.
constexpr WeightView ViewOfRows(const std::byte* data, size_t stride_bytes,
                                WeightType type, size_t num_cols) {
  return {data, stride_bytes, type,
          IsQuantized(type) ? data + ElementsBytes(type, num_cols) : nullptr};
}

// The same matrix from row `row` and column `col` on; `col` is a whole number
// of groups where the matrix is quantized.
constexpr WeightView Submatrix(WeightView view, size_t row, size_t col) {
  view.data += row * view.stride_bytes + ElementsBytes(view.type, col);
  if (view.scales != nullptr) {
    view.scales += row * view.stride_bytes + ScalesBytes(view.type, col);
  }
  return view;
}

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_WEIGHT_VIEW_H_
