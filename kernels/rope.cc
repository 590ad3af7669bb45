#include "kernels/rope.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rope.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {

template <class D>
HWY_INLINE void Rotate(D d, const float* cos, const float* sin, float* low,
                       float* high) {
  const auto c = hn::LoadU(d, cos);
  const auto s = hn::LoadU(d, sin);
  const auto a = hn::LoadU(d, low);
  const auto b = hn::LoadU(d, high);
  hn::StoreU(hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), d, low);
  hn::StoreU(hn::Add(hn::Mul(b, c), hn::Mul(a, s)), d, high);
}

void Rope(const float* cos, const float* sin, size_t head_dim, float* x) {
  const size_t half = head_dim / 2;
  size_t i = 0;
  for (; half - i >= kLanes; i += kLanes) {
    Rotate(VectorTag(), cos + i, sin + i, x + i, x + half + i);
  }
  for (; i < half; ++i) {
    Rotate(LaneTag(), cos + i, sin + i, x + i, x + half + i);
  }
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flashelm {

HWY_EXPORT(Rope);

void RopeAngles(uint32_t position, float theta, size_t head_dim, float* cos_out,
                float* sin_out) {
  for (size_t d = 0; d < head_dim / 2; ++d) {
    const float exponent =
        static_cast<float>(2 * d) / static_cast<float>(head_dim);
    const float frequency = 1.0f / std::pow(theta, exponent);
    const float angle = static_cast<float>(position) * frequency;
    cos_out[d] = std::cos(angle);
    sin_out[d] = std::sin(angle);
  }
}

void Rope(const float* cos, const float* sin, size_t head_dim, float* x) {
  HWY_DYNAMIC_DISPATCH(Rope)(cos, sin, head_dim, x);
}

}  // namespace flashelm
#endif  // HWY_ONCE
