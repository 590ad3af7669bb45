#include "predictor/low_rank.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/float_types.h"
#include "kernels/matmul.h"
#include "kernels/quant_matmul.h"
#include "kernels/quantize.h"

namespace flashelm {
namespace {

uint64_t MatrixBytes(WeightType type, uint64_t num_rows, uint64_t num_cols) {
  return num_rows * RowBytes(type, num_cols);
}

std::byte* PutRow(WeightType type, const float* values, size_t count,
                  std::byte* out) {
  switch (type) {
    case WeightType::kF32:
      std::memcpy(out, values, count * sizeof(float));
      break;
    case WeightType::kBf16:
      for (size_t i = 0; i < count; ++i) {
        const Bf16 value = Bf16FromF32(values[i]);
        std::memcpy(out + i * sizeof(value), &value, sizeof(value));
      }
      break;
    case WeightType::kQ8:
    case WeightType::kQ4:
      QuantizeRow(type, values, count, out);
      break;
  }
  return out + RowBytes(type, count);
}

// The rows of a matrix times 2^exponent.
std::byte* Put(WeightType type, const float* values, size_t num_rows,
               size_t num_cols, int exponent, std::byte* out) {
  std::vector<float> row(num_cols);
  for (size_t r = 0; r < num_rows; ++r) {
    for (size_t k = 0; k < num_cols; ++k) {
      row[k] = std::ldexp(values[r * num_cols + k], exponent);
    }
    out = PutRow(type, row.data(), num_cols, out);
  }
  return out;
}

// The exponent that brings the largest magnitude into [1/2, 1).
int ExponentToOne(const float* values, size_t count) {
  float most = 0;
  for (size_t i = 0; i < count; ++i) most = std::max(most, std::abs(values[i]));
  int exponent = 0;
  std::frexp(most, &exponent);
  return -exponent;
}

// What a quantized predictor has of a token begins where its kernels want it:
// A x as integers, x as integers, and A x.
constexpr size_t kAlignment = 64;
size_t Padding(const float* prepared) {
  const size_t past = reinterpret_cast<uintptr_t>(prepared) % kAlignment;
  return past == 0 ? 0 : (kAlignment - past) / sizeof(float);
}

}  // namespace

bool LowRankPredictor::IsValid(const Shape& shape) {
  for (const uint32_t dim : {shape.num_neurons, shape.model_dim, shape.rank}) {
    if (dim == 0 || dim > kMaxDim) return false;
  }
  return !IsQuantized(shape.type) ||
         (shape.model_dim % kQuantGroup == 0 && shape.rank % kQuantGroup == 0);
}

uint64_t LowRankPredictor::NumBytes(const Shape& shape) {
  return MatrixBytes(shape.type, shape.rank, shape.model_dim) +
         MatrixBytes(shape.type, shape.num_neurons, shape.rank) +
         uint64_t{shape.num_neurons} * sizeof(float);
}

size_t LowRankPredictor::PreparedFloats(const Shape& shape) {
  if (!IsQuantized(shape.type)) return shape.rank;
  return shape.rank + (QuantizedTokensBytes(shape.rank, 1) +
                       QuantizedTokensBytes(shape.model_dim, 1) + kAlignment) /
                          sizeof(float);
}

std::vector<std::byte> LowRankPredictor::Serialize(const Shape& shape,
                                                   const float* a,
                                                   const float* b,
                                                   const float* bias) {
  assert(IsValid(shape));
  std::vector<std::byte> bytes(NumBytes(shape));
  const size_t rank = shape.rank;
  int a_exponent = 0;
  int b_exponent = 0;
  if (IsQuantized(shape.type)) {
    a_exponent = ExponentToOne(a, rank * shape.model_dim);
    b_exponent = ExponentToOne(b, shape.num_neurons * rank);
  }
  std::byte* out =
      Put(shape.type, a, rank, shape.model_dim, a_exponent, bytes.data());
  out = Put(shape.type, b, shape.num_neurons, rank, b_exponent, out);
  Put(WeightType::kF32, bias, 1, shape.num_neurons, a_exponent + b_exponent,
      out);
  return bytes;
}

LowRankPredictor::LowRankPredictor(const Shape& shape,
                                   std::span<const std::byte> bytes,
                                   float threshold)
    : shape_(shape),
      a_(ViewOfRows(bytes.data(), RowBytes(shape.type, shape.model_dim),
                    shape.type, shape.model_dim)),
      b_(ViewOfRows(
          bytes.data() + MatrixBytes(shape.type, shape.rank, shape.model_dim),
          RowBytes(shape.type, shape.rank), shape.type, shape.rank)),
      bias_(b_.data + MatrixBytes(shape.type, shape.num_neurons, shape.rank)),
      threshold_(threshold) {
  assert(IsValid(shape) && bytes.size() == NumBytes(shape));
}

void LowRankPredictor::Prepare(const float* x, float* prepared) const {
  if (IsQuantized(shape_.type)) {
    auto* codes = reinterpret_cast<std::byte*>(prepared + Padding(prepared));
    std::byte* x_codes = codes + QuantizedTokensBytes(shape_.rank, 1);
    auto* projected = reinterpret_cast<float*>(
        x_codes + QuantizedTokensBytes(shape_.model_dim, 1));
    QuantizeTokens(x, 0, shape_.model_dim, 0, 1, 1, x_codes);
    QuantMatMul(a_, shape_.rank, shape_.model_dim, x_codes, 1, nullptr,
                projected, 0);
    QuantizeTokens(projected, 0, shape_.rank, 0, 1, 1, codes);
    return;
  }
  MatMul(a_, shape_.rank, shape_.model_dim, x, shape_.model_dim, 1, prepared,
         shape_.rank);
}

void LowRankPredictor::Score(const float* prepared, size_t begin, size_t end,
                             float* scores) const {
  const WeightView rows = Submatrix(b_, begin, 0);
  if (IsQuantized(shape_.type)) {
    QuantMatMul(
        rows, end - begin, shape_.rank,
        reinterpret_cast<const std::byte*>(prepared + Padding(prepared)), 1,
        nullptr, scores + begin, 0);
  } else {
    MatMul(rows, end - begin, shape_.rank, prepared, shape_.rank, 1,
           scores + begin, end - begin);
  }
  for (size_t i = begin; i < end; ++i) {
    float bias;
    std::memcpy(&bias, bias_ + i * sizeof(bias), sizeof(bias));
    scores[i] += bias;
  }
}

}  // namespace flashelm
