// Which SIMD instructions the kernels use.
#ifndef FLASHELM_KERNELS_SIMD_H_
#define FLASHELM_KERNELS_SIMD_H_

#include <string_view>
#include <vector>

namespace flashelm {

// Highway's name of the target that kernels use: the best that was compiled in
// and that the CPU supports, unless UseSimdTarget() chose another; for example
// "AVX3" or "NEON". Points to a constant.
std::string_view SimdTargetName();

// Names of the targets that were compiled in and that the CPU supports, best
// first. The last one on x86-64 is "SCALAR" or "EMU128", depending on the
// compiler: the loops without SIMD that every CPU can run. After
// UseSimdTarget(), the one chosen.
std::vector<std::string_view> SimdTargets();

// Makes all kernels use the target of that name; "" undoes that. Returns false,
// and changes nothing, where SimdTargets() does not list it. Highway's choice
// is one for the whole process, and results depend on it, so this is for
// programs, never for libraries: call it while no kernel runs, best before any.
bool UseSimdTarget(std::string_view name);

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_SIMD_H_
