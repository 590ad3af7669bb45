// Where the rows of a weight matrix lie, and how their elements are encoded.
#ifndef FLASHELM_KERNELS_WEIGHT_VIEW_H_
#define FLASHELM_KERNELS_WEIGHT_VIEW_H_

#include <cstddef>
#include <cstdint>

namespace flashelm {

enum class WeightType : uint8_t { kF32, kBf16 };

constexpr size_t ElementBytes(WeightType type) {
  return type == WeightType::kF32 ? 4 : 2;
}

// A matrix that lies in memory as records: row r begins at
// data + r * stride_bytes and its elements follow each other. Any address and
// any stride will do, so that a row can be a part of a bundle. Owns nothing:
// whoever made the view keeps the memory alive.
struct WeightView {
  const std::byte* data;
  size_t stride_bytes;
  WeightType type;
};

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_WEIGHT_VIEW_H_
