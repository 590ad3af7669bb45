#include "storage/async_reader.h"

#include <sys/mman.h>

#include <algorithm>
#include <cassert>
#include <new>
#include <thread>
#include <utility>

#include "core/base/thread.h"

namespace flashelm {
namespace {

// Until the device has answered all of it.
void AwaitEnd(AsyncReader& reader) {
  constexpr auto kPause = std::chrono::milliseconds(100);
  bool has_ended = false;
  while (!has_ended) {
    try {
      reader.Stop();
      has_ended = reader.Drain(std::chrono::hours(1));
    } catch (const std::bad_alloc&) {
      // There was no memory to say how a read went, which nobody asks.
      std::this_thread::sleep_for(kPause);
    }
  }
}

}  // namespace

AsyncReader::~AsyncReader() {
  for (AlignedBuffer& target : adopted_) target.Leak();
}

void AsyncReader::Adopt(AlignedBuffer target) {
  assert(num_adopted_ < kMaxAdopted);
  if (target.size() == 0) return;
  target.Uncharge();
  adopted_[num_adopted_++] = std::move(target);
}

uint64_t AsyncReader::adopted_bytes() const {
  uint64_t num_bytes = 0;
  for (const AlignedBuffer& target : adopted_) num_bytes += target.size();
  return num_bytes;
}

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

void EndReader(std::unique_ptr<AsyncReader> reader,
               SharedByteCount left_bytes) {
  if (reader == nullptr || reader->num_adopted_ == 0) return;
  *left_bytes += reader->adopted_bytes();
  AsyncReader* const left = reader.release();
  try {
    // Whoever waits for this to return wants no more requests after it.
    left->Stop();
    auto thread = Thread::Start([left, left_bytes = std::move(left_bytes)] {
      std::unique_ptr<AsyncReader> owner(left);
      AwaitEnd(*left);
      const uint64_t num_bytes = left->adopted_bytes();
      auto targets = std::move(left->adopted_);
      owner.reset();
      targets = {};
      *left_bytes -= num_bytes;
    });
    if (thread) thread->Detach();
  } catch (const std::bad_alloc&) {
    // No thread, either.
  }
}

void AdviseHugePages([[maybe_unused]] std::span<std::byte> memory) {
#ifdef MADV_HUGEPAGE
  if (!memory.empty()) madvise(memory.data(), memory.size(), MADV_HUGEPAGE);
#endif
}

}  // namespace flashelm
