// How long a call takes to return after flashelm_cancel(), at random moments of
// prompts and of decoding: with all weights in RAM, streamed, and streamed by
// reads that hang. Afterwards the session goes on, and its tokens are compared
// with those of an undisturbed one.
//
//   cancel_bench --model FILE [--rounds N] [--prompt N] [--hang SECONDS]
//                [--threads N] [--seed N]
//
// --rounds: moments of each kind [200]; --prompt: tokens [256]; --hang: how
// long a read takes that hangs [30]. Markdown on standard output. Exit code 1:
// a text was another than it should be, or a call failed.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "include/flashelm/flashelm.h"

namespace {

using Clock = std::chrono::steady_clock;

struct Flags {
  std::string model;
  uint32_t rounds = 200;
  uint32_t prompt = 256;
  double hang_seconds = 30;
  uint32_t threads = 0;
  uint64_t seed = 1;
};

[[noreturn]] void Fail(const std::string& what) {
  std::fprintf(stderr, "cancel_bench: %s\n", what.c_str());
  std::exit(1);
}

void Check(flashelm_code code, const flashelm_error& error) {
  if (code != FLASHELM_OK) Fail(error.message);
}

template <class Struct>
Struct Sized() {
  Struct made{};
  made.struct_size = sizeof(Struct);
  return made;
}

// A file whose reads can be made to hang.
class Device {
 public:
  Device(const std::string& path, double hang_seconds)
      : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)), hang_(hang_seconds) {
    struct stat info {};
    if (fd_ < 0 || fstat(fd_, &info) != 0) Fail(path + ": cannot be opened");
    size_bytes_ = static_cast<uint64_t>(info.st_size);
  }

  flashelm_source source() {
    auto source = Sized<flashelm_source>();
    source.kind = FLASHELM_SOURCE_READ;
    source.size_bytes = size_bytes_;
    source.user = this;
    source.read = [](void* user, uint64_t offset, void* target,
                     size_t num_bytes) -> int64_t {
      auto& device = *static_cast<Device*>(user);
      device.WaitWhileHanging();
      return pread(device.fd_, target, num_bytes, static_cast<off_t>(offset));
    };
    return source;
  }

  void Hang(bool hangs) {
    std::lock_guard lock(mutex_);
    hangs_ = hangs;
    changed_.notify_all();
  }

 private:
  void WaitWhileHanging() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, hang_, [this] { return !hangs_; });
  }

  const int fd_;
  const std::chrono::duration<double> hang_;
  uint64_t size_bytes_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool hangs_ = false;
};

// A model with one session.
class Model {
 public:
  // All is resident, or a good part is streamed.
  Model(Device& device, const Flags& flags, bool streams) {
    auto options = Sized<flashelm_engine_options>();
    options.num_threads = flags.threads;
    options.context = flags.prompt + kTokens + 1;
    const flashelm_source source = device.source();
    flashelm_error error;
    if (streams) {
      auto plan = Sized<flashelm_plan>();
      Check(flashelm_estimate(&source, &options, &plan, &error), error);
      // With so little memory that a prompt is computed token by token, a round
      // would take minutes.
      options.memory_bytes =
          plan.minimum_bytes + (plan.total_bytes - plan.minimum_bytes) / 4;
    }
    engine_ = flashelm_engine_open_source(&source, &options, &error);
    if (engine_ == nullptr) Fail(error.message);
    session_ = flashelm_session_open(engine_, &error);
    if (session_ == nullptr) Fail(error.message);
    auto info = Sized<flashelm_model_info>();
    Check(flashelm_engine_get_info(engine_, &info, &error), error);
    prompt_.push_back(info.bos_id);
    std::mt19937_64 random(flags.seed);
    while (prompt_.size() < flags.prompt) {
      prompt_.push_back(static_cast<uint32_t>(random() % info.vocab_size));
    }
  }
  ~Model() {
    flashelm_session_close(session_);
    flashelm_engine_close(engine_);
  }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  static constexpr uint32_t kTokens = 64;

  flashelm_code Prefill(flashelm_error& error) {
    return flashelm_prefill(session_, prompt_.data(), prompt_.size(), nullptr,
                            nullptr, &error);
  }
  // Appends to `ids`.
  flashelm_code Decode(uint32_t num_tokens, std::vector<uint32_t>& ids,
                       flashelm_error& error) {
    auto options = Sized<flashelm_generate_options>();
    options.max_tokens = num_tokens;
    options.ignore_eos = 1;
    options.token_user = &ids;
    options.token = [](void* user, uint32_t id, const char*, size_t) {
      if (id != FLASHELM_NO_TOKEN) {
        static_cast<std::vector<uint32_t>*>(user)->push_back(id);
      }
      return 0;
    };
    return flashelm_generate(session_, nullptr, 0, &options, nullptr, &error);
  }
  void Truncate(uint32_t position) {
    flashelm_error error;
    Check(flashelm_truncate(session_, position, &error), error);
  }
  uint32_t Position() {
    uint32_t position = 0;
    flashelm_error error;
    Check(flashelm_position(session_, &position, &error), error);
    return position;
  }
  void Cancel() { flashelm_cancel(session_); }
  void ClearCancel() { flashelm_clear_cancel(session_); }
  uint32_t num_prompt() const { return static_cast<uint32_t>(prompt_.size()); }

 private:
  flashelm_engine* engine_ = nullptr;
  flashelm_session* session_ = nullptr;
  std::vector<uint32_t> prompt_;
};

