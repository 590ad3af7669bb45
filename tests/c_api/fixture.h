// What the tests of the C interface share.
#ifndef FLASHELM_TESTS_C_API_FIXTURE_H_
#define FLASHELM_TESTS_C_API_FIXTURE_H_

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "include/flashelm/flashelm.h"
#include "storage/file.h"

namespace flashelm::test {

// A struct of the interface with its size.
template <class Struct>
Struct Sized() {
  Struct made{};
  made.struct_size = sizeof(Struct);
  return made;
}

struct EngineCloser {
  void operator()(flashelm_engine* engine) const {
    EXPECT_EQ(flashelm_engine_close(engine), FLASHELM_OK);
  }
};
using UniqueEngine = std::unique_ptr<flashelm_engine, EngineCloser>;
struct SessionCloser {
  void operator()(flashelm_session* session) const {
    EXPECT_EQ(flashelm_session_close(session), FLASHELM_OK);
  }
};
using UniqueSession = std::unique_ptr<flashelm_session, SessionCloser>;

flashelm_source PathSource(const std::string& path);

// Options for `budget` bytes; 0: everything is resident. Two threads.
flashelm_engine_options MakeOptions(uint64_t budget = 0,
                                    uint32_t max_sessions = 1);

// The smallest budget that is feasible.
uint64_t LeastMemory(const flashelm_source& source,
                     flashelm_engine_options options);

// Fail the test, and return null, on error.
UniqueEngine OpenEngine(const flashelm_source& source,
                        const flashelm_engine_options& options);
UniqueSession OpenSession(flashelm_engine* engine);

// A read callback over a file, which can fail, wait, and count.
class CallbackReader {
 public:
  explicit CallbackReader(const std::string& path);
  // Refers to this object, which outlives what is opened from it.
  flashelm_source source();

  void FailAt(int64_t call) { fail_at_ = call; }
  int64_t num_calls() const { return num_calls_; }
  int num_released() const { return num_released_; }

  // Reads wait from here on, until Open().
  void Close();
  void Open();
  // Waits until a read waits.
  void AwaitWaiting();
  bool is_any_waiting();

 private:
  static int64_t Read(void* user, uint64_t offset, void* target,
                      size_t num_bytes);

  UniqueFd fd_;
  uint64_t size_bytes_ = 0;
  std::atomic<int64_t> fail_at_{-1};
  std::atomic<int64_t> num_calls_{0};
  std::atomic<int> num_released_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_open_ = true;
  int num_waiting_ = 0;
};

// As a session saw them last.
uint64_t UnansweredBytes(const flashelm_session& session);

// What a token callback saw.
struct Generated {
  std::string text;
  std::vector<uint32_t> ids;
  flashelm_generate_result result = Sized<flashelm_generate_result>();
  flashelm_code code = FLASHELM_OK;
  std::string message;
};
// Goes on as `options` say, which need no callback.
Generated Generate(flashelm_session* session, const std::string& prompt,
                   flashelm_generate_options options);
// Greedy, through ends of texts, as the recorded outputs are.
flashelm_generate_options Greedy(uint64_t max_tokens);

}  // namespace flashelm::test

#endif  // FLASHELM_TESTS_C_API_FIXTURE_H_
