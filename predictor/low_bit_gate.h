// The gate matrix of a layer at one or two bits, as a predictor: the score of a
// neuron is its gate, approximately.
#ifndef FLASHELM_PREDICTOR_LOW_BIT_GATE_H_
#define FLASHELM_PREDICTOR_LOW_BIT_GATE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "predictor/predictor.h"

namespace flashelm {

// A code c of b bits stands for scale * (2 c - (2^b - 1)), which is -scale and
// scale with one bit, -3, -1, 1 and 3 times scale with two. Every row has the
// scale, and with it the codes, of the least squared error among all.
//
// In bytes, little-endian, without gaps:
//   codes   [num_neurons, LowBitNumBlocks(bits, model_dim), 32]  as in
//           kernels/low_bit_dot.h; 0 after the last column
//   scales  [num_neurons] f32
//
// The input is rounded to 13 bits: with amax = max |x[k]|, a[k] is
// x[k] * (4095 / amax) to the nearest whole number, ties to even, or all of it
// 0 where amax < 2^-80. With the whole numbers added exactly,
//   score = sum((2 c[k] - (2^b - 1)) a[k]) * (scale * (amax / 4095)),
// each operation rounded to f32. So all SIMD targets give the same bits. All
// scores are NaN where x has a NaN or an infinity.
class LowBitGate final : public Predictor {
 public:
  struct Shape {
    unsigned bits;  // 1 or 2.
    uint32_t num_neurons;
    uint32_t model_dim;  // At most kLowBitMaxCols.
  };

  // Whether `shape` is one that this class can have.
  static bool IsValid(const Shape& shape);

  // Of a valid shape. Needs no check against overflow.
  static uint64_t NumBytes(const Shape& shape);
  // Floats that Prepare() writes.
  static size_t PreparedFloats(const Shape& shape);

  // Writes the rows [first, first + num_rows) of the gate matrix to their
  // places in `bytes`. Rows may come in several calls, in any order; calls for
  // different rows may overlap in time.
  //   rows   [num_rows, model_dim], finite
  //   bytes  [NumBytes(shape)], for all rows
  // Allocates [model_dim] floats with two bits.
  static void Quantize(const Shape& shape, const float* rows, size_t first,
                       size_t num_rows, std::span<std::byte> bytes);

  // A view of `bytes`, [NumBytes(shape)], which outlive it; any bytes will do,
  // at any address. `shape` is valid.
  LowBitGate(const Shape& shape, std::span<const std::byte> bytes,
             float threshold);

  size_t model_dim() const override { return shape_.model_dim; }
  size_t num_neurons() const override { return shape_.num_neurons; }
  size_t num_bytes() const override { return NumBytes(shape_); }
  size_t prepared_floats() const override { return PreparedFloats(shape_); }
  float threshold() const override { return threshold_; }
  void Prepare(const float* x, float* prepared) const override;
  void Score(const float* prepared, size_t begin, size_t end,
             float* scores) const override;

 private:
  Shape shape_;
  const std::byte* codes_;
  const std::byte* scales_;
  float threshold_;
};

}  // namespace flashelm

#endif  // FLASHELM_PREDICTOR_LOW_BIT_GATE_H_
