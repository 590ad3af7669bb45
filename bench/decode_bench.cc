// How long one decode step takes in process: Session::Run() of one token after
// others, without sampling, text or a process of its own around it.
//
//   decode_bench [--model FILE] [--mem-budget LIST] [--io LIST]
//                [--sparsity LIST] [--neuron-reads HOW] [-c N] [-t N]
//                [--stream-mib N] [--benchmark_...]
//
// --model: a model file; without one, a small model of random weights is
// written to a temporary directory. It fits the caches of large processors, so
// its rates say that the benchmark runs, and nothing of DRAM.
// --mem-budget, --io, --sparsity: as flashelm run takes them, and lists with
// commas: a benchmark for every combination. Budgets are for the engine alone,
// as in an application that links it: this process has memory besides. "all" is
// a budget that refuses nothing.
// -c: positions; steps take those after a prompt of up to 16 tokens in turn.
// --stream-mib: memory that plain loops read before and after each measurement,
// 2048 by default.
//
// Counters, the means of the steps:
//
//   tokens/s, and of each token flash_bytes, io_busy_ms, io_wait_ms, memory_ms
//   and compute_ms: the keys of docs/BENCHMARKING.md
//   weight_GB/s     weights that were computed with, from RAM or flash
//   stream_GB/s     the fastest loop that only reads memory, in this run
//   of_stream       the one over the other: all resident, 1 is the bound
//
// What was not measured is left out. Exit code 1: a benchmark failed.

#include <benchmark/benchmark.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bench/decoder.h"
#include "bench/small_model.h"
#include "bench/stream_rate.h"
#include "cli/record.h"
#include "core/base/memory.h"
#include "core/base/processors.h"
#include "core/simd.h"

