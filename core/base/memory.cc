#include "core/base/memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <utility>

#include "core/base/checked_math.h"
#include "core/base/types.h"

namespace flashelm {

Status MemoryBudget::Charge(uint64_t bytes, std::string_view what) {
  uint64_t used = used_bytes_.load();
  do {
    // Subtract, do not add: `bytes` may be huge.
    if (bytes > limit_bytes_ - used) {
      return ResourceExhausted("memory budget: ", what, " needs ", bytes,
                               " bytes, but ", limit_bytes_ - used, " of ",
                               limit_bytes_, " are left");
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
  void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    const int error = errno;
    budget.Release(size);
    return ErrnoStatus(error, StatusMessage::Join("cannot allocate ", size,
                                                  " bytes for ", what));
  }
#ifdef MADV_HUGEPAGE
  // Fewer page-table walks for kernels and devices. Only advice: it takes no
  // page outside the buffer, and small ones do where there are no huge ones.
  madvise(data, size, MADV_HUGEPAGE);
#endif
  buffer.budget_ = &budget;
  buffer.data_ = static_cast<std::byte*>(data);
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

void AlignedBuffer::Free() {
  if (data_ == nullptr) return;
  munmap(data_, size_);
  budget_->Release(size_);
  data_ = nullptr;
  size_ = 0;
}

}  // namespace flashelm
