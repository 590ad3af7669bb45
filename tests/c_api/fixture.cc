#include "tests/c_api/fixture.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace flashelm::test {

flashelm_source PathSource(const std::string& path) {
  auto source = Sized<flashelm_source>();
  source.kind = FLASHELM_SOURCE_PATH;
  source.path = path.c_str();
  return source;
}

flashelm_engine_options MakeOptions(uint64_t budget, uint32_t max_sessions) {
  auto options = Sized<flashelm_engine_options>();
  options.memory_bytes = budget;
  options.max_sessions = max_sessions;
  options.num_threads = 2;
  return options;
}

uint64_t LeastMemory(const flashelm_source& source,
                     flashelm_engine_options options) {
  options.memory_bytes = 0;
  auto plan = Sized<flashelm_plan>();
  flashelm_error error;
  EXPECT_EQ(flashelm_estimate(&source, &options, &plan, &error), FLASHELM_OK)
      << error.message;
  return plan.minimum_bytes;
}

UniqueEngine OpenEngine(const flashelm_source& source,
                        const flashelm_engine_options& options) {
  flashelm_error error;
  UniqueEngine engine(flashelm_engine_open_source(&source, &options, &error));
  EXPECT_NE(engine, nullptr) << error.message;
  return engine;
}

UniqueSession OpenSession(flashelm_engine* engine) {
  flashelm_error error;
  UniqueSession session(flashelm_session_open(engine, &error));
  EXPECT_NE(session, nullptr) << error.message;
  return session;
}

CallbackReader::CallbackReader(const std::string& path)
    : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  struct stat info {};
  EXPECT_EQ(fstat(fd_.get(), &info), 0);
  size_bytes_ = static_cast<uint64_t>(info.st_size);
}

flashelm_source CallbackReader::source() {
  auto source = Sized<flashelm_source>();
  source.kind = FLASHELM_SOURCE_READ;
  source.size_bytes = size_bytes_;
  source.read = Read;
  source.release = [](void* user) {
    ++static_cast<CallbackReader*>(user)->num_released_;
  };
  source.user = this;
  return source;
}

int64_t CallbackReader::Read(void* user, uint64_t offset, void* target,
                             size_t num_bytes) {
  auto& reader = *static_cast<CallbackReader*>(user);
  {
    std::unique_lock lock(reader.mutex_);
    ++reader.num_waiting_;
    reader.changed_.notify_all();
    reader.changed_.wait(lock, [&] { return reader.is_open_; });
    --reader.num_waiting_;
  }
  if (reader.num_calls_++ == reader.fail_at_) return -5;
  // Now and then fewer bytes than asked for, as a stream gives them.
  if (num_bytes > 8192) num_bytes -= 4096;
  return pread(reader.fd_.get(), target, num_bytes, static_cast<off_t>(offset));
}

void CallbackReader::Close() {
  std::lock_guard lock(mutex_);
  is_open_ = false;
}

void CallbackReader::Open() {
  std::lock_guard lock(mutex_);
  is_open_ = true;
  changed_.notify_all();
}

void CallbackReader::AwaitWaiting() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return num_waiting_ > 0 && !is_open_; });
}

bool CallbackReader::is_any_waiting() {
  std::lock_guard lock(mutex_);
  return num_waiting_ > 0;
}

flashelm_generate_options Greedy(uint64_t max_tokens) {
  auto options = Sized<flashelm_generate_options>();
  options.max_tokens = max_tokens;
  options.ignore_eos = 1;
  return options;
}

uint64_t UnansweredBytes(const flashelm_session& session) {
  auto stats = Sized<flashelm_stats>();
  EXPECT_EQ(flashelm_session_get_stats(&session, &stats, nullptr), FLASHELM_OK);
  return stats.unanswered_bytes;
}

Generated Generate(flashelm_session* session, const std::string& prompt,
                   flashelm_generate_options options) {
  Generated generated;
  options.token_user = &generated;
  options.token = [](void* user, uint32_t id, const char* text,
                     size_t text_bytes) {
    auto& to = *static_cast<Generated*>(user);
    EXPECT_EQ(text[text_bytes], '\0');
    to.text.append(text, text_bytes);
    if (id != FLASHELM_NO_TOKEN) to.ids.push_back(id);
    return 0;
  };
  flashelm_error error;
  generated.code = flashelm_generate(session, prompt.data(), prompt.size(),
                                     &options, &generated.result, &error);
  EXPECT_EQ(error.code, generated.code);
  generated.message = error.message;
  return generated;
}

}  // namespace flashelm::test
