#include "storage/async_reader.h"

#include <sys/mman.h>

#include <algorithm>

namespace flashelm {

bool AsyncReader::Drain(std::chrono::nanoseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (num_in_flight() > 0) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (!Wait(std::max(left, decltype(left)::zero())) && left.count() <= 0) {
      return false;
    }
  }
  return true;
}

void AdviseHugePages([[maybe_unused]] std::span<std::byte> memory) {
#ifdef MADV_HUGEPAGE
  if (!memory.empty()) madvise(memory.data(), memory.size(), MADV_HUGEPAGE);
#endif
}

}  // namespace flashelm