class Bench {
 public:
  explicit Bench(const Flags& flags)
      : flags_(flags),
        device_(flags.model, flags.hang_seconds),
        random_(flags.seed) {}

  void Run() {
    std::printf(
        "| weights | call | moments | median ms | p90 ms | most ms |\n"
        "|---|---|---:|---:|---:|---:|\n");
    for (const bool streams : {false, true}) {
      Model model(device_, flags_, streams);
      Learn(model);
      for (const bool hangs : {false, true}) {
        if (hangs && !streams) continue;
        const char* name = !streams ? "in RAM"
                           : hangs  ? "streamed, reads hang"
                                    : "streamed";
        Print(name, "prompt", Prompts(model, hangs));
        Print(name, "decoding", Decoding(model, hangs));
      }
    }
  }

 private:
  using Milliseconds = std::chrono::duration<double, std::milli>;

  // What the undisturbed session gives, and how long it takes.
  void Learn(Model& model) {
    flashelm_error error;
    auto begin = Clock::now();
    Check(model.Prefill(error), error);
    prompt_time_ = Clock::now() - begin;
    begin = Clock::now();
    std::vector<uint32_t> ids;
    Check(model.Decode(Model::kTokens, ids, error), error);
    decode_time_ = Clock::now() - begin;
    if (!expected_.empty() && ids != expected_) {
      Fail("streamed weights give another text than those in RAM");
    }
    expected_ = std::move(ids);
  }

  void Sleep(Milliseconds most) {
    std::uniform_real_distribution<double> part(0, 1);
    std::this_thread::sleep_for(most * part(random_));
  }

  // Starts call(), waits for some of `time`, cancels, and says how long it
  // still took; below 0 where it had ended before.
  template <class Call>
  double CancelWithin(Model& model, Milliseconds time, bool hangs,
                      const Call& call) {
    flashelm_code code = FLASHELM_OK;
    flashelm_error error;
    Clock::time_point end;
    std::thread caller([&] {
      code = call(error);
      end = Clock::now();
    });
    Sleep(time);
    if (hangs) {
      device_.Hang(true);
      // Until what was read before has been computed, and longer.
      Sleep(Milliseconds(50));
    }
    const auto begin = Clock::now();
    model.Cancel();
    caller.join();
    device_.Hang(false);
    model.ClearCancel();
    if (code == FLASHELM_OK) return -1;
    if (code != FLASHELM_CANCELLED) Fail(error.message);
    return Milliseconds(end - begin).count();
  }

  std::vector<double> Prompts(Model& model, bool hangs) {
    std::vector<double> all;
    while (all.size() < flags_.rounds) {
      model.Truncate(0);
      const double ms = CancelWithin(
          model, prompt_time_, hangs,
          [&](flashelm_error& error) { return model.Prefill(error); });
      if (ms < 0) continue;
      all.push_back(ms);
      if (model.Position() != 0) Fail("a cancelled prompt left tokens behind");
      // Not each time: that is the longer part.
      if (all.size() % 20 != 0) continue;
      flashelm_error error;
      std::vector<uint32_t> ids;
      Check(model.Prefill(error), error);
      Check(model.Decode(2, ids, error), error);
      Compare(ids);
    }
    return all;
  }

  std::vector<double> Decoding(Model& model, bool hangs) {
    std::vector<double> all;
    flashelm_error error;
    model.Truncate(0);
    Check(model.Prefill(error), error);
    std::vector<uint32_t> ids;
    while (all.size() < flags_.rounds) {
      const double ms =
          CancelWithin(model, decode_time_ * 3 / Model::kTokens, hangs,
                       [&](flashelm_error& its_error) {
                         return model.Decode(
                             Model::kTokens - static_cast<uint32_t>(ids.size()),
                             ids, its_error);
                       });
      if (ms >= 0) all.push_back(ms);
      Compare(ids);
      if (ids.size() + 8 < Model::kTokens) continue;
      model.Truncate(model.num_prompt());
      ids.clear();
    }
    return all;
  }

  void Compare(const std::vector<uint32_t>& ids) const {
    if (!std::equal(ids.begin(), ids.end(), expected_.begin())) {
      Fail("after a cancellation the text went on in another way");
    }
  }

  static void Print(const char* weights, const char* call,
                    std::vector<double> all) {
    std::sort(all.begin(), all.end());
    std::printf("| %s | %s | %zu | %.2f | %.2f | %.2f |\n", weights, call,
                all.size(), all[all.size() / 2], all[all.size() * 9 / 10],
                all.back());
    std::fflush(stdout);
  }

  const Flags flags_;
  Device device_;
  std::mt19937_64 random_;
  Milliseconds prompt_time_{};
  Milliseconds decode_time_{};
  std::vector<uint32_t> expected_;
};

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  CLI::App app("How long flashelm_cancel() takes", "cancel_bench");
  app.add_option("-m,--model", flags.model, "a model file")->required();
  app.add_option("--rounds", flags.rounds, "moments of each kind [200]")
      ->check(CLI::Range(1, 100000));
  app.add_option("--prompt", flags.prompt, "tokens of the prompt [256]")
      ->check(CLI::Range(2, 1900));
  app.add_option("--hang", flags.hang_seconds, "seconds of a read that hangs");
  app.add_option("--threads", flags.threads, "that compute; 0: fast cores");
  app.add_option("--seed", flags.seed, "of moments and prompt");
  CLI11_PARSE(app, argc, argv);
  Bench(flags).Run();
  return 0;
}
