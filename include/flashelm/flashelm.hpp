// The library in C++17: owners that close what they hold, and errors that are
// thrown. Header-only, over flashelm.h, which is the manual: what is said there
// of shapes, lifetime, threads and errors is true here.
//
//   flashelm::Engine engine = flashelm::Engine::Open("m.felm", options);
//   flashelm::Session session(engine);
//   session.Generate("Once upon a time", {}, [](std::string_view text) {
//     std::cout << text << std::flush;
//     return true;
//   });
#ifndef FLASHELM_FLASHELM_HPP_
#define FLASHELM_FLASHELM_HPP_

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "flashelm/flashelm.h"

namespace flashelm {
// A name that no symbol inside the library has.
inline namespace cpp0 {

// What a call that failed throws.
class Error : public std::runtime_error {
 public:
  explicit Error(const flashelm_error& error)
      : std::runtime_error(error.message),
        code_(static_cast<flashelm_code>(error.code)) {}
  flashelm_code code() const noexcept { return code_; }

 private:
  flashelm_code code_;
};

// One of the interface's structs with its size, all else 0.
template <class Struct>
Struct Make() {
  Struct made{};
  made.struct_size = sizeof(Struct);
  return made;
}

// Structs with their size. Of a Callback() source only Engine can read.
struct EngineOptions : flashelm_engine_options {
  EngineOptions() : flashelm_engine_options(Make<flashelm_engine_options>()) {}
};
struct GenerateOptions : flashelm_generate_options {
  GenerateOptions()
      : flashelm_generate_options(Make<flashelm_generate_options>()) {}
};
struct Source : flashelm_source {
  Source() : flashelm_source(Make<flashelm_source>()) {}
  // `path` is used during the call that takes the source.
  static Source Path(const char* path) {
    Source source;
    source.kind = FLASHELM_SOURCE_PATH;
    source.path = path;
    return source;
  }
  // size_bytes 0: all that follows.
  static Source Descriptor(int fd, uint64_t offset_bytes = 0,
                           uint64_t size_bytes = 0) {
    Source source;
    source.kind = FLASHELM_SOURCE_FD;
    source.fd = fd;
    source.offset_bytes = offset_bytes;
    source.size_bytes = size_bytes;
    return source;
  }
  // `read` is called by several threads at a time; what it throws counts as a
  // failed read. It lives until the last copy of the source and whatever was
  // opened from one are gone.
  static Source Callback(
      uint64_t size_bytes,
      std::function<int64_t(uint64_t offset, void* target, size_t num_bytes)>
          read) {
    Source source;
    source.kind = FLASHELM_SOURCE_READ;
    source.size_bytes = size_bytes;
    source.read_ = std::make_shared<Read>(std::move(read));
    return source;
  }

 private:
  friend class Engine;
  using Read =
      std::function<int64_t(uint64_t offset, void* target, size_t num_bytes)>;

  // For one call, which releases it.
  static flashelm_source Share(const Source& owner) {
    flashelm_source source = owner;
    if (owner.read_ == nullptr) return source;
    source.user = new std::shared_ptr<Read>(owner.read_);
    source.read = [](void* user, uint64_t offset, void* target,
                     size_t num_bytes) noexcept -> int64_t {
      try {
        return (**static_cast<std::shared_ptr<Read>*>(user))(offset, target,
                                                             num_bytes);
      } catch (...) {
        return -1;
      }
    };
    source.release = [](void* user) {
      delete static_cast<std::shared_ptr<Read>*>(user);
    };
    return source;
  }

  std::shared_ptr<Read> read_;  // Of Callback().
};

// What a session is given to call. It returns whether to go on. What it throws
// ends the call and comes out of it.
using TextCallback = std::function<bool(std::string_view text)>;

// A model. Move-only; closed with its last owner, which sessions are, too.
// Thread-safe.
class Engine {
 public:
  static Engine Open(const char* path, const EngineOptions& options = {}) {
    return Open(Source::Path(path), options);
  }
  static Engine Open(const std::string& path,
                     const EngineOptions& options = {}) {
    return Open(path.c_str(), options);
  }
  static Engine Open(const Source& source, const EngineOptions& options = {}) {
    const flashelm_source shared = Source::Share(source);
    flashelm_error error;
    flashelm_engine* const handle =
        flashelm_engine_open_source(&shared, &options, &error);
    if (handle == nullptr) throw Error(error);
    return Engine(std::shared_ptr<flashelm_engine>(handle, Close));
  }

  // What opening would take. BUDGET_INFEASIBLE is no error here: then only
  // minimum_bytes is filled, and total_bytes is 0.
  static flashelm_plan Estimate(const Source& source,
                                const EngineOptions& options = {}) {
    auto plan = Make<flashelm_plan>();
    const flashelm_source shared = Source::Share(source);
    flashelm_error error;
    const flashelm_code code =
        flashelm_estimate(&shared, &options, &plan, &error);
    if (code != FLASHELM_OK && code != FLASHELM_BUDGET_INFEASIBLE) {
      throw Error(error);
    }
    return plan;
  }

  Engine(Engine&&) noexcept = default;
  Engine& operator=(Engine&&) noexcept = default;

  flashelm_plan plan() const {
    auto plan = Make<flashelm_plan>();
    flashelm_error error;
    Check(flashelm_engine_get_plan(handle(), &plan, &error), error);
    return plan;
  }
  flashelm_model_info info() const {
    auto info = Make<flashelm_model_info>();
    flashelm_error error;
    Check(flashelm_engine_get_info(handle(), &info, &error), error);
    return info;
  }

  void SetBudget(uint64_t memory_bytes) {
    flashelm_error error;
    Check(flashelm_set_budget(handle(), memory_bytes, &error), error);
  }
  void Trim() {
    flashelm_error error;
    Check(flashelm_trim(handle(), &error), error);
  }
  void Pause() {
    flashelm_error error;
    Check(flashelm_pause(handle(), &error), error);
  }
  void Resume() {
    flashelm_error error;
    Check(flashelm_resume(handle(), &error), error);
  }

  std::vector<uint32_t> Tokenize(std::string_view text, bool add_bos) const {
    flashelm_error error;
    size_t num_ids = 0;
    Check(flashelm_tokenize(handle(), text.data(), text.size(), add_bos,
                            nullptr, 0, &num_ids, &error),
          error);
    std::vector<uint32_t> ids(num_ids);
    if (num_ids == 0) return ids;
    Check(flashelm_tokenize(handle(), text.data(), text.size(), add_bos,
                            ids.data(), ids.size(), &num_ids, &error),
          error);
    return ids;
  }
  std::string Detokenize(const std::vector<uint32_t>& ids) const {
    flashelm_error error;
    size_t text_bytes = 0;
    Check(flashelm_detokenize(handle(), ids.data(), ids.size(), nullptr, 0,
                              &text_bytes, &error),
          error);
    std::string text(text_bytes + 1, '\0');
    Check(flashelm_detokenize(handle(), ids.data(), ids.size(), text.data(),
                              text.size(), &text_bytes, &error),
          error);
    text.resize(text_bytes);
    return text;
  }

  // Null once it was moved from.
  flashelm_engine* handle() const { return handle_.get(); }

 private:
  friend class Session;
  explicit Engine(std::shared_ptr<flashelm_engine> handle)
      : handle_(std::move(handle)) {}
  // Sessions hold their engine, so none of them is in a call.
  static void Close(flashelm_engine* handle) noexcept {
    static_cast<void>(flashelm_engine_close(handle));
  }
  static void Check(flashelm_code code, const flashelm_error& error) {
    if (code != FLASHELM_OK) throw Error(error);
  }

  std::shared_ptr<flashelm_engine> handle_;
};

// A text. Move-only, and not moved or destroyed during a call. One call at a
// time, but for Cancel(), ClearCancel() and stats().
class Session {
 public:
  explicit Session(const Engine& engine) : engine_(engine.handle_) {
    flashelm_error error;
    handle_.reset(flashelm_session_open(engine_.get(), &error));
    if (handle_ == nullptr) throw Error(error);
  }
  Session(Session&&) noexcept = default;
  Session& operator=(Session&& other) noexcept {
    handle_ = std::move(other.handle_);  // Before its engine.
    engine_ = std::move(other.engine_);
    return *this;
  }

  // Appends a prompt and what follows it. `show` gets text as it becomes known;
  // `options.token` is not used.
  flashelm_generate_result Generate(std::string_view prompt,
                                    GenerateOptions options,
                                    const TextCallback& show) {
    Shown shown{show, nullptr};
    options.token_user = &shown;
    options.token = [](void* user, uint32_t, const char* text,
                       size_t text_bytes) noexcept -> int {
      auto& to = *static_cast<Shown*>(user);
      if (to.thrown != nullptr) return 1;
      try {
        return !to.show || to.show(std::string_view(text, text_bytes)) ? 0 : 1;
      } catch (...) {
        to.thrown = std::current_exception();
        return 1;
      }
    };
    auto result = Make<flashelm_generate_result>();
    flashelm_error error;
    const flashelm_code code = flashelm_generate(
        handle_.get(), prompt.data(), prompt.size(), &options, &result, &error);
    if (shown.thrown != nullptr) std::rethrow_exception(shown.thrown);
    Engine::Check(code, error);
    return result;
  }
  // The same as one text.
  std::string Generate(std::string_view prompt,
                       const GenerateOptions& options = {}) {
    std::string all;
    Generate(prompt, options, [&all](std::string_view text) {
      all += text;
      return true;
    });
    return all;
  }

  void Prefill(const std::vector<uint32_t>& ids) {
    flashelm_error error;
    Engine::Check(flashelm_prefill(handle_.get(), ids.data(), ids.size(),
                                   nullptr, nullptr, &error),
                  error);
  }
  void Decode(uint32_t id) {
    flashelm_error error;
    Engine::Check(flashelm_decode(handle_.get(), id, &error), error);
  }
  // `logits` is as long as the vocabulary.
  void Logits(std::vector<float>& logits) {
    flashelm_error error;
    Engine::Check(
        flashelm_logits(handle_.get(), logits.data(), logits.size(), &error),
        error);
  }
  void Truncate(uint32_t position) {
    flashelm_error error;
    Engine::Check(flashelm_truncate(handle_.get(), position, &error), error);
  }
  uint32_t position() {
    uint32_t position = 0;
    flashelm_error error;
    Engine::Check(flashelm_position(handle_.get(), &position, &error), error);
    return position;
  }
  flashelm_stats stats() const {
    auto stats = Make<flashelm_stats>();
    flashelm_error error;
    Engine::Check(flashelm_session_get_stats(handle_.get(), &stats, &error),
                  error);
    return stats;
  }

  void Cancel() noexcept { flashelm_cancel(handle_.get()); }
  void ClearCancel() noexcept { flashelm_clear_cancel(handle_.get()); }

  // Null once it was moved from.
  flashelm_session* handle() const { return handle_.get(); }

 private:
  struct Shown {
    const TextCallback& show;
    std::exception_ptr thrown;
  };
  struct Closer {
    void operator()(flashelm_session* handle) const noexcept {
      static_cast<void>(flashelm_session_close(handle));
    }
  };

  std::shared_ptr<flashelm_engine> engine_;  // First: closed last.
  std::unique_ptr<flashelm_session, Closer> handle_;
};

}  // namespace cpp0
}  // namespace flashelm

#endif  // FLASHELM_FLASHELM_HPP_
