#include "kernels/simd.h"

#include <cstdint>

#include "hwy/highway.h"

namespace flashelm {

std::string_view SimdTargetName() {
  const int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
  return hwy::TargetName(usable & -usable);  // A lower bit is a better target.
}

std::vector<std::string_view> SimdTargets() {
  std::vector<std::string_view> names;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    names.push_back(hwy::TargetName(target));
  }
  return names;
}

bool UseSimdTarget(std::string_view name) {
  if (name.empty()) {
    hwy::DisableTargets(0);
    return true;
  }
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    if (name == hwy::TargetName(target)) {
      hwy::DisableTargets(~target);
      return true;
    }
  }
  return false;
}

}  // namespace flashelm
