// How fast the kernels are on the shapes of OpenELM-3B's first, middle and last
// layer, and how fast they could be: the rate at which DRAM can be read, and
// the multiplications that the cores can do.
//
//   kernel_bench [--threads=N] [--stream_mib=N] [--benchmark_...]
//
// --threads: that share each product, as those of an engine do; by default one
// for each core.
// --stream_mib: memory that is read and that weights are taken from, 2048 by
// default, in huge pages where the system has them. It should be many times
// the size of the caches, so that decoding finds nothing in them.
//
//   BM_Stream   plain loops that read memory: the best is what decoding, whose
//               weights come from DRAM, is compared with
//   BM_Peak     multiplications on registers: what prompts are compared with
//   BM_Decode   products with one token: bytes_per_second counts the weights
//   BM_Prompt   products with a batch: GMAC/s counts multiplications and adds
//   others      what is between the products, for one token on one thread
//
// Threads share rows or columns as in core/transformer.cc and
// core/dense_ffn.cc. All times are those of a clock on the wall.

#include "bench/kernel_bench.h"

#include <benchmark/benchmark.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bench/machine_peaks.h"
#include "bench/stream_rate.h"
#include "core/base/memory.h"
#include "core/base/processors.h"
#include "core/base/thread_pool.h"
#include "kernels/activation.h"
#include "kernels/attention.h"
#include "kernels/norm.h"
#include "kernels/rope.h"
#include "kernels/simd.h"
#include "storage/open_reader.h"

