// Which SIMD instructions the kernels use.
#ifndef FLASHELM_KERNELS_SIMD_H_
#define FLASHELM_KERNELS_SIMD_H_

#include <string_view>
#include <vector>

namespace flashelm {

// Highway's name of the target that kernels use: the best that was compiled in
// and that the CPU supports, unless UseSimdTarget() chose another; for example
// "AVX3" or "NEON". "NEON_DOTPROD" is NEON with the dot product instruction of
// ARMv8.2, which gives the same bits. Points to a constant.
std::string_view SimdTargetName();

// What the bits of results depend on: the same for both forms of NEON, else as
// SimdTargetName().
std::string_view SimdArithmeticName();

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

// Whether kernels for NEON use the dot product instruction: where the CPU has
// it, unless UseSimdTarget() chose NEON without.
bool UsesDotProduct();

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_SIMD_H_
