// How fast decoding streams weights, beside bare loops that read the same file,
// in turn and in one process: a device's moods last for seconds, and so both
// meet the same ones. What read_bench measures in minutes of their own, these
// loops measure in tenths of a second between two tokens.
//
//   stream_bench --model FILE [--mem-budget LIST] [--io LIST] [-c N] [-t N]
//                [--rounds N] [--slice-ms N] [-o md|json]
//
// --model: a model file, better much larger than any cache of the device.
// Without one, a small model of random weights is written to a temporary
// directory, which shows that this program runs.
// --mem-budget, --io: as flashelm run takes them, and lists with commas: all
// combinations. Budgets are for the engine alone, as in decode_bench.
// --rounds: of each combination. In a round, every loop reads for --slice-ms,
// in a random order, and so does the model decode: a token that does not count,
// so that the ring is as full at the beginning as at the end, and as many more
// as take about a second, at least one.
//
// Of each combination, medians over the rounds and, in brackets, the extremes:
//
//   decoding      bytes from flash per second
//   bare loop     of the loop with the highest median, named below the table
//   of it         decoding over that loop, round by round
//   same bytes    decoding over a loop that moves the bytes that decoding moves
//                 and computes nothing: all threads look at what arrives, and
//                 at as many resident bytes as the model has in RAM for each
//
// Exit code 1: something failed.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bench/decoder.h"
#include "bench/raw_reads.h"
#include "bench/small_model.h"
#include "bench/stream_rate.h"
#include "cli/record.h"
#include "core/base/checked_math.h"
#include "core/base/memory.h"
#include "core/base/processors.h"
#include "core/base/thread_pool.h"
#include "core/base/types.h"
#include "storage/file.h"

namespace flashelm {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr uint64_t kKib = 1024;
constexpr uint64_t kMib = kKib * kKib;
// Of the loops that only read: a small ring is what devices like best.
constexpr uint64_t kBareBytes = 16 * kMib;
// Of the loop that looks at what it reads: the largest ring of an engine.
constexpr uint64_t kRingBytes = 24 * kMib;
constexpr uint64_t kResidentBytes = 1024 * kMib;
// How long the tokens of a round take that count.
constexpr Seconds kDecodeTime{1};

struct Flags {
  std::string model;
  std::vector<std::string> budgets = {"25%", "50%", "75%"};
  std::vector<std::string> ios = {"uring", "pread"};
  uint32_t context = 512;
  uint32_t threads = 0;
  uint32_t rounds = 9;
  uint32_t slice_ms = 150;
  std::string output = "md";
};

double BytesPerSecond(uint64_t num_bytes, Clock::time_point begin) {
  return static_cast<double>(num_bytes) / Seconds(Clock::now() - begin).count();
}

// Something that is measured once in a round.
struct Contestant {
  std::string name;
  std::function<Result<double>()> measure;  // Bytes per second.
  std::vector<double> rates;                // Of the rounds.
};

// What loops read from and to. Stays where it was made.
class Loops {
 public:
  static Result<std::unique_ptr<Loops>> Create(const Flags& flags,
                                               uint32_t num_threads);

  // Loops that only read.
  std::vector<Contestant> Bare();
  // The loop that moves as many resident bytes as streamed ones times `ratio`.
  Contestant SameBytes(double ratio);

 private:
  Loops() = default;
  Result<double> Pread(uint64_t size, uint32_t num_threads);
#ifdef FLASHELM_HAS_URING
  Result<double> Uring(uint64_t size, uint64_t depth);
  Result<double> Shared(double ratio);
#endif

