// Every kernel as the loops one would write first: the definition, in double
// where the kernel's own rounding is not the point. For tests.
#ifndef FLASHELM_KERNELS_REFERENCE_H_
#define FLASHELM_KERNELS_REFERENCE_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/activation.h"
#include "kernels/attention.h"
#include "kernels/float_types.h"
#include "kernels/weight_view.h"

namespace flashelm::reference {

// The integer that a quantized weight is a multiple of: q, or n - 8.
inline int CodeAt(const WeightView& w, size_t row, size_t col) {
  const std::byte* codes = w.data + row * w.stride_bytes;
  if (w.type == WeightType::kQ8) return static_cast<int8_t>(codes[col]);
  const size_t in_group = col % kQuantGroup;
  const auto both =
      std::to_integer<unsigned>(codes[col / kQuantGroup * (kQuantGroup / 2) +
                                      in_group % (kQuantGroup / 2)]);
  const unsigned n = in_group < kQuantGroup / 2 ? both & 15 : both >> 4;
  return static_cast<int>(n) - 8;
}

// The scale d of a quantized weight's group.
inline float ScaleAt(const WeightView& w, size_t row, size_t col) {
  F16 bits;
  std::memcpy(&bits,
              w.scales + row * w.stride_bytes + col / kQuantGroup * sizeof(F16),
              sizeof(bits));
  return F32FromF16(bits);
}

inline float WeightAt(const WeightView& w, size_t row, size_t col) {
  if (IsQuantized(w.type)) {
    const auto code = static_cast<float>(CodeAt(w, row, col));
    return w.type == WeightType::kQ8 ? code * (ScaleAt(w, row, col) / 16)
                                     : code * ScaleAt(w, row, col);
  }
  const std::byte* from =
      w.data + row * w.stride_bytes + ElementsBytes(w.type, col);
  if (w.type == WeightType::kBf16) {
    Bf16 bits;
    std::memcpy(&bits, from, sizeof(bits));
    return F32FromBf16(bits);
  }
  float value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

// The canonical order of matmul.h to the letter. `is_fused` as on targets with
// a fused multiply-add; otherwise the product is rounded first.
inline float CanonicalDot(const WeightView& w, size_t row, size_t num_cols,
                          const float* x, bool is_fused) {
  float partial[32] = {};
  for (size_t k = 0; k < num_cols; ++k) {
    const float weight = WeightAt(w, row, k);
    float& sum = partial[k % 32];
    if (is_fused) {
      sum = std::fma(weight, x[k], sum);
    } else {
      const float product = weight * x[k];
      sum = product + sum;
    }
  }
  for (size_t half = 16; half > 0; half /= 2) {
    for (size_t j = 0; j < half; ++j) partial[j] += partial[j + half];
  }
  return partial[0];
}

inline void MatMul(const WeightView& w, size_t num_rows, size_t num_cols,
                   const float* x, size_t x_stride, size_t num_tokens,
                   double* out, size_t out_stride) {
  for (size_t t = 0; t < num_tokens; ++t) {
    for (size_t r = 0; r < num_rows; ++r) {
      double sum = 0;
      for (size_t k = 0; k < num_cols; ++k) {
        sum += static_cast<double>(WeightAt(w, r, k)) * x[t * x_stride + k];
      }
      out[t * out_stride + r] = sum;
    }
  }
}

// The codes and scales that quant_matmul.h defines, of one token.
struct QuantizedToken {
  std::vector<int> codes;
  std::vector<float> scales;
};

inline QuantizedToken QuantizeToken(const float* x, size_t num_cols) {
  QuantizedToken token;
  token.codes.resize(num_cols, 0);
  for (size_t begin = 0; begin < num_cols; begin += kQuantGroup) {
    float amax = 0;
    bool is_finite = true;
    for (size_t k = begin; k < begin + kQuantGroup; ++k) {
      amax = std::max(amax, std::abs(x[k]));
      is_finite = is_finite && std::isfinite(x[k]);
    }
    if (!is_finite) {
      token.scales.push_back(std::numeric_limits<float>::quiet_NaN());
    } else if (amax < 0x1p-80f) {
      token.scales.push_back(0);
    } else {
      const float inverse = 127 / amax;
      for (size_t k = begin; k < begin + kQuantGroup; ++k) {
        token.codes[k] = static_cast<int>(std::nearbyint(x[k] * inverse));
      }
      token.scales.push_back(amax / 127);
    }
  }
  return token;
}

// The canonical arithmetic of quant_matmul.h to the letter. `is_fused` as in
// CanonicalDot().
inline float QuantDot(const WeightView& w, size_t row, size_t num_cols,
                      const QuantizedToken& token, bool is_fused) {
  float partial[8] = {};
  for (size_t g = 0; g < num_cols / kQuantGroup; ++g) {
    int dot = 0;
    for (size_t k = g * kQuantGroup; k < (g + 1) * kQuantGroup; ++k) {
      dot += CodeAt(w, row, k) * token.codes[k];
    }
    const float d = ScaleAt(w, row, g * kQuantGroup);
    const float scale =
        (w.type == WeightType::kQ8 ? d / 16 : d) * token.scales[g];
    float& sum = partial[g % 8];
    if (is_fused) {
      sum = std::fma(static_cast<float>(dot), scale, sum);
    } else {
      const float product = static_cast<float>(dot) * scale;
      sum = product + sum;
    }
  }
  for (size_t half = 4; half > 0; half /= 2) {
    for (size_t j = 0; j < half; ++j) partial[j] += partial[j + half];
  }
  return partial[0];
}

inline void AddScaledRows(const WeightView& w, size_t num_rows, size_t num_cols,
                          const float* scale, size_t scale_stride,
                          size_t num_tokens, double* y, size_t y_stride) {
  for (size_t t = 0; t < num_tokens; ++t) {
    for (size_t i = 0; i < num_rows; ++i) {
      const double factor = scale[t * scale_stride + i];
      for (size_t d = 0; d < num_cols; ++d) {
        y[t * y_stride + d] += factor * WeightAt(w, i, d);
      }
    }
  }
}

// The codes a[i] and the unit (F / 127) D that quant_sum.h defines, for a block
// with the factors f and the scales d.
struct QuantizedFactors {
  std::vector<int> codes;
  float unit;
};

inline QuantizedFactors QuantizeFactors(const std::vector<float>& f,
                                        const std::vector<float>& d,
                                        bool is_fused) {
  float max_factor = 0;
  float max_scale = 0;
  bool is_finite = true;
  for (size_t i = 0; i < f.size(); ++i) {
    max_factor = std::max(max_factor, std::abs(f[i]));
    max_scale = std::max(max_scale, std::abs(d[i]));
    is_finite = is_finite && std::isfinite(f[i]);
  }
  QuantizedFactors result = {std::vector<int>(f.size(), 0), 0};
  if (!is_finite) {
    result.unit = std::numeric_limits<float>::quiet_NaN();
    return result;
  }
  if (max_factor < 0x1p-80f || max_scale == 0) return result;
  result.unit = max_factor / 127 * max_scale;
  for (size_t i = 0; i < f.size(); ++i) {
    const float e = f[i] * (127 / max_factor);
    const float r = d[i] * (1 / max_scale);
    // Exact in double.
    const double product = is_fused ? static_cast<double>(e) * r : e * r;
    result.codes[i] = static_cast<int>(std::nearbyint(product));
  }
  return result;
}

// The canonical arithmetic of quant_sum.h to the letter, for one token.
inline void AddQuantRows(const WeightView& w, size_t num_rows, size_t num_cols,
                         const float* factors, bool is_fused, float* y) {
  constexpr size_t kBlock = 32;
  for (size_t first = 0; first < num_rows; first += kBlock) {
    const size_t count = std::min(kBlock, num_rows - first);
    const std::vector<float> f(factors + first, factors + first + count);
    for (size_t begin = 0; begin < num_cols; begin += kQuantGroup) {
      std::vector<float> d(count);
      for (size_t i = 0; i < count; ++i) {
        d[i] = ScaleAt(w, first + i, begin);
        if (w.type == WeightType::kQ8) d[i] /= 16;
      }
      const QuantizedFactors block = QuantizeFactors(f, d, is_fused);
      for (size_t k = begin; k < begin + kQuantGroup; ++k) {
        int sum = 0;
        for (size_t i = 0; i < count; ++i) {
          sum += CodeAt(w, first + i, k) * block.codes[i];
        }
        if (is_fused) {
          y[k] = std::fma(static_cast<float>(sum), block.unit, y[k]);
        } else {
          const float product = static_cast<float>(sum) * block.unit;
          y[k] = product + y[k];
        }
      }
    }
  }
}

inline void RmsNorm(const float* x, const float* weight, size_t n, float eps,
                    double* out) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  const double root = std::sqrt(sum / static_cast<double>(n) + eps);
  for (size_t i = 0; i < n; ++i) out[i] = weight[i] * (x[i] / root);
}

inline void Rope(const float* cos, const float* sin, size_t head_dim,
                 const float* x, double* out) {
  const size_t half = head_dim / 2;
  for (size_t d = 0; d < half; ++d) {
    const double low = x[d];
    const double high = x[d + half];
    out[d] = low * cos[d] - high * sin[d];
    out[d + half] = high * cos[d] + low * sin[d];
  }
}

inline void GluActivate(Activation activation, const float* gate,
                        const float* up, size_t n, double* out) {
  for (size_t i = 0; i < n; ++i) {
    const double x = gate[i];
    const double activated = activation == Activation::kSilu
                                 ? x / (1 + std::exp(-x))
                                 : std::max(x, 0.0);
    out[i] = activated * up[i];
  }
}

inline void Attend(const float* q, size_t num_heads, KvType type,
                   const void* keys, const void* values, size_t num_positions,
                   size_t head_dim, float scale, double* out) {
  const WeightType element =
      type == KvType::kBf16 ? WeightType::kBf16 : WeightType::kF32;
  const size_t stride_bytes = ElementsBytes(element, head_dim);
  const WeightView k = {static_cast<const std::byte*>(keys), stride_bytes,
                        element};
  const WeightView v = {static_cast<const std::byte*>(values), stride_bytes,
                        element};
  for (size_t h = 0; h < num_heads; ++h) {
    std::vector<double> p(num_positions);
    MatMul(k, num_positions, head_dim, q + h * head_dim, 0, 1, p.data(), 0);
    for (double& score : p) score *= scale;
    const double max = *std::max_element(p.begin(), p.end());
    double sum = 0;
    for (double& score : p) sum += score = std::exp(score - max);
    for (size_t d = 0; d < head_dim; ++d) {
      double mix = 0;
      for (size_t t = 0; t < num_positions; ++t)
        mix += p[t] * WeightAt(v, t, d);
      out[h * head_dim + d] = mix / sum;
    }
  }
}

}  // namespace flashelm::reference

#endif  // FLASHELM_KERNELS_REFERENCE_H_
