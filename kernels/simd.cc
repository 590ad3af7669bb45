#include "kernels/simd.h"

#include <cstdint>

#include "hwy/highway.h"

namespace flashelm {
namespace {

// Highway's targets that kernels can use now, best first. Where a CPU has none
// of those that were compiled, kernels use what all of the program was compiled
// for: Highway's NEON asks for AES, which some ARM CPUs lack and no kernel
// uses.
std::vector<int64_t> UsableTargets() {
  std::vector<int64_t> targets = hwy::SupportedAndGeneratedTargets();
  if (targets.empty()) targets.push_back(HWY_STATIC_TARGET);
  return targets;
}

}  // namespace

std::string_view SimdTargetName() {
  const int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
  // A lower bit is a better target.
  return hwy::TargetName(usable == 0 ? HWY_STATIC_TARGET : usable & -usable);
}

std::vector<std::string_view> SimdTargets() {
  std::vector<std::string_view> names;
  for (const int64_t target : UsableTargets()) {
    names.push_back(hwy::TargetName(target));
  }
  return names;
}

bool UseSimdTarget(std::string_view name) {
  if (name.empty()) {
    hwy::DisableTargets(0);
    return true;
  }
  for (const int64_t target : UsableTargets()) {
    if (name == hwy::TargetName(target)) {
      hwy::DisableTargets(~target);
      return true;
    }
  }
  return false;
}

}  // namespace flashelm