  std::chrono::milliseconds slice_{};
  MemoryBudget budget_{UINT64_MAX};
  std::shared_ptr<const RandomAccessFile> file_;
  ReadCursor cursor_;
  AlignedBuffer target_;
  AlignedBuffer resident_;
  uint64_t resident_at_ = 0;
  std::unique_ptr<ThreadPool> pool_;
};

Result<std::unique_ptr<Loops>> Loops::Create(const Flags& flags,
                                             uint32_t num_threads) {
  std::unique_ptr<Loops> loops(new Loops());
  loops->slice_ = std::chrono::milliseconds(flags.slice_ms);
  FLASHELM_ASSIGN_OR_RETURN(loops->file_,
                            OpenFile(flags.model, CacheMode::kDirect));
  // Whole reads of the largest size.
  loops->cursor_ = {loops->file_->fd(),
                    RoundDown(loops->file_->size_bytes(), kMib), 0};
  if (loops->cursor_.file_bytes == 0) {
    return InvalidArgument(flags.model, ": less than 1 MiB to read");
  }
  const auto make = [&](uint64_t bytes,
                        const char* what) -> Result<AlignedBuffer> {
    FLASHELM_ASSIGN_OR_RETURN(
        AlignedBuffer buffer,
        AlignedBuffer::Create(bytes, loops->budget_, what));
    AdviseHugePages(buffer.bytes());
    FillWithWeights(buffer.bytes());
    return buffer;
  };
  FLASHELM_ASSIGN_OR_RETURN(loops->target_,
                            make(std::max(kBareBytes, kRingBytes), "targets"));
  FLASHELM_ASSIGN_OR_RETURN(loops->resident_, make(kResidentBytes, "resident"));
  FLASHELM_ASSIGN_OR_RETURN(loops->pool_, ThreadPool::Create(num_threads));
  return loops;
}

Result<double> Loops::Pread(uint64_t size, uint32_t num_threads) {
  std::mutex mutex;
  uint64_t num_bytes = 0;
  Status status;
  const auto begin = Clock::now();
  const auto read = [&](uint32_t thread) {
    std::byte* target = target_.data() + thread * size;
    while (Clock::now() - begin < slice_) {
      uint64_t offset = 0;
      {
        const std::lock_guard lock(mutex);
        if (!status.ok()) return;
        offset = cursor_.Take(size);
      }
      const ssize_t got =
          pread(cursor_.fd, target, size, static_cast<off_t>(offset));
      const std::lock_guard lock(mutex);
      if (got != static_cast<ssize_t>(size)) {
        status = Unavailable(file_->path(), ": a bare read failed");
      } else {
        num_bytes += size;
      }
    }
  };
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < num_threads; ++i) threads.emplace_back(read, i);
  for (std::thread& thread : threads) thread.join();
  FLASHELM_RETURN_IF_ERROR(std::move(status));
  return BytesPerSecond(num_bytes, begin);
}

#ifdef FLASHELM_HAS_URING
Result<double> Loops::Uring(uint64_t size, uint64_t depth) {
  RawRing ring(cursor_, target_.bytes().first(kBareBytes), size, depth);
  if (!ring.is_open()) return Unavailable("io_uring_setup failed");
  uint64_t num_bytes = 0;
  const auto begin = Clock::now();
  for (uint64_t slot = 0; slot < depth; ++slot) ring.Prepare(slot);
  ring.Submit();
  while (ring.num_in_flight() > 0) {
    std::optional<uint64_t> slot = ring.Take();
    const bool is_over = Clock::now() - begin >= slice_;
    for (; slot; slot = ring.TryTake()) {
      num_bytes += size;
      if (!is_over) ring.Prepare(*slot);
    }
    ring.Submit();
  }
  if (ring.has_failed()) return Unavailable("a bare read failed");
  return BytesPerSecond(num_bytes, begin);
}

