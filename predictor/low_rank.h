// A predictor of two thin matrices, as in "LLM in a flash" (arXiv 2312.11514).
#ifndef FLASHELM_PREDICTOR_LOW_RANK_H_
#define FLASHELM_PREDICTOR_LOW_RANK_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/weight_view.h"
#include "predictor/predictor.h"

namespace flashelm {

// score = B (A x) + bias. A x is what Prepare() computes. Both products are in
// the canonical order of kernels/matmul.h, or of kernels/quant_matmul.h where
// the type is quantized: inputs are then rounded to eight bits.
//
// In bytes, little-endian, without gaps:
//   A     [rank, model_dim]    rows of weight_view.h
//   B     [num_neurons, rank]  likewise
//   bias  [num_neurons]        f32
class LowRankPredictor final : public Predictor {
 public:
  struct Shape {
    WeightType type;
    uint32_t num_neurons;
    uint32_t model_dim;
    uint32_t rank;
  };

  // Whether `shape` is one that this class can have: no width is 0 or above
  // kMaxDim, and model_dim and rank are whole groups of quantized weights.
  static bool IsValid(const Shape& shape);
  static constexpr uint32_t kMaxDim = uint32_t{1} << 24;

  // Of a valid shape. Needs no check against overflow.
  static uint64_t NumBytes(const Shape& shape);

  // Floats that Prepare() writes.
  static size_t PreparedFloats(const Shape& shape);

  // The matrices as bytes, rounded to the type of the shape. Where that is
  // quantized they are multiplied by powers of two first, for F16 to have their
  // scales, and scores by one.
  //   a, b, bias  as above, in f32, finite
  static std::vector<std::byte> Serialize(const Shape& shape, const float* a,
                                          const float* b, const float* bias);

  // A view of `bytes`, [NumBytes(shape)], which outlive it; any bytes will do,
  // at any address. `shape` is valid.
  LowRankPredictor(const Shape& shape, std::span<const std::byte> bytes,
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
  WeightView a_;
  WeightView b_;
  const std::byte* bias_;
  float threshold_;
};

}  // namespace flashelm

#endif  // FLASHELM_PREDICTOR_LOW_RANK_H_
