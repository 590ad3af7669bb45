#include "kernels/activation.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/activation.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/dot-inl.h"
#include "kernels/exp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {

struct Silu {
  // With e = exp(-|x|), which cannot overflow: x / (1 + e) where x >= 0, and
  // x * e / (1 + e) where x < 0.
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, hn::Vec<D> x) const {
    const auto one = hn::Set(d, 1.0f);
    const auto e = ExpOfNegative(d, hn::Neg(hn::Abs(x)));
    const auto numerator =
        hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Mul(x, e), x);
    return hn::Div(numerator, hn::Add(one, e));
  }
};

struct Relu {
  // Not Max(): targets differ in what it makes of NaN, which should stay.
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, hn::Vec<D> x) const {
    return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(d)), x);
  }
};

template <class Act, class D>
HWY_INLINE void GluAt(Act act, D d, const float* gate, const float* up,
                      float* out) {
  hn::StoreU(hn::Mul(act(d, hn::LoadU(d, gate)), hn::LoadU(d, up)), d, out);
}

template <class Act>
HWY_INLINE void GluOf(Act act, const float* gate, const float* up, size_t n,
                      float* out) {
  size_t i = 0;
  for (; n - i >= kLanes; i += kLanes) {
    GluAt(act, VectorTag(), gate + i, up + i, out + i);
  }
  for (; i < n; ++i) GluAt(act, LaneTag(), gate + i, up + i, out + i);
}

void GluActivate(Activation activation, const float* gate, const float* up,
                 size_t n, float* out) {
  if (activation == Activation::kSilu) {
    GluOf(Silu(), gate, up, n, out);
  } else {
    GluOf(Relu(), gate, up, n, out);
  }
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flashelm {

HWY_EXPORT(GluActivate);

void GluActivate(Activation activation, const float* gate, const float* up,
                 size_t n, float* out) {
  HWY_DYNAMIC_DISPATCH(GluActivate)(activation, gate, up, n, out);
}

}  // namespace flashelm
#endif  // HWY_ONCE