Result<double> Loops::Shared(double ratio) {
  constexpr uint64_t kSize = 512 * kKib;
  constexpr uint64_t kNumSlots = kRingBytes / kSize;
  constexpr uint64_t kDepth = kNumSlots / 3 * 2;
  const uint64_t resident_size =
      RoundDown(static_cast<uint64_t>(ratio * kSize), 2 * kIoAlignment);
  const StreamForm form = {"prefetch_4k", 1, 4096, false};
  RawRing ring(cursor_, target_.bytes(), kSize, kDepth);
  if (!ring.is_open()) return Unavailable("io_uring_setup failed");
  std::vector<bool> has_arrived(kNumSlots, false);
  uint64_t num_begun = 0;
  uint64_t num_taken = 0;
  bool is_over = false;
  const auto refill = [&] {
    while (!is_over && ring.num_in_flight() < kDepth &&
           num_begun < num_taken + kNumSlots) {
      ring.Prepare(num_begun++ % kNumSlots);
    }
    ring.Submit();
  };
  const auto begin = Clock::now();
  for (refill(); num_taken < num_begun; ++num_taken) {
    // In order, as layers need them.
    const uint64_t slot = num_taken % kNumSlots;
    while (!has_arrived[slot]) has_arrived[ring.Take()] = true;
    while (const auto other = ring.TryTake()) has_arrived[*other] = true;
    has_arrived[slot] = false;
    is_over = Clock::now() - begin >= slice_;
    refill();
    ReadStream(form, 0, ring.Slot(slot), *pool_);
    for (uint64_t left = resident_size; left > 0;) {
      if (resident_at_ == resident_.size()) resident_at_ = 0;
      const uint64_t now = std::min(left, resident_.size() - resident_at_);
      ReadStream(form, 0, resident_.bytes().subspan(resident_at_, now), *pool_);
      resident_at_ += now;
      left -= now;
    }
  }
  if (ring.has_failed()) return Unavailable("a bare read failed");
  return BytesPerSecond(num_taken * kSize, begin);
}
#endif

std::vector<Contestant> Loops::Bare() {
  struct Shape {
    uint64_t kib;
    uint32_t at_a_time;
  };
  std::vector<Contestant> result;
  const auto name = [](const char* how, const Shape& shape) {
    return StatusMessage::Join(how, ", ", shape.kib, " KiB x ",
                               shape.at_a_time);
  };
  for (const Shape& shape : {Shape{512, 8}, {1024, 2}, {1024, 4}}) {
    result.push_back(
        {name("pread", shape),
         [this, shape] { return Pread(shape.kib * kKib, shape.at_a_time); },
         {}});
  }
#ifdef FLASHELM_HAS_URING
  for (const Shape& shape :
       {Shape{512, 4}, {512, 8}, {512, 16}, {512, 32}, {1024, 4}, {1024, 8}}) {
    result.push_back(
        {name("io_uring", shape),
         [this, shape] { return Uring(shape.kib * kKib, shape.at_a_time); },
         {}});
  }
#endif
  return result;
}

Contestant Loops::SameBytes(double ratio) {
#ifdef FLASHELM_HAS_URING
  return {"same bytes", [this, ratio] { return Shared(ratio); }, {}};
#else
  (void)ratio;
  return {"same bytes", nullptr, {}};
#endif
}

// The first step does not count: the ring was filled while others were
// measured.
Result<double> Decode(Decoder& decoder, Seconds& step_time) {
  FLASHELM_RETURN_IF_ERROR(decoder.Step());
  const uint64_t before = decoder.stats().store.stream_bytes;
  const auto begin = Clock::now();
  uint32_t num_steps = 0;
  do {
    FLASHELM_RETURN_IF_ERROR(decoder.Step());
    ++num_steps;
  } while (Clock::now() - begin < kDecodeTime);
  step_time = Seconds(Clock::now() - begin) / num_steps;
  return BytesPerSecond(decoder.stats().store.stream_bytes - before, begin);
}

std::vector<double> Ratios(const std::vector<double>& rates,
                           const std::vector<double>& others) {
  std::vector<double> result;
  for (size_t i = 0; i < std::min(rates.size(), others.size()); ++i) {
    result.push_back(rates[i] / others[i]);
  }
  return result;
}

