#include "kernels/cpu.h"

#include <unistd.h>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>

#include <cstddef>
#elif defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

namespace flashelm {

bool CpuHasDotProduct() {
#if defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long kAsimdDp = 1ul << 20;  // HWCAP_ASIMDDP
  return (getauxval(AT_HWCAP) & kAsimdDp) != 0;
#elif defined(__aarch64__) && defined(__APPLE__)
  int has = 0;
  std::size_t size = sizeof(has);
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, nullptr,
                      0) == 0 &&
         has != 0;
#else
  return false;
#endif
}

bool CpuIsZen5OrLater() {
#if defined(__x86_64__) || defined(__i386__)
  constexpr unsigned kZen5Family = 0x1A;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __builtin_cpu_is("amd") != 0 &&
         __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 &&
         (eax >> 8 & 15) + (eax >> 20 & 255) >= kZen5Family;
#else
  return false;
#endif
}

size_t NearestCacheBytes() {
  long bytes = 0;
#ifdef _SC_LEVEL1_DCACHE_SIZE
  bytes = sysconf(_SC_LEVEL1_DCACHE_SIZE);
#endif
  constexpr size_t kLeast = size_t{32} << 10;
  return bytes > 0 ? static_cast<size_t>(bytes) : kLeast;
}

size_t SecondCacheBytes() {
  long bytes = 0;
#ifdef _SC_LEVEL2_CACHE_SIZE
  bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
  return bytes > 0 ? static_cast<size_t>(bytes) : 0;
}

}  // namespace flashelm
