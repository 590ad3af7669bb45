// Which instructions the kernels use, for people and for records.
#ifndef FLASHELM_CORE_SIMD_H_
#define FLASHELM_CORE_SIMD_H_

#include "kernels/simd.h"

#endif  // FLASHELM_CORE_SIMD_H_
