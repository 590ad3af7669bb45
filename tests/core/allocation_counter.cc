#include "tests/core/allocation_counter.h"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

std::atomic<uint64_t> num_allocations{0};
std::atomic<uint64_t> held_bytes{0};
std::atomic<uint64_t> peak_bytes{0};

// In front of each block stands its size, in a space that keeps it aligned.
constexpr size_t kHeaderBytes = alignof(std::max_align_t);
static_assert(kHeaderBytes >= sizeof(size_t));

}  // namespace

void* operator new(size_t size) {
  auto* block = static_cast<std::byte*>(std::malloc(size + kHeaderBytes));
  if (block == nullptr) throw std::bad_alloc();
  *reinterpret_cast<size_t*>(block) = size;
  ++num_allocations;
  const uint64_t held = held_bytes += size;
  uint64_t peak = peak_bytes;
  while (held > peak && !peak_bytes.compare_exchange_weak(peak, held)) {
  }
  return block + kHeaderBytes;
}
void* operator new[](size_t size) { return operator new(size); }
// A sanitizer has one of its own, whose blocks have no size in front.
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  try {
    return operator new(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void operator delete(void* pointer) noexcept {
  if (pointer == nullptr) return;
  std::byte* block = static_cast<std::byte*>(pointer) - kHeaderBytes;
  held_bytes -= *reinterpret_cast<size_t*>(block);
  std::free(block);
}
void operator delete(void* pointer, size_t) noexcept {
  operator delete(pointer);
}
void operator delete[](void* pointer) noexcept { operator delete(pointer); }
void operator delete[](void* pointer, size_t) noexcept {
  operator delete(pointer);
}

namespace flashelm {

AllocationCounter::AllocationCounter()
    : start_count_(::num_allocations), start_bytes_(::held_bytes) {
  ::peak_bytes = ::held_bytes.load();
}
uint64_t AllocationCounter::num_allocations() const {
  return ::num_allocations - start_count_;
}
uint64_t AllocationCounter::peak_bytes() const {
  return ::peak_bytes - start_bytes_;
}

}  // namespace flashelm
