#include "kernels/simd.h"

#include <cstdint>

#include "hwy/highway.h"

namespace flashelm {

std::string_view SimdTargetName() {
  const int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
  return hwy::TargetName(usable & -usable);  // A lower bit is a better target.
}

}  // namespace flashelm
