#include "kernels/prefetch.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

namespace flashelm {

bool FetchesNear() {
#if defined(__x86_64__) || defined(__i386__)
  static const bool near = [] {
    constexpr unsigned kZen5 = 0x1A;
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __builtin_cpu_is("amd") != 0 &&
           __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 &&
           (eax >> 8 & 15) + (eax >> 20 & 255) >= kZen5;
  }();
  return near;
#else
  return false;
#endif
}

size_t FetchStreams() {
#if defined(__x86_64__) || defined(__i386__)
  static const size_t streams = __builtin_cpu_is("intel") != 0 ? 2 : 1;
  return streams;
#else
  return 1;
#endif
}

}  // namespace flashelm
