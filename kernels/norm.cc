#include "kernels/norm.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/norm.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {

template <class D>
HWY_INLINE void Normalize(D d, const float* x, const float* weight,
                          float factor, float* out) {
  const auto normal = hn::Mul(hn::LoadU(d, x), hn::Set(d, factor));
  hn::StoreU(hn::Mul(hn::LoadU(d, weight), normal), d, out);
}

void RmsNorm(const float* x, const float* weight, size_t n, float eps,
             float* out) {
  float sum_of_squares = 0;
  Dots<float, 1, 1>(reinterpret_cast<const std::byte*>(x), 0, x, 0, n,
                    &sum_of_squares, 0);
  const float mean = sum_of_squares / static_cast<float>(n);
  const float factor = 1.0f / std::sqrt(mean + eps);
  size_t i = 0;
  for (; n - i >= kLanes; i += kLanes) {
    Normalize(VectorTag(), x + i, weight + i, factor, out + i);
  }
  for (; i < n; ++i) {
    Normalize(LaneTag(), x + i, weight + i, factor, out + i);
  }
}

template <class D>
HWY_INLINE void AddAt(D d, const float* x, float* y) {
  hn::StoreU(hn::Add(hn::LoadU(d, y), hn::LoadU(d, x)), d, y);
}

void AddInPlace(const float* x, size_t n, float* y) {
  size_t i = 0;
  for (; n - i >= kLanes; i += kLanes) AddAt(VectorTag(), x + i, y + i);
  for (; i < n; ++i) AddAt(LaneTag(), x + i, y + i);
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flashelm {

HWY_EXPORT(RmsNorm);
HWY_EXPORT(AddInPlace);

void RmsNorm(const float* x, const float* weight, size_t n, float eps,
             float* out) {
  if (n == 0) return;
  HWY_DYNAMIC_DISPATCH(RmsNorm)(x, weight, n, eps, out);
}

void AddInPlace(const float* x, size_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(AddInPlace)(x, n, y);
}

}  // namespace flashelm
#endif  // HWY_ONCE