Result<cli::Json> MeasureCase(const cli::EngineArgs& args, const Flags& flags,
                              Loops& loops, std::mt19937& random) {
  FLASHELM_ASSIGN_OR_RETURN(const auto decoder, Decoder::Create(args));
  const MemoryPlan& plan = decoder->engine().plan();
  const auto streamed = static_cast<double>(plan.streamed_bytes_per_token);
  cli::Json json;
  json["mem_budget"] = args.mem_budget;
  json["io"] = std::string(decoder->engine().io_backend());
  json["streamed_bytes_per_token"] = plan.streamed_bytes_per_token;
  json["ring_bytes"] = plan.residency.RingBytes();
  if (plan.streamed_bytes_per_token == 0) {
    return InvalidArgument("--mem-budget ", args.mem_budget,
                           ": all of the model is in RAM, expected less");
  }
  std::vector<Contestant> all = loops.Bare();
  const size_t num_bare = all.size();
  const Contestant same =
      loops.SameBytes(static_cast<double>(plan.weight_bytes) / streamed - 1);
  if (same.measure) all.push_back(same);
  std::vector<double> step_ms;
  const size_t decoding = all.size();
  all.push_back({"decoding",
                 [&]() -> Result<double> {
                   Seconds step_time{};
                   auto rate = Decode(*decoder, step_time);
                   step_ms.push_back(step_time.count() * 1e3);
                   return rate;
                 },
                 {}});
  std::vector<size_t> order(all.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const SessionStats before = decoder->stats();
  for (uint32_t round = 0; round < flags.rounds; ++round) {
    if (isatty(STDERR_FILENO) != 0) {
      std::fprintf(stderr, "\r%s, %s: round %u of %u ", args.mem_budget.c_str(),
                   args.io.c_str(), round + 1, flags.rounds);
    }
    std::ranges::shuffle(order, random);
    for (const size_t i : order) {
      FLASHELM_ASSIGN_OR_RETURN(const double rate, all[i].measure());
      all[i].rates.push_back(rate);
    }
  }
  if (isatty(STDERR_FILENO) != 0) std::fputc('\n', stderr);
  const SessionStats stats = cli::Difference(decoder->stats(), before);
  cli::Measurement measurement;
  measurement.decode = stats;
  cli::Json record;
  cli::AddMeasurementKeys(measurement, record);
  const auto best = std::max_element(
      all.begin(), all.begin() + static_cast<ptrdiff_t>(num_bare),
      [](const Contestant& a, const Contestant& b) {
        return *cli::Median(a.rates) < *cli::Median(b.rates);
      });
  const std::vector<double>& decoded = all[decoding].rates;
  json["best_loop"] = best->name;
  json["of_bare"] = Ratios(decoded, best->rates);
  json["of_same_bytes"] = same.measure
                              ? cli::Json(Ratios(decoded, all[num_bare].rates))
                              : cli::Json(nullptr);
  json["same_bytes_of_bare"] =
      same.measure ? cli::Json(Ratios(all[num_bare].rates, best->rates))
                   : cli::Json(nullptr);
  json["token_ms"] = *cli::Median(step_ms);
  for (const char* key : {"io_wait_ms", "compute_ms"}) json[key] = record[key];
  for (const Contestant& contestant : all) {
    json["bytes_per_second"][contestant.name] = contestant.rates;
  }
  return json;
}

// The median, and in brackets the lowest and the highest.
std::string Cell(const cli::Json& values, double factor) {
  if (!values.is_array() || values.empty()) return "-";
  auto all = values.get<std::vector<double>>();
  for (double& value : all) value *= factor;
  const auto [low, high] = std::ranges::minmax(all);
  char text[64];
  std::snprintf(text, sizeof(text), "%.2f (%.2f to %.2f)", *cli::Median(all),
                low, high);
  return text;
}

void Print(const cli::Json& cases) {
  std::puts(
      "| budget | reader | decoding, GB/s | bare loop, GB/s | of it | same "
      "bytes, of the bare loop | decoding, of that | ms a token | of them "
      "computing |\n|---|---|---:|---:|---:|---:|---:|---:|---:|");
  for (const cli::Json& row : cases) {
    const cli::Json& rates = row["bytes_per_second"];
    std::printf("| %s | %s | %s | %s | %s | %s | %s | %.0f | %.0f |\n",
                row["mem_budget"].get<std::string>().c_str(),
                row["io"].get<std::string>().c_str(),
                Cell(rates["decoding"], 1e-9).c_str(),
                Cell(rates[row["best_loop"].get<std::string>()], 1e-9).c_str(),
                Cell(row["of_bare"], 1).c_str(),
                Cell(row["same_bytes_of_bare"], 1).c_str(),
                Cell(row["of_same_bytes"], 1).c_str(),
                row["token_ms"].get<double>(), row["compute_ms"].get<double>());
  }
  std::puts("");
  for (const cli::Json& row : cases) {
    std::printf("%s, %s: the bare loop is %s\n",
                row["mem_budget"].get<std::string>().c_str(),
                row["io"].get<std::string>().c_str(),
                row["best_loop"].get<std::string>().c_str());
  }
}

Status Run(const Flags& flags) {
  const uint32_t num_threads =
      flags.threads != 0 ? flags.threads : FindUsableProcessors().num_cores;
  FLASHELM_ASSIGN_OR_RETURN(const auto loops,
                            Loops::Create(flags, num_threads));
  std::mt19937 random(1);
  cli::Json cases = cli::Json::array();
  for (const std::string& budget : flags.budgets) {
    for (const std::string& io : flags.ios) {
      cli::EngineArgs args;
      args.model = flags.model;
      args.mem_budget = budget;
      args.io = io;
      args.context = flags.context;
      args.threads = num_threads;
      FLASHELM_ASSIGN_OR_RETURN(auto measured,
                                MeasureCase(args, flags, *loops, random));
      cases.push_back(std::move(measured));
    }
  }
  if (flags.output == "json") {
    std::puts(cases.dump(2).c_str());
  } else {
    Print(cases);
  }
  return OkStatus();
}

int Fail(const Status& status) {
  std::fprintf(stderr, "stream_bench: %s\n", status.message().c_str());
  return 1;
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Decoding and bare loops that read the same file, in turn.",
               "stream_bench");
  app.add_option("-m,--model", flags.model,
                 "Model file; by default a small one of random weights");
  app.add_option("--mem-budget", flags.budgets,
                 "RAM of the engine, as run takes it")
      ->delimiter(',');
  app.add_option("--io", flags.ios, "How the engine reads the file")
      ->delimiter(',')
      ->check(CLI::IsMember({"auto", "uring", "pread"}));
  app.add_option("-c,--ctx-size", flags.context, "Positions");
  app.add_option("-t,--threads", flags.threads,
                 "Threads of computation; 0: one for each core")
      ->check(CLI::Range(0u, kMaxThreads));
  app.add_option("--rounds", flags.rounds, "Rounds of each combination")
      ->check(CLI::Range(1u, 10000u));
  app.add_option("--slice-ms", flags.slice_ms, "How long a loop reads a round")
      ->check(CLI::Range(1u, 60000u));
  app.add_option("-o,--output", flags.output, "Table, or all rates as JSON")
      ->check(CLI::IsMember({"md", "json"}));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const auto small = SmallModel::WriteUnlessGiven(flags.model);
  if (!small) return Fail(small.error());
  const Status status = Run(flags);
  return status.ok() ? 0 : Fail(status);
}

}  // namespace
}  // namespace flashelm

int main(int argc, char** argv) { return flashelm::Main(argc, argv); }
