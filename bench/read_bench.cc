// How fast a file is read in order: by the readers of this project, and by bare
// loops around the system's calls, which say what the device has to give.
//
//   read_bench [--file=PATH] [--busy=N] [--use] [--small_pages]
//              [--benchmark_...]
//
// --file: what to read, better much larger than any cache of the device; the
// environment's FLASHELM_BENCH_FILE does the same. Without it, 256 MiB of
// random bytes are written to the current directory and removed at the end.
// --busy: so many threads compute meanwhile, as those of an engine would.
// --use: every byte that has arrived is looked at once, before its place is
// read to again. Bytes that nobody looks at arrive faster where they pass
// through the processor's caches, so this is the rate that an engine can hope
// for. stream_bench has a loop that reads resident memory, too.
// --small_pages: targets are not put into huge pages.

#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "bench/raw_reads.h"
#include "core/base/checked_math.h"
#include "core/base/memory.h"
#include "core/base/types.h"
#include "storage/file.h"
#include "storage/open_reader.h"

namespace flashelm {
namespace {

constexpr uint64_t kKib = 1024;
constexpr uint64_t kMib = kKib * kKib;
// Of all targets together: the most that a shape of a grid has in flight.
constexpr uint64_t kTargetBytes = 64 * kMib;

struct Setting {
  std::shared_ptr<const RandomAccessFile> file;
  ReadCursor cursor;  // Benchmarks go on where the last one ended.
  std::span<std::byte> target;
  bool small_pages = false;
  bool use = false;
};

Setting& TheSetting() {
  static Setting setting;
  return setting;
}

// One look at every cache line, if that is wanted.
void Use(std::span<const std::byte> bytes) {
  if (!TheSetting().use) return;
  constexpr size_t kCacheLine = 64;
  auto sum = std::byte{0};
  for (size_t i = 0; i < bytes.size(); i += kCacheLine) sum ^= bytes[i];
  benchmark::DoNotOptimize(sum);
}

// Keeps `depth` reads in flight through a reader.
void ReadThrough(benchmark::State& state, const ReaderOptions& options,
                 uint64_t read_bytes) {
  Setting& setting = TheSetting();
  auto reader = OpenReader(setting.file, options);
  if (!reader) return state.SkipWithError(reader.error().message().c_str());
  // Which would ask for huge pages.
  if (!setting.small_pages) (*reader)->RegisterBuffer(setting.target);
  const auto target = [&](uint32_t tag) {
    return setting.target.subspan(tag * read_bytes, read_bytes);
  };
  const auto submit = [&](uint32_t tag) {
    const ReadRequest request{setting.cursor.Take(read_bytes), target(tag),
                              tag};
    return (*reader)->Submit({&request, 1});
  };
  Status status;
  for (uint32_t tag = 0; tag < options.depth && status.ok(); ++tag) {
    status = submit(tag);
  }
  for (auto _ : state) {
    auto completion = (*reader)->Wait(std::chrono::seconds(30));
    if (!completion) status = Unavailable("no read ended in 30 s");
    if (completion && status.ok()) status = completion->status;
    if (status.ok()) {
      Use(target(completion->tag));
      status = submit(completion->tag);
    }
    if (!status.ok()) {
      state.SkipWithError(status.message().c_str());
      break;
    }
  }
  if (!(*reader)->Drain(std::chrono::seconds(30))) {
    // The targets of the next benchmark would be written to.
    std::fprintf(stderr, "%s: reads do not end\n",
                 setting.file->path().c_str());
    std::exit(1);
  }
  (*reader)->RegisterBuffer({});
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) *
                          static_cast<int64_t>(read_bytes));
}

// What an engine does: reads of 1 MiB, and the reader decides on requests. The
// targets of reads in flight are what a ring takes: where a processor moves the
// bytes, a small ring stays in its cache and is filled faster.
void BM_ReaderDefault(benchmark::State& state, IoBackend backend) {
  ReaderOptions options;
  options.backend = backend;
  options.depth = static_cast<uint32_t>(state.range(0));
  ReadThrough(state, options, kMib);
}

