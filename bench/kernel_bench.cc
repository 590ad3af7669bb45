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
// Threads share rows or columns as in core/transformer.cc. All times are those
// of a clock on the wall.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bench/machine_peaks.h"
#include "core/base/checked_math.h"
#include "core/base/memory.h"
#include "core/base/processors.h"
#include "core/base/thread_pool.h"
#include "core/base/types.h"
#include "kernels/activation.h"
#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "kernels/norm.h"
#include "kernels/quant_matmul.h"
#include "kernels/rope.h"
#include "kernels/simd.h"
#include "storage/open_reader.h"

namespace flashelm {
namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;
constexpr size_t kModelDim = 3072;
constexpr size_t kHeadDim = 128;
constexpr size_t kGqaGroups = 4;
constexpr size_t kPromptTokens = 128;
// As in core/: neurons whose bundles a thread takes at once when it decodes,
// neurons of a batch, and where parts of a loop begin.
constexpr size_t kStepNeurons = 16;
constexpr size_t kTileNeurons = 256;
constexpr size_t kGrain = 32;

struct Setting {
  std::span<std::byte> memory;  // Read, and never written by a benchmark.
  std::unique_ptr<ThreadPool> pool;
  uint64_t next = 0;

  // The next `num_bytes` of the memory, at most all of it.
  const std::byte* Take(uint64_t num_bytes) {
    if (next + num_bytes > memory.size()) next = 0;
    return memory.data() + std::exchange(next, next + num_bytes);
  }
};

Setting& TheSetting() {
  static Setting setting;
  return setting;
}

// Memory in which a benchmark's activations lie, 64-byte aligned.
class Buffer {
 public:
  explicit Buffer(size_t num_bytes)
      : data_(static_cast<std::byte*>(
            std::aligned_alloc(64, RoundUp(num_bytes, 64) + 64))) {
    std::memset(data_, 0, num_bytes);
  }
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  std::byte* bytes() const { return data_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }

