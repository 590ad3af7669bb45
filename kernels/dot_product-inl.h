// ARM's dot product instruction, which Highway 1.0.3 does not have.
// FLASHELM_IS_NEON64 says whether this target is 64-bit ARM's, for which all of
// this is; whether the CPU has the instruction, UsesDotProduct() of simd.h says
// when the code runs. Included after hwy/highway.h, once per target.
#if defined(FLASHELM_KERNELS_DOT_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FLASHELM_KERNELS_DOT_PRODUCT_INL_H_
#undef FLASHELM_KERNELS_DOT_PRODUCT_INL_H_
#else
#define FLASHELM_KERNELS_DOT_PRODUCT_INL_H_
#endif

#include <type_traits>

#include "hwy/highway.h"
#include "kernels/simd.h"

#undef FLASHELM_IS_NEON64
#if HWY_ARCH_ARM_A64 && HWY_TARGET == HWY_NEON
#define FLASHELM_IS_NEON64 1
#else
#define FLASHELM_IS_NEON64 0
#endif

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {

// Calls run(std::bool_constant<kDotProduct>()). Where a kernel has a parameter
// kDotProduct, it says whether to use ARM's instruction, which the CPU then
// has; false on all other targets.
template <class Run>
HWY_INLINE void WithDotProduct(Run run) {
#if FLASHELM_IS_NEON64
  if (UsesDotProduct()) {
    run(std::true_type());
    return;
  }
#endif
  run(std::false_type());
}

#if FLASHELM_IS_NEON64

// sum + the products of signed bytes, of four neighbours in each lane: SDOT.
//
// By its number, since the target's options lack dotprod: GCC's assembler would
// take the name after `.arch_extension dotprod`, which clang 14 does not know.
// The symbols are the numbers of the registers that the compiler chose.
HWY_INLINE int32x4_t DotProduct(int32x4_t sum, int8x16_t a, int8x16_t b) {
  asm(".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,"
      "24,25,26,27,28,29,30,31\n\t"
      ".set .Lflashelm_v\\n, \\n\n\t"
      ".endr\n\t"
      ".inst 0x4E809400 | (.Lflashelm_%2 << 16) | (.Lflashelm_%1 << 5) | "
      ".Lflashelm_%0"
      : "+w"(sum)
      : "w"(a), "w"(b));
  return sum;
}

// The same, with the instruction or without. Codes of -128 to 127 with factors
// of -127 to 127: two products fit in 16 bits.
template <bool kDotProduct>
HWY_INLINE int32x4_t AddQuadProducts(int32x4_t sum, int8x16_t codes,
                                     int8x16_t factors) {
  if constexpr (kDotProduct) return DotProduct(sum, codes, factors);
  const int16x8_t low = vmull_s8(vget_low_s8(codes), vget_low_s8(factors));
  const int16x8_t high = vmull_s8(vget_high_s8(codes), vget_high_s8(factors));
  return vpadalq_s16(sum, vpaddq_s16(low, high));
}

#endif  // FLASHELM_IS_NEON64

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // FLASHELM_KERNELS_DOT_PRODUCT_INL_H_