// One shape, no cutting: what such requests give.
void BM_Reader(benchmark::State& state, IoBackend backend) {
  ReaderOptions options;
  options.backend = backend;
  options.request_bytes = static_cast<uint64_t>(state.range(0)) * kKib;
  options.depth = static_cast<uint32_t>(state.range(1));
  options.queue_depth = options.depth;
  options.num_threads = options.depth;
  ReadThrough(state, options, options.request_bytes);
}

// Threads that do nothing but pread, each in its own part of the target.
void BM_RawPread(benchmark::State& state) {
  Setting& setting = TheSetting();
  const uint64_t size = static_cast<uint64_t>(state.range(0)) * kKib;
  const uint64_t num_threads = static_cast<uint64_t>(state.range(1));
  // Enough for the start of the threads not to matter.
  const uint64_t num_reads = 128 * kMib / size;
  std::atomic<bool> failed{false};
  for (auto _ : state) {
    std::atomic<uint64_t> next{0};
    const uint64_t first = setting.cursor.Take(num_reads * size);
    const auto read = [&](uint64_t thread) {
      std::byte* target = setting.target.data() + thread * size;
      while (true) {
        const uint64_t i = next.fetch_add(1);
        if (i >= num_reads) return;
        const off_t at = static_cast<off_t>(first + i * size);
        if (pread(setting.cursor.fd, target, size, at) !=
            static_cast<ssize_t>(size)) {
          failed = true;
        }
        Use({target, size});
      }
    };
    std::vector<std::thread> threads;
    for (uint64_t i = 0; i < num_threads; ++i) threads.emplace_back(read, i);
    for (std::thread& thread : threads) thread.join();
  }
  if (failed) return state.SkipWithError("pread failed");
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) *
                          static_cast<int64_t>(num_reads * size));
}

#ifdef FLASHELM_HAS_URING
void BM_RawUring(benchmark::State& state) {
  const uint64_t size = static_cast<uint64_t>(state.range(0)) * kKib;
  const uint64_t depth = static_cast<uint64_t>(state.range(1));
  Setting& setting = TheSetting();
  RawRing ring(setting.cursor, setting.target, size, depth);
  if (!ring.is_open()) return state.SkipWithError("io_uring_setup failed");
  for (uint64_t slot = 0; slot < depth; ++slot) ring.Prepare(slot);
  ring.Submit();
  for (auto _ : state) {
    const uint64_t slot = ring.Take();
    Use(ring.Slot(slot));
    ring.Prepare(slot);
    ring.Submit();
  }
  if (ring.has_failed()) return state.SkipWithError("a read failed");
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) *
                          static_cast<int64_t>(size));
}
#endif

// The most at a time that the targets have room for is 64 MiB.
void Grid(benchmark::internal::Benchmark* benchmark,
          const std::vector<int64_t>& depths) {
  benchmark->ArgNames({"request_kib", "depth"})->UseRealTime();
  for (const int64_t kib : {64, 128, 256, 512, 1024, 2048}) {
    for (const int64_t depth : depths) benchmark->Args({kib, depth});
  }
}

void RegisterAll() {
  const std::pair<const char*, IoBackend> backends[] = {
      {"uring", IoBackend::kUring}, {"pread", IoBackend::kPread}};
  for (const auto& [name, backend] : backends) {
    benchmark::RegisterBenchmark(
        (std::string("BM_ReaderDefault/") + name).c_str(), BM_ReaderDefault,
        backend)
        ->ArgName("ring_mib")
        ->Arg(4)
        ->Arg(8)
        ->Arg(32)
        ->UseRealTime()
        ->MinTime(2);  // Finding out what suits the device is part of it.
  }
  Grid(benchmark::RegisterBenchmark("BM_RawPread", BM_RawPread), {1, 2, 4, 8});
#ifdef FLASHELM_HAS_URING
  Grid(benchmark::RegisterBenchmark("BM_RawUring", BM_RawUring),
       {1, 2, 4, 8, 16, 32});
#endif
  for (const auto& [name, backend] : backends) {
    Grid(benchmark::RegisterBenchmark(
             (std::string("BM_Reader/") + name).c_str(), BM_Reader, backend),
         backend == IoBackend::kPread
             ? std::vector<int64_t>{1, 2, 4, 8}
             : std::vector<int64_t>{1, 2, 4, 8, 16, 32});
  }
}

