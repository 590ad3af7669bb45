#include "kernels/simd.h"

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu.h"

namespace flashelm {
namespace {

// Highway's NEON with the dot product instruction that it lacks.
constexpr std::string_view kNeonDotProduct = "NEON_DOTPROD";

// Of the two forms of NEON, those that may be used. Changes in UseSimdTarget()
// alone; one for the process, as Highway's own choice is.
enum class NeonForms { kAll, kWithDotProduct, kWithout };
std::atomic<NeonForms> neon_forms = NeonForms::kAll;

// Highway's targets that kernels can use now, best first. Where a CPU has none
// of those that were compiled, kernels use what all of the program was compiled
// for: Highway's NEON asks for AES, which some ARM CPUs lack and no kernel
// uses.
std::vector<int64_t> UsableTargets() {
  std::vector<int64_t> targets = hwy::SupportedAndGeneratedTargets();
  if (targets.empty()) targets.push_back(HWY_STATIC_TARGET);
  return targets;
}

int64_t UsedTarget() {
  const int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
  // A lower bit is a better target.
  return usable == 0 ? HWY_STATIC_TARGET : usable & -usable;
}

}  // namespace

bool UsesDotProduct() {
  static const bool is_there = CpuHasDotProduct();
  return is_there && neon_forms != NeonForms::kWithout;
}

std::string_view SimdTargetName() {
  const int64_t target = UsedTarget();
  if (target == HWY_NEON && UsesDotProduct()) return kNeonDotProduct;
  return hwy::TargetName(target);
}

std::vector<std::string_view> SimdTargets() {
  std::vector<std::string_view> names;
  for (const int64_t target : UsableTargets()) {
    if (target == HWY_NEON && UsesDotProduct()) {
      names.push_back(kNeonDotProduct);
      if (neon_forms == NeonForms::kWithDotProduct) continue;
    }
    names.push_back(hwy::TargetName(target));
  }
  return names;
}

std::string_view SimdArithmeticName() { return hwy::TargetName(UsedTarget()); }

bool UseSimdTarget(std::string_view name) {
  if (name.empty()) {
    hwy::DisableTargets(0);
    neon_forms = NeonForms::kAll;
    return true;
  }
  const std::vector<std::string_view> names = SimdTargets();
  if (std::find(names.begin(), names.end(), name) == names.end()) return false;
  const bool has_dot_product = name == kNeonDotProduct;
  for (const int64_t target : UsableTargets()) {
    if (has_dot_product ? target == HWY_NEON
                        : name == hwy::TargetName(target)) {
      hwy::DisableTargets(~target);
      neon_forms =
          has_dot_product ? NeonForms::kWithDotProduct : NeonForms::kWithout;
    }
  }
  return true;
}

}  // namespace flashelm
