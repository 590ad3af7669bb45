#include "kernels/quantize.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/float_types.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/quantize.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {

static_assert(kQuantGroup == kNumPartials, "a group is kNumVectors vectors");

// The codes of a format, what one of them is worth of the scale, and the scales
// to be tried: those for which the extreme value has the first or the last
// code, times 1 and times first_factor + i * factor_step. Measured on weights
// of tiny-stories: the squared error is within 0.3 % (q4) and 2.4 % (q8) of the
// least that any F16 gives; with the factor 1 alone, 11 % and 29 % above it.
//
// A smaller scale than that cuts the extreme off, which pays with few codes. A
// larger one only moves the others, at random: with many codes that is where
// something is found.
struct Format {
  float least;
  float most;
  float unit;
  float first_factor;
  float factor_step;
  size_t num_factors;
};
constexpr Format kQ8Format = {-128, 119, 1.0f / 16, 1.005f, 0.005f, 15};
constexpr Format kQ4Format = {-8, 7, 1, 0.78f, 0.03f, 9};
constexpr size_t kMaxFactors = 15;
constexpr int kRefinements = 3;

// The nearest scale that is neither 0 nor infinite.
HWY_INLINE F16 NearestScale(float scale) {
  constexpr uint32_t kLargest = 0x7BFF;
  const F16 bits = F16FromF32(scale);
  const uint32_t magnitude = bits & 0x7FFFu;
  return static_cast<F16>((bits & 0x8000u) |
                          std::clamp(magnitude, uint32_t{1}, kLargest));
}

// One group, and the best scale so far. All sums have the order of dot-inl.h
// and round each product, so that targets agree.
class GroupSearch {
 public:
  HWY_INLINE GroupSearch(const Format& format, const float* values)
      : format_(format) {
    Vector squares[kNumVectors];
    HWY_UNROLL(32)
    for (size_t i = 0; i < kNumVectors; ++i) {
      values_[i] = hn::LoadU(VectorTag(), values + i * kLanes);
      squares[i] = hn::Mul(values_[i], values_[i]);
    }
    squared_sum_ = ReducePartials(squares);
    error_ = squared_sum_;
  }

  // The value of the largest magnitude; of two, the positive one.
  HWY_INLINE float Extreme() const {
    const VectorTag d;
    Vector most = values_[0];
    Vector least = values_[0];
    HWY_UNROLL(32)
    for (size_t i = 1; i < kNumVectors; ++i) {
      most = hn::Max(most, values_[i]);
      least = hn::Min(least, values_[i]);
    }
    const float max = hn::GetLane(hn::MaxOfLanes(d, most));
    const float min = hn::GetLane(hn::MinOfLanes(d, least));
    return max >= -min ? max : min;
  }

  // The least error of all wins, the first of equal ones. In three steps, so
  // that the processor works on several candidates at a time.
  HWY_INLINE void TryAround(float extreme) {
    F16 scales[2 * (1 + kMaxFactors)];
    float errors[2 * (1 + kMaxFactors)];
    size_t count = 0;
    for (const float end : {format_.least, format_.most}) {
      const float whole = extreme / (end * format_.unit);
      scales[count++] = NearestScale(whole);
      for (size_t i = 0; i < format_.num_factors; ++i) {
        const float factor =
            format_.first_factor + static_cast<float>(i) * format_.factor_step;
        scales[count++] = NearestScale(whole * factor);
      }
    }
    for (size_t i = 0; i < count; ++i) errors[i] = ErrorOf(scales[i]);
    for (size_t i = 0; i < count; ++i) Take(scales[i], errors[i]);
  }

  // Tries the optimum for the codes of the best scale. False: it is no better.
  HWY_INLINE bool Refine() {
    if (scale_ == 0) return false;
    const float inverse = 1 / Step(scale_);
    Vector value_code[kNumVectors];
    Vector code_code[kNumVectors];
    HWY_UNROLL(32)
    for (size_t i = 0; i < kNumVectors; ++i) {
      const Vector code = Code(i, inverse);
      value_code[i] = hn::Mul(values_[i], code);
      code_code[i] = hn::Mul(code, code);
    }
    // Not 0: codes that are all 0 would be no better than scale 0.
    const float squares = ReducePartials(code_code);
    const F16 optimum =
        NearestScale(ReducePartials(value_code) / (squares * format_.unit));
    return optimum != scale_ && Take(optimum, ErrorOf(optimum));
  }