 private:
  std::byte* data_;
};

// Values from a multiplicative generator, in (-1, 1).
void FillRandom(float* out, size_t n) {
  uint32_t state = 1;
  for (size_t i = 0; i < n; ++i) {
    state = state * 1664525 + 1013904223;
    out[i] = static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f;
  }
}

void SetMacs(benchmark::State& state, double per_iteration) {
  state.counters["GMAC/s"] = benchmark::Counter(
      per_iteration * static_cast<double>(state.iterations()) * 1e-9,
      benchmark::Counter::kIsRate);
}

void SetBytes(benchmark::State& state, uint64_t per_iteration) {
  state.SetBytesProcessed(state.iterations() *
                          static_cast<int64_t>(per_iteration));
}

// Each thread reads one part of the memory, or, with chunks, one chunk in so
// many as there are threads.
void BM_Stream(benchmark::State& state, const StreamForm& form) {
  Setting& setting = TheSetting();
  ThreadPool& pool = *setting.pool;
  const size_t num_threads = pool.num_threads();
  const size_t part = setting.memory.size() / num_threads;
  const size_t chunk =
      state.range(0) == 0 ? part : static_cast<size_t>(state.range(0)) << 10;
  for (auto _ : state) {
    pool.ParallelFor(num_threads, 1, [&](size_t begin, size_t) {
      uint64_t sum = 0;
      for (size_t i = 0; (i + 1) * chunk <= part; ++i) {
        const size_t at = (i * num_threads + begin) * chunk;
        sum += StreamRead(form, setting.memory.data() + at, chunk);
      }
      benchmark::DoNotOptimize(sum);
    });
  }
  SetBytes(state, part / chunk * chunk * num_threads);
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

// Rows of a layer's matrix, `parts` of which lie side by side in a record: 3
// where they are those of a bundle.
struct Matrix {
  std::string name;
  size_t num_rows;
  size_t num_cols;
  size_t parts = 1;

  uint64_t stride_bytes(WeightType type) const {
    return parts * RowBytes(type, num_cols);
  }
  // As many rows as the memory has room for, all of them if it is large enough.
  size_t RowsIn(WeightType type, uint64_t num_bytes) const {
    return std::min<size_t>(num_rows, num_bytes / stride_bytes(type));
  }
};

// One part of records that begin at `records`.
WeightView PartOf(const std::byte* records, const Matrix& matrix,
                  WeightType type, size_t part) {
  return ViewOfRows(records + part * RowBytes(type, matrix.num_cols),
                    matrix.stride_bytes(type), type, matrix.num_cols);
}

// A batch in the form that the kernels of an encoding take.
class Tokens {
 public:
  Tokens(WeightType type, size_t num_cols, size_t num_tokens)
      : num_cols_(num_cols),
        num_tokens_(num_tokens),
        x_(num_cols * num_tokens * sizeof(float)),
        quantized_(QuantizedTokensBytes(num_cols, num_tokens)),
        workspace_bytes_(RoundUp(QuantMatMulWorkspaceBytes(num_cols), 64)),
        workspaces_(workspace_bytes_ * TheSetting().pool->num_threads()) {
    FillRandom(x_.floats(), num_cols * num_tokens);
    if (IsQuantized(type)) {
      QuantizeTokens(x_.floats(), num_cols, num_cols, 0, num_tokens, num_tokens,
                     quantized_.bytes());
    }
  }

  void Multiply(const WeightView& w, size_t num_rows, uint32_t part, float* out,
                size_t out_stride) const {
    if (IsQuantized(w.type)) {
      QuantMatMul(w, num_rows, num_cols_, quantized_.bytes(), num_tokens_,
                  workspaces_.bytes() + part * workspace_bytes_, out,
                  out_stride);
    } else {
      MatMul(w, num_rows, num_cols_, x_.floats(), num_cols_, num_tokens_, out,
             out_stride);
    }
  }

 private:
  size_t num_cols_;
  size_t num_tokens_;
  Buffer x_;
  Buffer quantized_;
  size_t workspace_bytes_;
  Buffer workspaces_;
};

// Products of rows: of a whole matrix, or, with bundles, of gate and up.
void RunRows(benchmark::State& state, const Matrix& matrix, WeightType type,
             size_t num_tokens) {
  Setting& setting = TheSetting();
  const size_t num_rows = matrix.RowsIn(type, setting.memory.size());
  const size_t num_parts = std::max<size_t>(1, matrix.parts - 1);
  const Tokens tokens(type, matrix.num_cols, num_tokens);
  const Buffer out(num_parts * num_rows * num_tokens * sizeof(float));
  // What a thread does to one part before the other: of bundles little, so
  // that they pass through its caches once.
  const size_t step = num_parts == 1    ? num_rows
                      : num_tokens == 1 ? kStepNeurons
                                        : kTileNeurons / 2;
  const uint64_t stride = matrix.stride_bytes(type);
  for (auto _ : state) {
    const std::byte* records = setting.Take(num_rows * stride);
    setting.pool->ParallelFor(
        num_rows, kGrain, [&](size_t begin, size_t end, uint32_t thread) {
          for (size_t r = begin; r < end; r += step) {
            for (size_t p = 0; p < num_parts; ++p) {
              tokens.Multiply(PartOf(records + r * stride, matrix, type, p),
                              std::min(step, end - r), thread,
                              out.floats() + p * num_rows * num_tokens + r,
                              num_rows);
            }
          }
        });
  }
  const uint64_t rows = num_parts * num_rows;
  SetBytes(state, rows * RowBytes(type, matrix.num_cols));
  SetMacs(state, static_cast<double>(rows * matrix.num_cols * num_tokens));
}

// The down columns of bundles. Threads share neurons where there is one token,
// each with a sum of its own, else the columns of a tile of neurons.
void RunDown(benchmark::State& state, const Matrix& matrix, WeightType type,
             size_t num_tokens) {
  Setting& setting = TheSetting();
  const size_t num_rows = matrix.RowsIn(type, setting.memory.size());
  const size_t cols = matrix.num_cols;
  const Buffer scale(kTileNeurons * num_tokens * sizeof(float));
  FillRandom(scale.floats(), kTileNeurons * num_tokens);
  const size_t num_sums =
      num_tokens == 1 ? setting.pool->num_threads() : num_tokens;
  const Buffer sums(num_sums * cols * sizeof(float));
  const uint64_t stride = matrix.stride_bytes(type);
  for (auto _ : state) {
    const std::byte* records = setting.Take(num_rows * stride);
    const WeightView down = PartOf(records, matrix, type, matrix.parts - 1);
    if (num_tokens == 1) {
      setting.pool->ParallelFor(
          num_rows, kGrain, [&](size_t begin, size_t end, uint32_t thread) {
            for (size_t r = begin; r < end; r += kStepNeurons) {
              AddScaledRows(
                  Submatrix(down, r, 0), std::min(kStepNeurons, end - r), cols,
                  scale.floats(), 0, 1, sums.floats() + thread * cols, 0);
            }
          });
    } else {
      for (size_t r = 0; r < num_rows; r += kTileNeurons) {
        const size_t count = std::min(kTileNeurons, num_rows - r);
        setting.pool->ParallelFor(cols, kGrain, [&](size_t begin, size_t end) {
          AddScaledRows(Submatrix(down, r, begin), count, end - begin,
                        scale.floats(), kTileNeurons, num_tokens,
                        sums.floats() + begin, cols);
        });
      }
    }
  }
  SetBytes(state, num_rows * RowBytes(type, cols));
  SetMacs(state, static_cast<double>(num_rows * cols * num_tokens));
}

// One kv head with its query heads, whose past has left the caches.
void BM_Attend(benchmark::State& state, KvType type) {
  Setting& setting = TheSetting();
  const auto positions = static_cast<size_t>(state.range(0));
  const uint64_t bytes = positions * kHeadDim * ElementBytes(type);
  const Buffer q(kGqaGroups * kHeadDim * sizeof(float));
  const Buffer out(kGqaGroups * kHeadDim * sizeof(float));
  FillRandom(q.floats(), kGqaGroups * kHeadDim);
  for (auto _ : state) {
    const std::byte* keys = setting.Take(2 * bytes);
    Attend(q.floats(), kGqaGroups, type, keys, keys + bytes, positions,
           kHeadDim, 0.088f, out.floats());
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
  constexpr StreamForm kForms[] = {
      {"plain", 1, 0, false},
      {"prefetch_1k", 1, 1024, false},
      {"prefetch_4k", 1, 4096, false},
      {"prefetch_16k", 1, 16384, false},
      {"nta_1k", 1, 1024, true},
      {"nta_4k", 1, 4096, true},
      {"two_streams", 2, 0, false},
      {"four_streams", 4, 0, false},
      {"two_prefetch_1k", 2, 1024, false},
  };
  for (const StreamForm& form : kForms) {
    benchmark::RegisterBenchmark(
        (std::string("BM_Stream/") + form.name).c_str(), BM_Stream, form)
        ->ArgName("chunk_kib")
        ->Arg(0)
        ->Arg(64)
        ->Arg(2048)
        ->UseRealTime();
  }
  benchmark::RegisterBenchmark("BM_Peak/f32", BM_Peak, MultiplyFloats)
      ->UseRealTime();
  benchmark::RegisterBenchmark("BM_Peak/int8", BM_Peak, MultiplyInt8)
      ->UseRealTime();
}

void RegisterProducts(const char* kind, size_t num_tokens) {
  struct Layer {
    int index;
    size_t num_heads;
    size_t ffn_dim;
  };
  constexpr Layer kLayers[] = {{0, 12, 1536}, {18, 20, 7168}, {35, 24, 12288}};
  constexpr std::pair<const char*, WeightType> kTypes[] = {
      {"f32", WeightType::kF32},
      {"bf16", WeightType::kBf16},
      {"q8", WeightType::kQ8},
      {"q4", WeightType::kQ4}};
  for (const auto& [type_name, type] : kTypes) {
    const std::string prefix =
        std::string("BM_") + kind + "/" + type_name + "/";
    const auto add = [&](const Matrix& matrix, auto run) {
      benchmark::RegisterBenchmark((prefix + matrix.name).c_str(), run, matrix,
                                   type, num_tokens)
          ->UseRealTime();
    };
    for (const Layer& layer : kLayers) {
      const std::string suffix = "/layer:" + std::to_string(layer.index);
      const size_t query_dim = layer.num_heads * kHeadDim;
      add({"qkv" + suffix, query_dim + query_dim / 2, kModelDim}, RunRows);
      add({"attention_out" + suffix, kModelDim, query_dim}, RunRows);
      add({"gate_up" + suffix, layer.ffn_dim, kModelDim, 3}, RunRows);
      add({"down" + suffix, layer.ffn_dim, kModelDim, 3}, RunDown);
    }
    add({"head", 32000, kModelDim}, RunRows);
  }
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

// Bytes that are small positive weights, scales, keys and values in every
// encoding, so that nothing is infinite, NaN or subnormal.
void FillMemory(std::span<std::byte> memory) {
  auto* words = reinterpret_cast<uint64_t*>(memory.data());
  uint64_t state = 1;
  for (size_t i = 0; i < memory.size() / sizeof(uint64_t); ++i) {
    state = state * 6364136223846793005 + 1442695040888963407;
    words[i] = (state >> 5 & 0x0707070707070707) | 0x3838383838383838;
  }
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
  FillMemory(memory->bytes());
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
