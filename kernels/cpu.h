// What of the CPU matters here and Highway does not tell.
#ifndef FLASHELM_KERNELS_CPU_H_
#define FLASHELM_KERNELS_CPU_H_

#include <cstddef>

namespace flashelm {

// Whether the CPU has the instructions SDOT and UDOT of ARMv8.2 ("dotprod"):
// Cortex-A55 and A75 and later, Apple's since A13. False on other processors
// than 64-bit ARM, and where the system does not tell.
bool CpuHasDotProduct();

// Whether the CPU is one of AMD's of the Zen 5 kind, or a later one.
bool CpuIsZen5OrLater();

// Bytes of a core's nearest cache for data; 32 KiB, which is the least of the
// last two decades, where the system does not tell.
size_t NearestCacheBytes();

// Bytes of the cache behind it; 0 where the system does not tell.
size_t SecondCacheBytes();

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_CPU_H_
