// What a core gives to loops that do nothing but read, or nothing but
// multiply: the rates that kernels are compared with.
#ifndef FLASHELM_BENCH_MACHINE_PEAKS_H_
#define FLASHELM_BENCH_MACHINE_PEAKS_H_

#include <cstddef>
#include <cstdint>

namespace flashelm {

// How StreamRead() goes through its bytes.
struct StreamForm {
  const char* name;
  size_t num_streams;     // 1, 2 or 4 equal parts that are read in turn.
  size_t prefetch_bytes;  // How far ahead lines are fetched; 0 not at all.
  bool non_temporal;      // Fetched past the outer caches.
};

// Reads every byte once and returns their sum in some form, so that no compiler
// leaves them out. `num_bytes` is rounded down to whole blocks of 1 KiB for
// each stream.
uint64_t StreamRead(const StreamForm& form, const std::byte* data,
                    size_t num_bytes);

// Fused multiply-adds of f32 on operands in registers, about `count` single
// ones; returns how many were done.
uint64_t MultiplyFloats(uint64_t count);

// The same for products of int8 that are summed in int32: vpdpbusd where there
// is that, else vpmaddubsw and vpmaddwd; 0 on targets that have neither.
uint64_t MultiplyInt8(uint64_t count);

}  // namespace flashelm

#endif  // FLASHELM_BENCH_MACHINE_PEAKS_H_
