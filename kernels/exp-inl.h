// exp() for arguments that are not positive, inlined into each SIMD target.
// Included after hwy/highway.h, once per target.
#if defined(FLASHELM_KERNELS_EXP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FLASHELM_KERNELS_EXP_INL_H_
#undef FLASHELM_KERNELS_EXP_INL_H_
#else
#define FLASHELM_KERNELS_EXP_INL_H_
#endif

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// e^x for x <= 0, lane by lane: 0 below -104, where the least subnormal ends.
// Otherwise within 1 epsilon, or a least subnormal.
template <class D>
HWY_INLINE hn::Vec<D> ExpOfNegative(D d, hn::Vec<D> x) {
  // Highway converts x / log(2) to an integer, which a huge x does not fit in.
  return hn::Exp(d, hn::Max(x, hn::Set(d, -105.0f)));
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // FLASHELM_KERNELS_EXP_INL_H_