namespace flashelm {
namespace {

struct Flags {
  std::string model;
  std::vector<std::string> budgets = {std::string(Decoder::kNoBudget)};
  std::vector<std::string> ios = {"auto"};
  std::vector<std::string> sparsities = {"auto"};
  std::string neuron_reads = "auto";
  uint32_t context = 128;
  uint32_t threads = 0;
  uint32_t stream_mib = 2048;
};

// What benchmarks share. A model is loaded for the first run of a benchmark and
// stays until another one needs the memory: Google Benchmark calls a function
// several times until it knows how often to repeat it.
struct Setting {
  std::optional<StreamMeter> stream;
  std::unique_ptr<Decoder> decoder;
  size_t decoder_case = SIZE_MAX;
  bool has_failed = false;
};

Setting& TheSetting() {
  static Setting setting;
  return setting;
}

// The keys of a record that are numbers.
void AddCounters(const Decoder& decoder, const SessionStats& decode,
                 benchmark::State& state) {
  cli::Measurement measurement;
  measurement.decode = decode;
  measurement.counts_reads =
      decoder.engine().plan_options().io != IoBackend::kMmap;
  cli::Json record;
  cli::AddMeasurementKeys(measurement, record);
  const std::pair<const char*, const char*> counters[] = {
      {"flash_bytes", "flash_bytes_per_token"},
      {"flash_GB/s", "flash_read_gbps"},
      {"io_busy_ms", "io_busy_ms"},
      {"io_wait_ms", "io_wait_ms"},
      {"memory_ms", "memory_ms"},
      {"compute_ms", "compute_ms"},
      {"kept_fraction", "kept_fraction"},
      {"cache_hit_rate", "cache_hit_rate"}};
  for (const auto& [counter, key] : counters) {
    if (record[key].is_number()) {
      state.counters[counter] = record[key].get<double>();
    }
  }
  const double kept_fraction = record["kept_fraction"].is_number()
                                   ? record["kept_fraction"].get<double>()
                                   : 1;
  // Of Session::Run() alone, in nanoseconds.
  state.counters["weight_GB/s"] = decoder.WeightBytes(kept_fraction) *
                                  static_cast<double>(decode.num_tokens) /
                                  static_cast<double>(decode.total_ns);
}

void BM_DecodeStep(benchmark::State& state, size_t index,
                   const cli::EngineArgs& args) {
  Setting& setting = TheSetting();
  const auto fail = [&](const Status& status) {
    setting.has_failed = true;
    state.SkipWithError(status.message().c_str());
  };
  if (setting.decoder_case != index) {
    setting.decoder.reset();
    setting.decoder_case = SIZE_MAX;
    auto decoder = Decoder::Create(args);
    if (!decoder) return fail(decoder.error());
    setting.decoder = std::move(*decoder);
    setting.decoder_case = index;
  }
  Decoder& decoder = *setting.decoder;
  const double before = setting.stream->Measure();
  const SessionStats stats_before = decoder.stats();
  for (auto _ : state) {
    const Status status = decoder.Step();
    if (!status.ok()) {
      fail(status);
      break;
    }
  }
  const double stream = (before + setting.stream->Measure()) / 2 * 1e-9;
  const SessionStats decode = cli::Difference(decoder.stats(), stats_before);
  if (decode.num_tokens == 0) return;
  AddCounters(decoder, decode, state);
  state.counters["tokens/s"] = benchmark::Counter(
      static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
  state.counters["stream_GB/s"] = stream;
  state.counters["of_stream"] = state.counters["weight_GB/s"] / stream;
  state.SetLabel(StatusMessage::Join(decoder.engine().io_backend(), ", ",
                                     decoder.engine().model().weights_name()));
}

void RegisterAll(const Flags& flags) {
  size_t index = 0;
  for (const std::string& budget : flags.budgets) {
    for (const std::string& io : flags.ios) {
      for (const std::string& sparsity : flags.sparsities) {
        cli::EngineArgs args;
        args.model = flags.model;
        args.mem_budget = budget;
        args.io = io;
        args.allow_unenforced = io == "mmap";
        args.sparsity = sparsity;
        args.neuron_reads = flags.neuron_reads;
        args.context = flags.context;
        args.threads = flags.threads;
        const std::string name =
            StatusMessage::Join("BM_DecodeStep/budget:", budget, "/io:", io,
                                "/sparsity:", sparsity);
        benchmark::RegisterBenchmark(name.c_str(), BM_DecodeStep, index++, args)
            ->Unit(benchmark::kMillisecond)
            ->UseRealTime();
      }
    }
  }
}

// What is for Google Benchmark is left in `rest`. Returns an exit code, or -1
// to go on.
int ParseFlags(int argc, char** argv, Flags* flags,
               std::vector<std::string>* rest) {
  CLI::App app("Times one decode step in process.", "decode_bench");
  app.add_option("-m,--model", flags->model,
                 "Model file; by default a small one of random weights");
  app.add_option("--mem-budget", flags->budgets,
                 "RAM of the engine, as run takes it, or all")
      ->delimiter(',');
  app.add_option("--io", flags->ios, "How the file is read")->delimiter(',');
  app.add_option("--sparsity", flags->sparsities, "Which neurons are computed")
      ->delimiter(',');
  app.add_option("--neuron-reads", flags->neuron_reads,
                 "How neurons come from flash")
      ->check(CLI::IsMember({"auto", "single", "streamed"}));
  app.add_option("-c,--ctx-size", flags->context, "Positions");
  app.add_option("-t,--threads", flags->threads,
                 "Threads of computation; 0: one for each core")
      ->check(CLI::Range(0u, kMaxThreads));
  app.add_option("--stream-mib", flags->stream_mib,
                 "Memory that plain loops read, to compare with")
      ->check(CLI::Range(4u, 1u << 20));
  app.footer("And the flags of Google Benchmark, as --benchmark_filter.");
  app.allow_extras();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  *rest = app.remaining();
  return -1;
}

int Fail(const Status& status) {
  std::fprintf(stderr, "decode_bench: %s\n", status.message().c_str());
  return 1;
}

int Main(int argc, char** argv) {
  Flags flags;
  std::vector<std::string> rest;
  if (const int code = ParseFlags(argc, argv, &flags, &rest); code >= 0) {
    return code;
  }
  std::vector<char*> words = {argv[0]};
  for (std::string& word : rest) words.push_back(word.data());
  int num_words = static_cast<int>(words.size());
  words.push_back(nullptr);
  benchmark::Initialize(&num_words, words.data());
  if (benchmark::ReportUnrecognizedArguments(num_words, words.data())) return 2;

  const auto small = SmallModel::WriteUnlessGiven(flags.model);
  if (!small) return Fail(small.error());
  const uint32_t num_threads =
      flags.threads != 0 ? flags.threads : FindUsableProcessors().num_cores;
  MemoryBudget budget(UINT64_MAX);
  auto memory = AlignedBuffer::Create(uint64_t{flags.stream_mib} << 20, budget,
                                      "memory to read");
  if (!memory) return Fail(memory.error());
  auto pool = ThreadPool::Create(num_threads);
  if (!pool) return Fail(pool.error());
  AdviseHugePages(memory->bytes());
  FillWithWeights(memory->bytes());
  Setting& setting = TheSetting();
  setting.stream.emplace(memory->bytes(), **pool);
  benchmark::AddCustomContext(
      "model", *small ? "small, of random weights" : flags.model);
  benchmark::AddCustomContext("simd", std::string(SimdTargetName()));
  benchmark::AddCustomContext("threads", std::to_string(num_threads));
  benchmark::AddCustomContext("stream_mib", std::to_string(flags.stream_mib));
  RegisterAll(flags);
  if (benchmark::RunSpecifiedBenchmarks() == 0) return 1;
  setting.decoder.reset();
  return setting.has_failed ? 1 : 0;
}

}  // namespace
}  // namespace flashelm

int main(int argc, char** argv) { return flashelm::Main(argc, argv); }