namespace flashelm {
namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr size_t kGqaGroups = 4;
constexpr size_t kPromptTokens = 128;

void BM_Stream(benchmark::State& state, const StreamForm& form) {
  Setting& setting = TheSetting();
  const size_t chunk = static_cast<size_t>(state.range(0)) << 10;
  uint64_t num_bytes = 0;
  for (auto _ : state) {
    num_bytes = ReadStream(form, chunk, setting.memory, *setting.pool);
  }
  SetBytes(state, num_bytes);
}

void BM_Peak(benchmark::State& state, uint64_t (*multiply)(uint64_t)) {
  constexpr uint64_t kCount = 200'000'000;
  ThreadPool& pool = *TheSetting().pool;
  std::atomic<uint64_t> done{0};
  for (auto _ : state) {
    pool.ParallelFor(pool.num_threads(), 1,
                     [&](size_t, size_t) { done += multiply(kCount); });
  }
  if (done == 0) return state.SkipWithError("not for this SIMD target");
  SetMacs(state,
          static_cast<double>(done) / static_cast<double>(state.iterations()));
}

// One kv head with its query heads, whose past has left the caches.
void BM_Attend(benchmark::State& state, KvType type) {
  Setting& setting = TheSetting();
  const auto positions = static_cast<size_t>(state.range(0));
  const uint64_t bytes = positions * kHeadDim * ElementBytes(type);
  const Buffer q(kGqaGroups * kHeadDim * sizeof(float));
  const Buffer out(kGqaGroups * kHeadDim * sizeof(float));
  const Buffer parts(NumAttentionSegments(positions) *
                     AttentionPartFloats(kGqaGroups, kHeadDim) * sizeof(float));
  FillRandom(q.floats(), kGqaGroups * kHeadDim);
  for (auto _ : state) {
    const std::byte* keys = setting.Take(2 * bytes);
    Attend(q.floats(), kGqaGroups, type, keys, keys + bytes, positions,
           kHeadDim, 0.088f, parts.floats(), out.floats());
  }
  SetBytes(state, 2 * bytes);
}

void BM_RmsNorm(benchmark::State& state) {
  const auto n = static_cast<size_t>(state.range(0));
  std::vector<float> x(n, 0.5f), weight(n, 1.0f), out(n);
  for (auto _ : state) {
    RmsNorm(x.data(), weight.data(), n, 1e-6f, out.data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

void BM_Rope(benchmark::State& state) {
  std::vector<float> cos(kHeadDim / 2), sin(kHeadDim / 2), x(kHeadDim, 0.5f);
  RopeAngles(100, 10000, kHeadDim, cos.data(), sin.data());
  for (auto _ : state) {
    Rope(cos.data(), sin.data(), kHeadDim, x.data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * int64_t{kHeadDim});
}

void BM_Silu(benchmark::State& state) {
  const auto n = static_cast<size_t>(state.range(0));
  std::vector<float> gate(n), up(n), out(n);
  FillRandom(gate.data(), n);
  FillRandom(up.data(), n);
  for (auto _ : state) {
    GluActivate(Activation::kSilu, gate.data(), up.data(), n, out.data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

void RegisterPeaks() {
  for (const StreamForm& form : kStreamForms) {
    auto* stream = benchmark::RegisterBenchmark(
        (std::string("BM_Stream/") + form.name).c_str(), BM_Stream, form);
    stream->ArgName("chunk_kib")->UseRealTime();
    for (const size_t chunk : kStreamChunks) {
      stream->Arg(static_cast<int64_t>(chunk >> 10));
    }
  }
  benchmark::RegisterBenchmark("BM_Peak/f32", BM_Peak, MultiplyFloats)
      ->UseRealTime();
  benchmark::RegisterBenchmark("BM_Peak/int8", BM_Peak, MultiplyInt8)
      ->UseRealTime();
}

void RegisterOthers() {
  for (const KvType type : {KvType::kF32, KvType::kBf16}) {
    benchmark::RegisterBenchmark(
        type == KvType::kF32 ? "BM_Attend/f32" : "BM_Attend/bf16", BM_Attend,
        type)
        ->ArgName("positions")
        ->Arg(100)
        ->Arg(1900)
        ->UseRealTime();
  }
  benchmark::RegisterBenchmark("BM_RmsNorm", BM_RmsNorm)
      ->Arg(kHeadDim)
      ->Arg(kModelDim);
  benchmark::RegisterBenchmark("BM_Rope", BM_Rope);
  benchmark::RegisterBenchmark("BM_Silu", BM_Silu)->Arg(kTileNeurons);
}

int Main(int argc, char** argv) {
  uint32_t num_threads = FindUsableProcessors().num_cores;
  uint64_t memory_mib = 2048;
  std::vector<char*> rest;
  for (int i = 0; i < argc; ++i) {
    const std::string_view arg = argv[i];
    if (arg.starts_with("--threads=")) {
      num_threads = static_cast<uint32_t>(std::atoi(argv[i] + 10));
    } else if (arg.starts_with("--stream_mib=")) {
      memory_mib = static_cast<uint64_t>(std::atoll(argv[i] + 13));
    } else {
      rest.push_back(argv[i]);
    }
  }
  int num_rest = static_cast<int>(rest.size());
  benchmark::Initialize(&num_rest, rest.data());
  if (benchmark::ReportUnrecognizedArguments(num_rest, rest.data())) return 2;
  // Every loop needs room for a chunk for each thread.
  if (memory_mib < 4 * num_threads) {
    std::fprintf(stderr, "--stream_mib: %llu is less than 4 for each thread\n",
                 static_cast<unsigned long long>(memory_mib));
    return 2;
  }

  MemoryBudget budget(UINT64_MAX);
  auto memory = AlignedBuffer::Create(memory_mib * kMib, budget, "weights");
  auto pool = ThreadPool::Create(num_threads);
  for (const Status& status : {memory ? OkStatus() : memory.error(),
                               pool ? OkStatus() : pool.error()}) {
    if (status.ok()) continue;
    std::fprintf(stderr, "%s\n", status.message().c_str());
    return 1;
  }
  AdviseHugePages(memory->bytes());
  FillWithWeights(memory->bytes());
  TheSetting().memory = memory->bytes();
  TheSetting().pool = std::move(*pool);
  benchmark::AddCustomContext("simd", std::string(SimdTargetName()));
  benchmark::AddCustomContext("threads", std::to_string(num_threads));
  benchmark::AddCustomContext("stream_mib", std::to_string(memory_mib));

  RegisterPeaks();
  RegisterProducts("Decode", 1);
  RegisterProducts("Prompt", kPromptTokens);
  RegisterOthers();
  benchmark::RunSpecifiedBenchmarks();
  TheSetting().pool.reset();
  return 0;
}

}  // namespace
}  // namespace flashelm

int main(int argc, char** argv) { return flashelm::Main(argc, argv); }
