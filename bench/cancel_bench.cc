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
#include <exception>
#include <mutex>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "flashelm/flashelm.hpp"

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

void Expect(bool is_so, const char* otherwise) {
  if (!is_so) throw std::runtime_error(otherwise);
}

// A file whose reads can be made to hang.
class Device {
 public:
  Device(const std::string& path, double hang_seconds)
      : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)), hang_(hang_seconds) {
    struct stat info {};
    Expect(fd_ >= 0 && fstat(fd_, &info) == 0, "the model cannot be opened");
    size_bytes_ = static_cast<uint64_t>(info.st_size);
  }

  flashelm::Source source() {
    return flashelm::Source::Callback(
        size_bytes_, [this](uint64_t offset, void* target, size_t num_bytes) {
          WaitWhileHanging();
          return static_cast<int64_t>(
              pread(fd_, target, num_bytes, static_cast<off_t>(offset)));
        });
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
  static constexpr uint32_t kTokens = 64;

  // All is resident, or a good part is streamed.
  Model(Device& device, const Flags& flags, bool streams)
      : engine_(flashelm::Engine::Open(device.source(),
                                       OptionsOf(device, flags, streams))),
        session_(engine_),
        prompt_{engine_.info().bos_id} {
    std::mt19937_64 random(flags.seed);
    while (prompt_.size() < flags.prompt) {
      prompt_.push_back(
          static_cast<uint32_t>(random() % engine_.info().vocab_size));
    }
  }

  void Prefill() { session_.Prefill(prompt_); }
  // Appends to `ids`.
  void Decode(uint32_t num_tokens, std::vector<uint32_t>& ids) {
    flashelm::GenerateOptions options;
    options.max_tokens = num_tokens;
    options.ignore_eos = 1;
    options.token_user = &ids;
    options.token = [](void* user, uint32_t id, const char*, size_t) {
      if (id != FLASHELM_NO_TOKEN) {
        static_cast<std::vector<uint32_t>*>(user)->push_back(id);
      }
      return 0;
    };
    flashelm_error error;
    // Session::Generate() gives text, and here are ids compared.
    if (flashelm_generate(session_.handle(), nullptr, 0, &options, nullptr,
                          &error) != FLASHELM_OK) {
      throw flashelm::Error(error);
    }
  }
  flashelm::Session& session() { return session_; }
  uint32_t num_prompt() const { return static_cast<uint32_t>(prompt_.size()); }

 private:
  static flashelm::EngineOptions OptionsOf(Device& device, const Flags& flags,
                                           bool streams) {
    flashelm::EngineOptions options;
    options.num_threads = flags.threads;
    options.context = flags.prompt + kTokens + 1;
    if (streams) {
      const flashelm_plan plan =
          flashelm::Engine::Estimate(device.source(), options);
      // With so little memory that a prompt is computed token by token, a round
      // would take minutes.
      options.memory_bytes =
          plan.minimum_bytes + (plan.total_bytes - plan.minimum_bytes) / 4;
    }
    return options;
  }

  flashelm::Engine engine_;
  flashelm::Session session_;
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
    auto begin = Clock::now();
    model.Prefill();
    prompt_time_ = Clock::now() - begin;
    begin = Clock::now();
    std::vector<uint32_t> ids;
    model.Decode(Model::kTokens, ids);
    decode_time_ = Clock::now() - begin;
    Expect(expected_.empty() || ids == expected_,
           "streamed weights give another text than those in RAM");
    expected_ = std::move(ids);
  }

  void Sleep(Milliseconds most) {
    std::uniform_real_distribution<double> part(0, 1);
    std::this_thread::sleep_for(most * part(random_));
  }

  // Starts call(), waits for some of `time`, cancels, and says how long it
  // still took; nothing where it had ended before.
  template <class Call>
  std::optional<double> CancelWithin(Model& model, Milliseconds time,
                                     bool hangs, const Call& call) {
    std::optional<flashelm::Error> error;
    Clock::time_point end;
    std::thread caller([&] {
      try {
        call();
      } catch (const flashelm::Error& thrown) {
        error = thrown;
      }
      end = Clock::now();
    });
    Sleep(time);
    if (hangs) {
      device_.Hang(true);
      // Until what was read before has been computed, and longer.
      Sleep(Milliseconds(50));
    }
    const auto begin = Clock::now();
    model.session().Cancel();
    caller.join();
    device_.Hang(false);
    model.session().ClearCancel();
    if (!error) return std::nullopt;
    if (error->code() != FLASHELM_CANCELLED) throw *error;
    return Milliseconds(end - begin).count();
  }

  std::vector<double> Prompts(Model& model, bool hangs) {
    std::vector<double> all;
    while (all.size() < flags_.rounds) {
      model.session().Truncate(0);
      const auto ms =
          CancelWithin(model, prompt_time_, hangs, [&] { model.Prefill(); });
      if (!ms) continue;
      all.push_back(*ms);
      Expect(model.session().position() == 0,
             "a cancelled prompt left tokens behind");
      // Not each time: that is the longer part.
      if (all.size() % 20 != 0) continue;
      std::vector<uint32_t> ids;
      model.Prefill();
      model.Decode(2, ids);
      Compare(ids);
    }
    return all;
  }

  std::vector<double> Decoding(Model& model, bool hangs) {
    std::vector<double> all;
    model.session().Truncate(0);
    model.Prefill();
    std::vector<uint32_t> ids;
    while (all.size() < flags_.rounds) {
      const auto ms =
          CancelWithin(model, decode_time_ * 3 / Model::kTokens, hangs, [&] {
            model.Decode(Model::kTokens - static_cast<uint32_t>(ids.size()),
                         ids);
          });
      if (ms) all.push_back(*ms);
      Compare(ids);
      if (ids.size() + 8 < Model::kTokens) continue;
      model.session().Truncate(model.num_prompt());
      ids.clear();
    }
    return all;
  }

  void Compare(const std::vector<uint32_t>& ids) const {
    Expect(std::equal(ids.begin(), ids.end(), expected_.begin()),
           "after a cancellation the text went on in another way");
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
  try {
    Bench(flags).Run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cancel_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
