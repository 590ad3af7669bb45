#include "predictor/low_rank.h"

#include <cassert>
#include <cstring>

#include "kernels/float_types.h"
#include "kernels/matmul.h"

namespace flashelm {
namespace {

uint64_t MatrixBytes(WeightType type, uint64_t num_rows, uint64_t num_cols) {
  return num_rows * ElementsBytes(type, num_cols);
}

std::byte* Put(WeightType type, const float* values, size_t count,
               std::byte* out) {
  for (size_t i = 0; i < count; ++i) {
    if (type == WeightType::kBf16) {
      const Bf16 value = Bf16FromF32(values[i]);
      std::memcpy(out + i * sizeof(value), &value, sizeof(value));
    } else {
      std::memcpy(out + i * sizeof(float), values + i, sizeof(float));
    }
  }
  return out + ElementsBytes(type, count);
}

}  // namespace

bool LowRankPredictor::IsValid(const Shape& shape) {
  if (shape.type != WeightType::kF32 && shape.type != WeightType::kBf16) {
    return false;
  }
  for (const uint32_t dim : {shape.num_neurons, shape.model_dim, shape.rank}) {
    if (dim == 0 || dim > kMaxDim) return false;
  }
  return true;
}

uint64_t LowRankPredictor::NumBytes(const Shape& shape) {
  return MatrixBytes(shape.type, shape.rank, shape.model_dim) +
         MatrixBytes(shape.type, shape.num_neurons, shape.rank) +
         uint64_t{shape.num_neurons} * sizeof(float);
}

std::vector<std::byte> LowRankPredictor::Serialize(const Shape& shape,
                                                   const float* a,
                                                   const float* b,
                                                   const float* bias) {
  assert(IsValid(shape));
  std::vector<std::byte> bytes(NumBytes(shape));
  const size_t rank = shape.rank;
  std::byte* out = Put(shape.type, a, rank * shape.model_dim, bytes.data());
  out = Put(shape.type, b, shape.num_neurons * rank, out);
  Put(WeightType::kF32, bias, shape.num_neurons, out);
  return bytes;
}

LowRankPredictor::LowRankPredictor(const Shape& shape,
                                   std::span<const std::byte> bytes,
                                   float threshold)
    : shape_(shape),
      a_{bytes.data(), ElementsBytes(shape.type, shape.model_dim), shape.type},
      b_{bytes.data() + MatrixBytes(shape.type, shape.rank, shape.model_dim),
         ElementsBytes(shape.type, shape.rank), shape.type},
      bias_(b_.data + MatrixBytes(shape.type, shape.num_neurons, shape.rank)),
      threshold_(threshold) {
  assert(IsValid(shape) && bytes.size() == NumBytes(shape));
}

void LowRankPredictor::Prepare(const float* x, float* prepared) const {
  MatMul(a_, shape_.rank, shape_.model_dim, x, shape_.model_dim, 1, prepared,
         shape_.rank);
}

void LowRankPredictor::Score(const float* prepared, size_t begin, size_t end,
                             float* scores) const {
  MatMul(Submatrix(b_, begin, 0), end - begin, shape_.rank, prepared,
         shape_.rank, 1, scores + begin, end - begin);
  for (size_t i = begin; i < end; ++i) {
    float bias;
    std::memcpy(&bias, bias_ + i * sizeof(bias), sizeof(bias));
    scores[i] += bias;
  }
}

}  // namespace flashelm
