// Memory with a limit that is never exceeded.
#ifndef FLASHELM_CORE_BASE_MEMORY_H_
#define FLASHELM_CORE_BASE_MEMORY_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/base/status.h"

namespace flashelm {

// Counts bytes against a limit. It hands out permission, not memory.
// Thread-safe. Outlives every buffer charged to it.
class MemoryBudget {
 public:
  explicit MemoryBudget(uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}
  MemoryBudget(const MemoryBudget&) = delete;
  MemoryBudget& operator=(const MemoryBudget&) = delete;

  // Takes `bytes` for `what`, a short noun for the message.
  // kResourceExhausted: less is left; nothing was taken.
  Status Charge(uint64_t bytes, std::string_view what);
  // Gives back bytes that were charged.
  void Release(uint64_t bytes);

  // Whoever lowers it below what is used sees to it that this does not last.
  void set_limit(uint64_t limit_bytes) { limit_bytes_.store(limit_bytes); }
  uint64_t limit_bytes() const { return limit_bytes_.load(); }
  uint64_t used_bytes() const { return used_bytes_.load(); }

 private:
  std::atomic<uint64_t> limit_bytes_;
  std::atomic<uint64_t> used_bytes_{0};
};

inline constexpr size_t kHugePageBytes = size_t{2} << 20;

// A mapping of size + slack bytes at `address` in three: `size` bytes from its
// first huge page on, and what is before and after. All are whole pages of the
// system, which have `page_bytes`, 4 to 64 KiB.
struct HugePageSlack {
  size_t before = 0;
  size_t kept = 0;
  size_t after = 0;
};
HugePageSlack FindHugePageSlack(uintptr_t address, size_t size, size_t slack,
                                size_t page_bytes);

// Zeroed memory from the operating system, whole pages, charged to a budget
// for as long as it lives. Move-only. Alignment is kIoAlignment, so a direct
// read may target it. Thread-compatible.
class AlignedBuffer {
 public:
  // `bytes` is rounded up to kIoAlignment, and that much is charged; 0 gives an
  // empty buffer. `budget` outlives the buffer.
  // kResourceExhausted: the budget or the system has less.
  static Result<AlignedBuffer> Create(uint64_t bytes, MemoryBudget& budget,
                                      std::string_view what);

  AlignedBuffer() = default;
  ~AlignedBuffer() { Free(); }
  AlignedBuffer(AlignedBuffer&& other) noexcept { *this = std::move(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;

  // From here on it is charged to nothing, and may outlive its budget: for
  // memory that something may still write to, which cannot be helped.
  void Uncharge();
  // Never gives the memory back. Uncharged by then.
  void Leak();

  // Gives the pages back to the system, and what is in them is lost. The
  // addresses stay, and stay charged: whoever writes there gets new pages.
  // kResourceExhausted: they are locked.
  Status Discard();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<std::byte> bytes() const { return {data_, size_}; }

  // The memory as an array of T, a type for which zero bytes are a value.
  template <class T>
  std::span<T> As() const {
    return {reinterpret_cast<T*>(data_), size_ / sizeof(T)};
  }

 private:
  void Free();

  MemoryBudget* budget_ = nullptr;  // Null: not charged.
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_BASE_MEMORY_H_