  HWY_INLINE void StoreCodes(float* codes) const {
    const float inverse = scale_ == 0 ? 0.0f : 1 / Step(scale_);
    HWY_UNROLL(32)
    for (size_t i = 0; i < kNumVectors; ++i) {
      hn::StoreU(Code(i, inverse), VectorTag(), codes + i * kLanes);
    }
  }

  F16 scale() const { return scale_; }
  float error() const { return error_; }
  float squared_sum() const { return squared_sum_; }

 private:
  HWY_INLINE float Step(F16 scale) const {
    return F32FromF16(scale) * format_.unit;
  }
  // Limited before it is rounded: far beyond there is no integer to round to.
  HWY_INLINE Vector Code(size_t i, float inverse) const {
    const VectorTag d;
    const Vector exact = hn::Mul(values_[i], hn::Set(d, inverse));
    const Vector limited = hn::Min(hn::Max(exact, hn::Set(d, format_.least)),
                                   hn::Set(d, format_.most));
    return hn::ConvertTo(d, hn::NearestInt(limited));
  }
  HWY_INLINE float ErrorOf(F16 scale) const {
    const VectorTag d;
    const float step = Step(scale);
    const float inverse = 1 / step;
    Vector squares[kNumVectors];
    HWY_UNROLL(32)
    for (size_t i = 0; i < kNumVectors; ++i) {
      const Vector stored = hn::Mul(Code(i, inverse), hn::Set(d, step));
      const Vector error = hn::Sub(values_[i], stored);
      squares[i] = hn::Mul(error, error);
    }
    return ReducePartials(squares);
  }
  HWY_INLINE bool Take(F16 scale, float error) {
    const bool is_better = error < error_;
    error_ = is_better ? error : error_;
    scale_ = is_better ? scale : scale_;
    return is_better;
  }

  const Format format_;
  Vector values_[kNumVectors];
  float squared_sum_;
  float error_;  // Of scale_.
  F16 scale_ = 0;
};

template <WeightType kType>
HWY_INLINE void QuantizeGroup(const float* values, std::byte* codes,
                              std::byte* scale, QuantizationError& sum) {
  constexpr bool kIsQ8 = kType == WeightType::kQ8;
  constexpr Format kFormat = kIsQ8 ? kQ8Format : kQ4Format;
  static_assert(kFormat.num_factors <= kMaxFactors);
  GroupSearch search(kFormat, values);
  if (const float extreme = search.Extreme(); extreme != 0) {
    search.TryAround(extreme);
    for (int i = 0; i < kRefinements && search.Refine(); ++i) {
    }
  }
  float found[kQuantGroup];
  search.StoreCodes(found);
  if constexpr (kIsQ8) {
    for (size_t i = 0; i < kQuantGroup; ++i) {
      codes[i] = static_cast<std::byte>(static_cast<int>(found[i]));
    }
  } else {
    for (size_t i = 0; i < kQuantGroup / 2; ++i) {
      const int low = static_cast<int>(found[i]) + 8;
      const int high = static_cast<int>(found[i + kQuantGroup / 2]) + 8;
      codes[i] = static_cast<std::byte>(low | high << 4);
    }
  }
  const F16 bits = search.scale();
  std::memcpy(scale, &bits, sizeof(bits));
  sum.squared_error += search.error();
  sum.squared_sum += search.squared_sum();
}

template <WeightType kType>
HWY_NOINLINE QuantizationError QuantizeRowAs(const float* values,
                                             size_t num_elements,
                                             std::byte* row) {
  QuantizationError sum;
  std::byte* scales = row + ElementsBytes(kType, num_elements);
  for (size_t at = 0; at < num_elements; at += kQuantGroup) {
    QuantizeGroup<kType>(values + at, row + ElementsBytes(kType, at),
                         scales + ScalesBytes(kType, at), sum);
  }
  return sum;
}

QuantizationError QuantizeRow(WeightType type, const float* values,
                              size_t num_elements, std::byte* row) {
  return type == WeightType::kQ8
             ? QuantizeRowAs<WeightType::kQ8>(values, num_elements, row)
             : QuantizeRowAs<WeightType::kQ4>(values, num_elements, row);
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flashelm {

HWY_EXPORT(QuantizeRow);

QuantizationError QuantizeRow(WeightType type, const float* values,
                              size_t num_elements, std::byte* row) {
  return HWY_DYNAMIC_DISPATCH(QuantizeRow)(type, values, num_elements, row);
}

}  // namespace flashelm
#endif  // HWY_ONCE