// Whether 256 MiB that no device can compress were written.
bool WriteRandomFile(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) return false;
  std::mt19937_64 random(1);
  std::vector<uint64_t> block(kMib / sizeof(uint64_t));
  bool ok = true;
  for (int i = 0; i < 256 && ok; ++i) {
    for (uint64_t& word : block) word = random();
    ok = std::fwrite(block.data(), 1, kMib, file) == kMib;
  }
  ok = std::fflush(file) == 0 && fsync(fileno(file)) == 0 && ok;
  return std::fclose(file) == 0 && ok;
}

// Computes until told to stop.
void Burn(const std::atomic<bool>& stop) {
  double x = 1;
  while (!stop) {
    for (int i = 0; i < 10000; ++i) {
      x = x * 0.999 + 1;
      benchmark::DoNotOptimize(x);
    }
  }
}

int Main(int argc, char** argv) {
  std::string path;
  if (const char* from = std::getenv("FLASHELM_BENCH_FILE")) path = from;
  int num_busy = 0;
  Setting& setting = TheSetting();
  std::vector<char*> rest;
  for (int i = 0; i < argc; ++i) {
    const std::string_view arg = argv[i];
    if (arg.starts_with("--file=")) {
      path = arg.substr(7);
    } else if (arg.starts_with("--busy=")) {
      num_busy = std::atoi(argv[i] + 7);
    } else if (arg == "--use") {
      setting.use = true;
    } else if (arg == "--small_pages") {
      setting.small_pages = true;
    } else {
      rest.push_back(argv[i]);
    }
  }
  int num_rest = static_cast<int>(rest.size());
  benchmark::Initialize(&num_rest, rest.data());
  if (benchmark::ReportUnrecognizedArguments(num_rest, rest.data())) return 2;

  std::string temporary;
  if (path.empty()) {
    path = temporary = "read_bench-" + std::to_string(getpid()) + ".tmp";
    if (!WriteRandomFile(path)) {
      std::fprintf(stderr, "cannot write %s\n", path.c_str());
      std::remove(path.c_str());
      return 1;
    }
  }
  auto file = OpenFile(path, CacheMode::kDirect);
  // An open file stays without its name.
  if (!temporary.empty()) std::remove(temporary.c_str());
  if (!file) {
    std::fprintf(stderr, "%s\n", file.error().message().c_str());
    return 1;
  }
  setting.file = std::move(*file);
  setting.cursor.fd = setting.file->fd();
  // Whole reads of 2 MiB.
  setting.cursor.file_bytes = RoundDown(setting.file->size_bytes(), 2 * kMib);
  if (setting.cursor.file_bytes < 128 * kMib) {
    std::fprintf(stderr, "%s: less than 128 MiB\n", path.c_str());
    return 1;
  }
  MemoryBudget budget(UINT64_MAX);
  auto target = AlignedBuffer::Create(kTargetBytes, budget, "targets");
  if (!target) {
    std::fprintf(stderr, "%s\n", target.error().message().c_str());
    return 1;
  }
  setting.target = target->bytes();
  if (!setting.small_pages) AdviseHugePages(setting.target);
  // Touched before a reader can ask for other pages.
  std::memset(target->data(), 1, target->size());
  benchmark::AddCustomContext("file", path);
  benchmark::AddCustomContext("direct_io",
                              setting.file->direct_io() ? "true" : "false");
  benchmark::AddCustomContext("huge_pages",
                              setting.small_pages ? "false" : "asked");
  benchmark::AddCustomContext("used", setting.use ? "true" : "false");
  benchmark::AddCustomContext("busy_threads", std::to_string(num_busy));

  std::atomic<bool> stop{false};
  std::vector<std::thread> busy;
  for (int i = 0; i < num_busy; ++i) busy.emplace_back([&] { Burn(stop); });
  RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
  stop = true;
  for (std::thread& thread : busy) thread.join();
  setting.file = nullptr;
  return 0;
}

}  // namespace
}  // namespace flashelm

int main(int argc, char** argv) { return flashelm::Main(argc, argv); }
