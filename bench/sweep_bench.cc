// How fast the weight store brings a model's streamed weights, beside a loop
// that only reads the same file, in turn: what is lost between the reader and
// the layers, before any layer computes. What the reader itself loses against
// the system's calls is for read_bench.
//
//   sweep_bench --model=FILE.felm [--percent=25,50,75] [--context=512]
//               [--rounds=5] [--sweeps=3]
//
// Per round and share of the file that is the budget:
//   bare     the reader alone, 1 MiB x 4, in order over the whole file
//   first    a store's first sweep, in which every record is verified
//   next     the sweeps after it
//   used     sweeps in which a core looks at every cache line of every record,
//            resident ones too
// in bytes per second of what was read. Medians last, as shares of the bare
// loop's.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/memory_plan.h"
#include "core/model_file.h"
#include "storage/open_reader.h"
#include "storage/weight_store.h"

namespace flashelm {
namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;

using Clock = std::chrono::steady_clock;

double GbPerSecond(uint64_t num_bytes, Clock::time_point begin) {
  return static_cast<double>(num_bytes) /
         std::chrono::duration<double, std::nano>(Clock::now() - begin).count();
}

// One look at every cache line.
uint64_t Sum(const RecordRun& run, uint64_t stride_bytes) {
  constexpr size_t kCacheLine = 64;
  uint64_t sum = 0;
  const size_t size = run.num_records * stride_bytes;
  for (size_t i = 0; i < size; i += kCacheLine) {
    sum += static_cast<uint64_t>(run.data[i]);
  }
  return sum;
}

// Goes through everything that a token needs.
Status Sweep(const WeightFile& file, const ResidencyPlan& plan,
             WeightStore& store, bool use, uint64_t& sum) {
  FLASHELM_RETURN_IF_ERROR(store.BeginSweep(/*with_head=*/true));
  std::vector<uint32_t> order = plan.sweep;
  order.push_back(plan.head);
  for (const uint32_t index : order) {
    const Segment& segment = file.segments()[index];
    for (uint64_t record = 0; record < segment.num_records;) {
      FLASHELM_ASSIGN_OR_RETURN(const RecordRun run, store.Next(index, record));
      if (use) sum += Sum(run, segment.stride_bytes);
      record = run.first_record + run.num_records;
    }
  }
  return store.EndSweep();
}

// `num_bytes` of the file in order, four reads of 1 MiB in flight.
Status ReadBare(const std::shared_ptr<const RandomAccessFile>& file,
                std::span<std::byte> target, uint64_t num_bytes,
                uint64_t& offset) {
  constexpr uint32_t kDepth = 4;
  ReaderOptions options;
  options.depth = options.queue_depth = options.num_threads = kDepth;
  options.request_bytes = kMib;
  FLASHELM_ASSIGN_OR_RETURN(const auto reader, OpenReader(file, options));
  reader->RegisterBuffer(target);
  const auto submit = [&](uint32_t tag) {
    if (offset + kMib > file->size_bytes()) offset = 0;
    const ReadRequest request{std::exchange(offset, offset + kMib),
                              target.subspan(tag * kMib, kMib), tag};
    return reader->Submit({&request, 1});
  };
  for (uint32_t tag = 0; tag < kDepth; ++tag) {
    FLASHELM_RETURN_IF_ERROR(submit(tag));
  }
  for (uint64_t done = 0; done < num_bytes; done += kMib) {
    auto completion = reader->Wait(std::chrono::seconds(30));
    if (!completion) return Unavailable("no read ended in 30 s");
    FLASHELM_RETURN_IF_ERROR(std::move(completion->status));
    FLASHELM_RETURN_IF_ERROR(submit(completion->tag));
  }
  if (!reader->Drain(std::chrono::seconds(30))) {
    return Unavailable("reads do not end");
  }
  reader->RegisterBuffer({});
  return OkStatus();
}

struct Arguments {
  std::string model;
  std::vector<uint64_t> percents = {25, 50, 75};
  uint32_t context = 512;
  int num_rounds = 5;
  int num_sweeps = 3;
};

// Rates in GB/s, by what was measured, in rounds.
using Rates = std::map<std::string, std::vector<double>>;

Status RunRound(const ModelFile& model, uint64_t percent,
                const Arguments& arguments, Rates& rates) {
  PlanOptions options;
  options.budget_bytes = model.file_bytes() / 100 * percent;
  options.context = arguments.context;
  options.num_threads = 2;
  FLASHELM_ASSIGN_OR_RETURN(const MemoryPlan plan, MakePlan(model, options));
  const uint64_t sweep_bytes = plan.streamed_bytes_per_token;
  if (sweep_bytes == 0) {
    return InvalidArgument(percent, " % of the file hold all of the model");
  }
  MemoryBudget budget(kUnlimitedBytes);
  static uint64_t offset = 0;
  FLASHELM_ASSIGN_OR_RETURN(AlignedBuffer target,
                            AlignedBuffer::Create(4 * kMib, budget, "target"));
  auto begin = Clock::now();
  FLASHELM_RETURN_IF_ERROR(ReadBare(model.weight_file().shared_file(),
                                    target.bytes(), sweep_bytes, offset));
  rates["bare"].push_back(GbPerSecond(sweep_bytes, begin));

  const WeightFile& file = model.weight_file();
  ReaderOptions reader_options;
  reader_options.depth = WeightStore::MaxReadsInFlight(plan.residency);
  FLASHELM_ASSIGN_OR_RETURN(const auto reader,
                            OpenReader(file.shared_file(), reader_options));
  FLASHELM_ASSIGN_OR_RETURN(
      const auto store,
      WeightStore::Create(file, plan.residency, *reader, budget));
  store->RegisterBuffers();
  FLASHELM_RETURN_IF_ERROR(store->Load(CancelToken(), {}));
  uint64_t sum = 0;
  for (int i = 0; i < 1 + 2 * arguments.num_sweeps; ++i) {
    const bool use = i > 0 && i % 2 == 0;
    const uint64_t before = store->stats().stream_bytes;
    begin = Clock::now();
    FLASHELM_RETURN_IF_ERROR(Sweep(file, plan.residency, *store, use, sum));
    rates[i == 0 ? "first"
          : use  ? "used"
                 : "next"]
        .push_back(GbPerSecond(store->stats().stream_bytes - before, begin));
  }
  // So that nobody can leave the looking out.
  if (sum == 1) std::fputs("", stderr);
  return OkStatus();
}

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<long>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

Status Run(const Arguments& arguments) {
  FLASHELM_ASSIGN_OR_RETURN(const ModelFile model,
                            ModelFile::Open(arguments.model));
  for (const uint64_t percent : arguments.percents) {
    Rates rates;
    for (int round = 0; round < arguments.num_rounds; ++round) {
      FLASHELM_RETURN_IF_ERROR(RunRound(model, percent, arguments, rates));
      std::printf("%3llu %%", static_cast<unsigned long long>(percent));
      for (const char* what : {"bare", "first", "next", "used"}) {
        std::printf("  %s %.2f", what, rates[what].back());
      }
      std::puts(" GB/s");
      std::fflush(stdout);
    }
    const double bare = Median(rates["bare"]);
    std::printf("%3llu %%  median: bare %.2f GB/s",
                static_cast<unsigned long long>(percent), bare);
    for (const char* what : {"first", "next", "used"}) {
      std::printf("  %s %.3f", what, Median(rates[what]) / bare);
    }
    std::puts(" of it");
  }
  return OkStatus();
}

bool Parse(int argc, char** argv, Arguments& arguments) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    const size_t equals = arg.find('=');
    if (equals == std::string_view::npos) return false;
    const std::string_view name = arg.substr(0, equals);
    const std::string value(arg.substr(equals + 1));
    if (name == "--model") {
      arguments.model = value;
    } else if (name == "--percent") {
      arguments.percents.clear();
      for (const char* at = value.c_str(); *at != '\0';) {
        char* end = nullptr;
        arguments.percents.push_back(std::strtoull(at, &end, 10));
        if (end == at) return false;
        at = *end == ',' ? end + 1 : end;
      }
    } else if (name == "--context") {
      arguments.context = static_cast<uint32_t>(std::atoi(value.c_str()));
    } else if (name == "--rounds") {
      arguments.num_rounds = std::atoi(value.c_str());
    } else if (name == "--sweeps") {
      arguments.num_sweeps = std::atoi(value.c_str());
    } else {
      return false;
    }
  }
  return !arguments.model.empty() && arguments.num_rounds > 0 &&
         arguments.num_sweeps > 0;
}

}  // namespace
}  // namespace flashelm

int main(int argc, char** argv) {
  flashelm::Arguments arguments;
  if (!flashelm::Parse(argc, argv, arguments)) {
    std::fputs(
        "usage: sweep_bench --model=FILE.felm [--percent=25,50,75] "
        "[--context=512] [--rounds=5] [--sweeps=3]\n",
        stderr);
    return 2;
  }
  const flashelm::Status status = flashelm::Run(arguments);
  if (!status.ok()) {
    std::fprintf(stderr, "sweep_bench: %s\n", status.message().c_str());
    return 1;
  }
  return 0;
}
