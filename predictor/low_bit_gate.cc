#include "predictor/low_bit_gate.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "kernels/float_types.h"
#include "kernels/low_bit_dot.h"

namespace flashelm {
namespace {

// What Prepare() leaves; the whole numbers follow.
struct PreparedHeader {
  float scale;
  int32_t sum;  // Of the whole numbers.
};
constexpr size_t kHeaderFloats = sizeof(PreparedHeader) / sizeof(float);

size_t RowBytes(const LowBitGate::Shape& shape) {
  return LowBitNumBlocks(shape.bits, shape.model_dim) * kLowBitBlockBytes;
}

// With one bit the squared error sum((|w| - s)^2) is least for the mean of |w|.
float OneBitScale(const float* row, size_t num_cols) {
  double sum = 0;
  for (size_t k = 0; k < num_cols; ++k) sum += std::abs(row[k]);
  return static_cast<float>(sum / static_cast<double>(num_cols));
}

// With two bits, the best codes for a scale s give the outer level to all
// |w| > 2 s: to the m largest. For each m the best scale is
//   s = sum(level |w|) / sum(level^2)
// and the squared error sum(w^2) - sum(level |w|)^2 / sum(level^2), so that
// trying every m finds the least of all.
//   sorted  [num_cols]  worked in
float TwoBitScale(const float* row, size_t num_cols, float* sorted) {
  double inner = 0;
  for (size_t k = 0; k < num_cols; ++k) {
    sorted[k] = std::abs(row[k]);
    inner += sorted[k];
  }
  std::sort(sorted, sorted + num_cols, std::greater<>());
  double level_sum = inner;
  auto square_sum = static_cast<double>(num_cols);
  double best_gain = level_sum * level_sum / square_sum;
  double best_scale = level_sum / square_sum;
  for (size_t m = 0; m < num_cols; ++m) {
    level_sum += 2 * static_cast<double>(sorted[m]);
    square_sum += 8;
    const double gain = level_sum * level_sum / square_sum;
    if (gain > best_gain) {
      best_gain = gain;
      best_scale = level_sum / square_sum;
    }
  }
  return static_cast<float>(best_scale);
}

}  // namespace

bool LowBitGate::IsValid(const Shape& shape) {
  return (shape.bits == 1 || shape.bits == 2) && shape.model_dim > 0 &&
         shape.model_dim <= kLowBitMaxCols;
}

uint64_t LowBitGate::NumBytes(const Shape& shape) {
  return uint64_t{shape.num_neurons} * (RowBytes(shape) + sizeof(float));
}

void LowBitGate::Quantize(const Shape& shape, const float* rows, size_t first,
                          size_t num_rows, std::span<std::byte> bytes) {
  assert(IsValid(shape) && bytes.size() == NumBytes(shape));
  assert(first + num_rows <= shape.num_neurons);
  const size_t row_bytes = RowBytes(shape);
  std::byte* scales = bytes.data() + shape.num_neurons * row_bytes;
  std::vector<float> sorted(shape.bits == 2 ? shape.model_dim : 0);
  for (size_t r = 0; r < num_rows; ++r) {
    const float* row = rows + r * shape.model_dim;
    const float scale = shape.bits == 1
                            ? OneBitScale(row, shape.model_dim)
                            : TwoBitScale(row, shape.model_dim, sorted.data());
    std::memcpy(scales + (first + r) * sizeof(scale), &scale, sizeof(scale));
    std::byte* codes = bytes.data() + (first + r) * row_bytes;
    std::memset(codes, 0, row_bytes);
    for (size_t k = 0; k < shape.model_dim; ++k) {
      unsigned code = row[k] < 0 ? 0 : 1;
      if (shape.bits == 2) {
        const bool is_outer = std::abs(row[k]) > 2 * scale;
        code = row[k] < 0 ? (is_outer ? 0 : 1) : (is_outer ? 3 : 2);
      }
      PutLowBitCode(shape.bits, k, code, codes);
    }
  }
}

LowBitGate::LowBitGate(const Shape& shape, std::span<const std::byte> bytes,
                       float threshold)
    : shape_(shape),
      codes_(bytes.data()),
      scales_(bytes.data() + shape.num_neurons * RowBytes(shape)),
      threshold_(threshold) {
  assert(IsValid(shape) && bytes.size() == NumBytes(shape));
}

size_t LowBitGate::PreparedFloats(const Shape& shape) {
  const size_t num_codes = LowBitNumBlocks(shape.bits, shape.model_dim) *
                           LowBitBlockCodes(shape.bits);
  return kHeaderFloats + num_codes * sizeof(int16_t) / sizeof(float);
}

void LowBitGate::Prepare(const float* x, float* prepared) const {
  const size_t num_cols = shape_.model_dim;
  PreparedHeader header = {0, 0};
  auto* a = reinterpret_cast<int16_t*>(prepared + kHeaderFloats);
  std::memset(a, 0, (prepared_floats() - kHeaderFloats) * sizeof(float));

  float amax = 0;
  for (size_t k = 0; k < num_cols; ++k) amax = std::max(amax, std::abs(x[k]));
  if (CountNonFinite(x, num_cols) > 0) {
    header.scale = std::numeric_limits<float>::quiet_NaN();
  } else if (amax >= 0x1p-80f) {
    header.scale = amax / kLowBitMaxActivation;
    const float inverse = kLowBitMaxActivation / amax;
    // Adding it leaves no bits for a fraction.
    constexpr float kRounder = 0x1.8p23f;
    for (size_t k = 0; k < num_cols; ++k) {
      const float rounded = (x[k] * inverse + kRounder) - kRounder;
      a[k] = static_cast<int16_t>(rounded);
      header.sum += a[k];
    }
  }
  std::memcpy(prepared, &header, sizeof(header));
}

void LowBitGate::Score(const float* prepared, size_t begin, size_t end,
                       float* scores) const {
  PreparedHeader header;
  std::memcpy(&header, prepared, sizeof(header));
  const auto* a = reinterpret_cast<const int16_t*>(prepared + kHeaderFloats);
  const size_t num_blocks = LowBitNumBlocks(shape_.bits, shape_.model_dim);
  const int32_t max_code = (1 << shape_.bits) - 1;
  constexpr size_t kChunk = 64;
  int32_t sums[kChunk];
  for (size_t first = begin; first < end; first += kChunk) {
    const size_t count = std::min(kChunk, end - first);
    LowBitDots(shape_.bits, codes_ + first * num_blocks * kLowBitBlockBytes,
               count, num_blocks, a, sums);
    for (size_t i = 0; i < count; ++i) {
      float scale;
      std::memcpy(&scale, scales_ + (first + i) * sizeof(scale), sizeof(scale));
      // In 64 bits: the sums are as large as 32 bits hold.
      const int64_t sum = 2 * int64_t{sums[i]} - int64_t{max_code} * header.sum;
      scores[first + i] = static_cast<float>(sum) * (scale * header.scale);
    }
  }
}

}  // namespace flashelm
