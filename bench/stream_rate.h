// How fast DRAM can be read by loops that do nothing else: what decoding, which
// takes its weights from there, is compared with.
#ifndef FLASHELM_BENCH_STREAM_RATE_H_
#define FLASHELM_BENCH_STREAM_RATE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "bench/machine_peaks.h"
#include "core/base/thread_pool.h"

namespace flashelm {

// The loops; which one is the fastest depends on the machine.
inline constexpr StreamForm kStreamForms[] = {
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

// Bytes of a chunk; 0: each thread reads one part of the memory.
inline constexpr size_t kStreamChunks[] = {0, 64 << 10, 2048 << 10};

// Reads the memory once, with all threads of the pool: each of them one part
// or, with chunks, one chunk in so many as there are threads. Returns the bytes
// that were read: what fills no chunk is left out.
uint64_t ReadStream(const StreamForm& form, size_t chunk_bytes,
                    std::span<const std::byte> memory, ThreadPool& pool);

// Bytes that are small positive weights, scales, keys and values in every
// encoding, so that nothing is infinite, NaN or subnormal.
void FillWithWeights(std::span<std::byte> memory);

// Measures the fastest loop again and again, as DRAM changes its speed within
// seconds. The memory should be many times the size of the caches; it and the
// pool outlive the meter. Used by one thread.
class StreamMeter {
 public:
  StreamMeter(std::span<const std::byte> memory, ThreadPool& pool)
      : memory_(memory), pool_(pool) {}

  // Bytes per second of the fastest loop now. The first call tries all loops,
  // later ones the three that were fastest then.
  double Measure();

 private:
  struct Loop {
    const StreamForm* form = nullptr;
    size_t chunk_bytes = 0;
    double bytes_per_second = 0;
  };
  double MeasureLoop(const Loop& loop) const;

  std::span<const std::byte> memory_;
  ThreadPool& pool_;
  std::vector<Loop> fastest_;
};

}  // namespace flashelm

#endif  // FLASHELM_BENCH_STREAM_RATE_H_
