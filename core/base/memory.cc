#include "core/base/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <utility>

#include "core/base/checked_math.h"
#include "core/base/types.h"

namespace flashelm {
namespace {

// Zeroed pages; null, with errno set, when there are none to be had. A buffer
// that could hold huge pages begins at one: fewer page-table walks for kernels,
// and fewer, larger pieces for a device to write to, which makes some twice as
// fast. Huge pages lie inside the buffer, so none takes more than was asked.
std::byte* MapPages(size_t size) {
  const size_t slack =
      size >= kHugePageBytes && size <= SIZE_MAX - 2 * kHugePageBytes
          ? kHugePageBytes
          : 0;
  void* mapped = mmap(nullptr, size + slack, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* data = static_cast<std::byte*>(mapped);
  if (slack > 0) {
    const auto address = reinterpret_cast<uintptr_t>(data);
    const HugePageSlack around = FindHugePageSlack(
        address, size, slack, static_cast<size_t>(sysconf(_SC_PAGESIZE)));
    if (around.before > 0) munmap(data, around.before);
    if (around.after > 0) {
      munmap(data + around.before + around.kept, around.after);
    }
    data += around.before;
#ifdef MADV_HUGEPAGE
    madvise(data, size, MADV_HUGEPAGE);
#endif
  }
  return data;
}

}  // namespace

HugePageSlack FindHugePageSlack(uintptr_t address, size_t size, size_t slack,
                                size_t page_bytes) {
  HugePageSlack result;
  result.before = RoundUp(address, kHugePageBytes) - address;
  result.kept = RoundUp(size, page_bytes);
  result.after =
      RoundUp(size + slack, page_bytes) - result.before - result.kept;
  return result;
}

Status MemoryBudget::Charge(uint64_t bytes, std::string_view what) {
  uint64_t used = used_bytes_.load();
  do {
    const uint64_t limit = limit_bytes_.load();
    // Subtract, do not add: `bytes` may be huge.
    if (used > limit || bytes > limit - used) {
      return ResourceExhausted("memory budget: ", what, " needs ", bytes,
                               " bytes, but ", limit - std::min(limit, used),
                               " of ", limit, " are left");
    }
  } while (!used_bytes_.compare_exchange_weak(used, used + bytes));
  return OkStatus();
}

void MemoryBudget::Release(uint64_t bytes) { used_bytes_.fetch_sub(bytes); }

Result<AlignedBuffer> AlignedBuffer::Create(uint64_t bytes,
                                            MemoryBudget& budget,
                                            std::string_view what) {
  AlignedBuffer buffer;
  if (bytes == 0) return buffer;
  if (bytes > SIZE_MAX - kIoAlignment) {
    return ResourceExhausted(what, ": ", bytes, " bytes cannot be addressed");
  }
  const size_t size = RoundUp(bytes, kIoAlignment);
  FLASHELM_RETURN_IF_ERROR(budget.Charge(size, what));
  // Straight from the system: freed memory really goes back, and pages that
  // are never touched are never resident. Pages are at least kIoAlignment.
  std::byte* data = MapPages(size);
  if (data == nullptr) {
    const int error = errno;
    budget.Release(size);
    return ErrnoStatus(error, StatusMessage::Join("cannot allocate ", size,
                                                  " bytes for ", what));
  }
  buffer.budget_ = &budget;
  buffer.data_ = data;
  buffer.size_ = size;
  return buffer;
}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  if (this != &other) {
    Free();
    budget_ = std::exchange(other.budget_, nullptr);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

void AlignedBuffer::Uncharge() {
  if (budget_ != nullptr) std::exchange(budget_, nullptr)->Release(size_);
}

void AlignedBuffer::Leak() {
  assert(budget_ == nullptr);
  data_ = nullptr;
  size_ = 0;
}

Status AlignedBuffer::Discard() {
  if (data_ == nullptr || madvise(data_, size_, MADV_DONTNEED) == 0) {
    return OkStatus();
  }
  return ResourceExhausted("the system does not take ", size_,
                           " bytes back (errno ", errno,
                           "): is all memory of the process locked?");
}

void AlignedBuffer::Free() {
  if (data_ == nullptr) return;
  munmap(data_, size_);
  Uncharge();
  data_ = nullptr;
  size_ = 0;
}

}  // namespace flashelm
