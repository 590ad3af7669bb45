#include "kernels/prefetch.h"

#include "kernels/cpu.h"

namespace flashelm {

bool FetchesNear() {
  static const bool near = CpuIsZen5OrLater();
  return near;
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
