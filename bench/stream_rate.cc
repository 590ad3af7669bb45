#include "bench/stream_rate.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>

namespace flashelm {

uint64_t ReadStream(const StreamForm& form, size_t chunk_bytes,
                    std::span<const std::byte> memory, ThreadPool& pool) {
  const size_t num_threads = pool.num_threads();
  const size_t part = memory.size() / num_threads;
  const size_t chunk = chunk_bytes == 0 ? part : chunk_bytes;
  pool.ParallelFor(num_threads, 1, [&](size_t begin, size_t) {
    uint64_t sum = 0;
    for (size_t i = 0; (i + 1) * chunk <= part; ++i) {
      const size_t at = (i * num_threads + begin) * chunk;
      sum += StreamRead(form, memory.data() + at, chunk);
    }
    benchmark::DoNotOptimize(sum);
  });
  return part / chunk * chunk * num_threads;
}

void FillWithWeights(std::span<std::byte> memory) {
  auto* words = reinterpret_cast<uint64_t*>(memory.data());
  uint64_t state = 1;
  for (size_t i = 0; i < memory.size() / sizeof(uint64_t); ++i) {
    state = state * 6364136223846793005 + 1442695040888963407;
    words[i] = (state >> 5 & 0x0707070707070707) | 0x3838383838383838;
  }
}

double StreamMeter::MeasureLoop(const Loop& loop) const {
  const auto begin = std::chrono::steady_clock::now();
  const uint64_t num_bytes =
      ReadStream(*loop.form, loop.chunk_bytes, memory_, pool_);
  const std::chrono::duration<double> time =
      std::chrono::steady_clock::now() - begin;
  return static_cast<double>(num_bytes) / time.count();
}

double StreamMeter::Measure() {
  if (fastest_.empty()) {
    constexpr size_t kKept = 3;
    for (const StreamForm& form : kStreamForms) {
      for (const size_t chunk : kStreamChunks) {
        fastest_.push_back({&form, chunk, 0});
        fastest_.back().bytes_per_second = MeasureLoop(fastest_.back());
      }
    }
    std::ranges::sort(fastest_, std::greater<>(), &Loop::bytes_per_second);
    fastest_.resize(kKept);
    return fastest_.front().bytes_per_second;
  }
  double best = 0;
  for (const Loop& loop : fastest_) best = std::max(best, MeasureLoop(loop));
  return best;
}

}  // namespace flashelm
