// What the parts of kernel_bench share.
#ifndef FLASHELM_BENCH_KERNEL_BENCH_H_
#define FLASHELM_BENCH_KERNEL_BENCH_H_

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "core/base/checked_math.h"
#include "core/base/thread_pool.h"

namespace flashelm {

// OpenELM-3B.
inline constexpr size_t kModelDim = 3072;
inline constexpr size_t kHeadDim = 128;
// As in core/: neurons of a batch whose gates are computed before their columns
// are added.
inline constexpr size_t kTileNeurons = 256;

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

inline Setting& TheSetting() {
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
inline void FillRandom(float* out, size_t n) {
  uint32_t state = 1;
  for (size_t i = 0; i < n; ++i) {
    state = state * 1664525 + 1013904223;
    out[i] = static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f;
  }
}

inline void SetMacs(benchmark::State& state, double per_iteration) {
  state.counters["GMAC/s"] = benchmark::Counter(
      per_iteration * static_cast<double>(state.iterations()) * 1e-9,
      benchmark::Counter::kIsRate);
}

inline void SetBytes(benchmark::State& state, uint64_t per_iteration) {
  state.SetBytesProcessed(state.iterations() *
                          static_cast<int64_t>(per_iteration));
}

// Adds the products of `num_tokens` tokens as BM_<kind>.
void RegisterProducts(const char* kind, size_t num_tokens);

}  // namespace flashelm

#endif  // FLASHELM_BENCH_KERNEL_BENCH_H_
