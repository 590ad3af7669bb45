// Which SIMD instructions the kernels use on this machine.
#ifndef FLASHELM_KERNELS_SIMD_H_
#define FLASHELM_KERNELS_SIMD_H_

#include <string_view>

namespace flashelm {

// Highway's name of the best target that was compiled in and that the CPU
// supports, for example "AVX3" or "NEON". Points to a constant.
std::string_view SimdTargetName();

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_SIMD_H_
