#include "storage/async_reader.h"

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

}  // namespace flashelm
