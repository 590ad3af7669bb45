#include "core/base/thread.h"

#include <pthread.h>

#include <cerrno>
#include <utility>

namespace flashelm {

struct Thread::Handle {
  pthread_t id;
};

namespace {

using Body = std::function<void()>;

void* Main(void* body) {
  (*std::unique_ptr<Body>(static_cast<Body*>(body)))();
  return nullptr;
}

}  // namespace

Result<Thread> Thread::Start(std::function<void()> body) {
  Thread thread;
  thread.handle_ = std::make_unique<Handle>();
  // The thread's own: it may outlive the Thread.
  auto own = std::make_unique<Body>(std::move(body));
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  int error = pthread_attr_setstacksize(&attributes, kThreadStackBytes);
  const char* call = "pthread_attr_setstacksize";
  if (error == 0) {
    call = "pthread_create";
    error = pthread_create(&thread.handle_->id, &attributes, &Main, own.get());
  }
  pthread_attr_destroy(&attributes);
  if (error != 0) {
    thread.handle_.reset();
    return ResourceExhausted(
        "cannot start a thread with ", kThreadStackBytes,
        " bytes of stack: ", ErrnoStatus(error, call).message());
  }
  own.release();
  return thread;
}

Thread::Thread() = default;

Thread::~Thread() { Join(); }

Thread::Thread(Thread&& other) noexcept = default;

Thread& Thread::operator=(Thread&& other) noexcept {
  if (this != &other) {
    Join();
    handle_ = std::move(other.handle_);
  }
  return *this;
}

void Thread::Join() {
  if (handle_ == nullptr) return;
  pthread_join(handle_->id, nullptr);
  handle_.reset();
}

void Thread::Detach() {
  if (handle_ == nullptr) return;
  pthread_detach(handle_->id);
  handle_.reset();
}

}  // namespace flashelm
