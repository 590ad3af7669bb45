// A program in C++ that streams a text to its user, who can stop it at any
// moment and go on: what an application does with a button.
//
//   stream MODEL.felm MEBIBYTES PROMPT [STOP_AFTER_MS]
//
// After so many milliseconds, or Ctrl-C, the text is stopped in the middle of
// whatever it does; then it goes on to its end.
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>
#include <string_view>
#include <thread>

#include "flashelm/flashelm.hpp"

namespace {

std::atomic<flashelm_session*> interrupted{nullptr};
static_assert(std::atomic<flashelm_session*>::is_always_lock_free,
              "a signal handler may only touch lock-free atomics");

// flashelm_cancel() only stores a flag, so a signal handler may call it.
extern "C" void OnInterrupt(int) { flashelm_cancel(interrupted.load()); }

// Ctrl-C stops a session as long as this lives, which is less than the session.
class Interruptible {
 public:
  explicit Interruptible(const flashelm::Session& session) {
    interrupted = session.handle();
    std::signal(SIGINT, OnInterrupt);
  }
  ~Interruptible() {
    std::signal(SIGINT, SIG_DFL);
    interrupted = nullptr;
  }
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;
};

bool Print(std::string_view text) {
  std::cout << text << std::flush;
  return std::cout.good();
}

// Whether the text has come to its end: not when it was stopped.
bool Stream(flashelm::Session& session, std::string_view prompt) {
  flashelm::GenerateOptions options;
  options.max_tokens = 60;
  options.temperature = 0.8f;
  options.top_p = 0.95f;
  options.seed = 7;
  try {
    const flashelm_generate_result result =
        session.Generate(prompt, options, Print);
    std::cerr << "\n" << result.num_tokens << " tokens\n";
    return true;
  } catch (const flashelm::Error& error) {
    if (error.code() != FLASHELM_CANCELLED) throw;
    std::cerr << "\n[stopped]\n";
    return false;
  }
}

void Run(const std::string& model, uint64_t memory_bytes,
         const std::string& prompt, int stop_after_ms) {
  flashelm::EngineOptions options;
  options.memory_bytes = memory_bytes;
  options.context = 256;
  options.log = [](void*, int32_t level, const char* message) {
    std::cerr << (level == FLASHELM_LOG_WARNING ? "warning: " : "") << message
              << "\n";
  };
  const flashelm::Engine engine = flashelm::Engine::Open(model, options);
  flashelm::Session session(engine);

  const Interruptible interruptible(session);
  std::thread button;
  if (stop_after_ms >= 0) {
    button = std::thread([&session, stop_after_ms] {
      std::this_thread::sleep_for(std::chrono::milliseconds(stop_after_ms));
      session.Cancel();
    });
  }

  Print(prompt);
  bool has_ended = false;
  try {
    has_ended = Stream(session, prompt);
  } catch (...) {
    if (button.joinable()) button.join();
    throw;
  }
  if (button.joinable()) button.join();
  // From here on it may be used again. What was read of the prompt when it was
  // stopped is not in the text, so the prompt is given once more then.
  session.ClearCancel();
  if (!has_ended) Stream(session, session.position() == 0 ? prompt : "");

  const flashelm_stats stats = session.stats();
  std::cerr << stats.used_bytes / 1048576 << " MiB of RAM, "
            << stats.flash_bytes / 1048576 << " MiB read\n";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) {
    std::cerr << "usage: " << argv[0]
              << " MODEL.felm MEBIBYTES PROMPT [STOP_AFTER_MS]\n";
    return 2;
  }
  try {
    Run(argv[1], std::strtoull(argv[2], nullptr, 10) << 20, argv[3],
        argc == 5 ? std::atoi(argv[4]) : -1);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
