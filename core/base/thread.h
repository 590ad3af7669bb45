// A thread with a small, known stack.
#ifndef FLASHELM_CORE_BASE_THREAD_H_
#define FLASHELM_CORE_BASE_THREAD_H_

#include <cstddef>
#include <functional>
#include <memory>

#include "core/base/status.h"

namespace flashelm {

// What one thread may take of RAM: its stack. std::thread would reserve the
// system default (8 MiB), which no plan could account for.
#ifdef FLASHELM_SANITIZED
inline constexpr size_t kThreadStackBytes = size_t{4} << 20;
#elif defined(__aarch64__)
inline constexpr size_t kThreadStackBytes = size_t{128}
                                            << 10;  // glibc's least.
#else
inline constexpr size_t kThreadStackBytes = size_t{64} << 10;
#endif

// Joins in its destructor, so whatever makes `body` return has to come first,
// unless it was detached. Move-only.
class Thread {
 public:
  // kResourceExhausted: the system has no thread to give, or none with a stack
  // as small.
  static Result<Thread> Start(std::function<void()> body);

  Thread();
  ~Thread();
  Thread(Thread&& other) noexcept;
  Thread& operator=(Thread&& other) noexcept;

  // Lets the thread end by itself, whenever that is. `body`, and so what it
  // holds, lives until then.
  void Detach();

 private:
  struct Handle;
  std::unique_ptr<Handle> handle_;
  void Join();
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_BASE_THREAD_H_
