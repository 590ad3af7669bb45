#include "bench/machine_peaks.h"

#include <benchmark/benchmark.h>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/machine_peaks.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kLine = 64;
// Bytes of one stream before the next one has its turn.
constexpr size_t kBlock = 1024;

template <bool kNonTemporal>
HWY_INLINE void Fetch(const std::byte* at) {
#if HWY_COMPILER_GCC || HWY_COMPILER_CLANG
  __builtin_prefetch(at, 0, kNonTemporal ? 0 : 3);
#else
  hwy::Prefetch(at);
#endif
}

template <size_t kStreams, bool kPrefetch, bool kNonTemporal>
uint64_t Stream(const std::byte* data, size_t num_bytes, size_t ahead) {
  const hn::CappedTag<uint64_t, 8> d;
  constexpr size_t kVector = hn::MaxLanes(d) * sizeof(uint64_t);
  constexpr size_t kSums = 4;
  // Vectors of a step, at least a cache line.
  constexpr size_t kStep = HWY_MAX(kSums * kVector, kLine);
  auto sum0 = hn::Zero(d), sum1 = sum0, sum2 = sum0, sum3 = sum0;
  const auto load = [&](const std::byte* at) HWY_ATTR {
    return hn::LoadU(d, reinterpret_cast<const uint64_t*>(at));
  };
  const size_t part = num_bytes / kStreams / kBlock * kBlock;
  for (size_t i = 0; i < part; i += kBlock) {
    for (size_t s = 0; s < kStreams; ++s) {
      const std::byte* block = data + s * part + i;
      for (size_t b = 0; b < kBlock; b += kStep) {
        for (size_t f = 0; f < kStep && kPrefetch; f += kLine) {
          Fetch<kNonTemporal>(block + b + f + ahead);
        }
        for (size_t v = 0; v < kStep; v += kSums * kVector) {
          const std::byte* at = block + b + v;
          sum0 = hn::Add(sum0, load(at));
          sum1 = hn::Add(sum1, load(at + kVector));
          sum2 = hn::Add(sum2, load(at + 2 * kVector));
          sum3 = hn::Add(sum3, load(at + 3 * kVector));
        }
      }
    }
  }
  return hn::GetLane(
      hn::SumOfLanes(d, hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3))));
}

template <size_t kStreams>
uint64_t StreamOf(const StreamForm& form, const std::byte* data,
                  size_t num_bytes) {
  const size_t ahead = form.prefetch_bytes;
  if (ahead == 0) return Stream<kStreams, false, false>(data, num_bytes, 0);
  return form.non_temporal
             ? Stream<kStreams, true, true>(data, num_bytes, ahead)
             : Stream<kStreams, true, false>(data, num_bytes, ahead);
}

uint64_t StreamRead(const StreamForm& form, const std::byte* data,
                    size_t num_bytes) {
  if (form.num_streams == 4) return StreamOf<4>(form, data, num_bytes);
  if (form.num_streams == 2) return StreamOf<2>(form, data, num_bytes);
  return StreamOf<1>(form, data, num_bytes);
}

// Twelve sums hide the latency of two multiplications per cycle, and fit with
// their operands into 16 registers.
constexpr size_t kSums = 12;

// Calls step(sum) for each sum, over and over, `rounds` times. The sums begin
// with different values, or a compiler would see that one does for all.
template <class D, class Step>
HWY_INLINE void Repeat(D d, uint64_t rounds, const Step& step) {
  using T = hn::TFromD<D>;
  hn::Vec<D> sums[kSums];
  T first = 0;
  benchmark::DoNotOptimize(first);
  HWY_UNROLL(12)
  for (auto& sum : sums) sum = hn::Set(d, first++);
  for (uint64_t i = 0; i < rounds; ++i) {
    HWY_UNROLL(12)
    for (auto& sum : sums) step(sum);
  }
  auto total = hn::Zero(d);
  HWY_UNROLL(12)
  for (const auto& sum : sums) total = hn::Add(total, sum);
  auto lane = hn::GetLane(total);
  benchmark::DoNotOptimize(lane);
}

uint64_t MultiplyFloats(uint64_t count) {
  const hn::CappedTag<float, 16> d;
  float values[2] = {0.999f, 0.001f};
  benchmark::DoNotOptimize(values);
  const auto a = hn::Set(d, values[0]);
  const auto b = hn::Set(d, values[1]);
  const uint64_t rounds = count / (kSums * hn::Lanes(d));
  Repeat(d, rounds, [&](auto& sum) HWY_ATTR {
    // The sum is a factor, so that no step can be moved out of the loop.
    sum = hn::MulAdd(sum, a, b);
  });
  return rounds * kSums * hn::Lanes(d);
}

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
// In assembly, since a compiler would take a product of constants out of the
// loop.
#if HWY_TARGET <= HWY_AVX3
HWY_INLINE void AddProducts(__m512i a, [[maybe_unused]] __m512i ones,
                            __m512i& sum) {
#if HWY_TARGET <= HWY_AVX3_DL
  asm volatile("vpdpbusd %1, %1, %0" : "+v"(sum) : "v"(a));
#else
  __m512i pairs;
  asm volatile("vpmaddubsw %1, %1, %0" : "=v"(pairs) : "v"(a));
  sum = _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, ones));
#endif
}
#else
HWY_INLINE void AddProducts(__m256i a, __m256i ones, __m256i& sum) {
  __m256i pairs;
  asm volatile("vpmaddubsw %1, %1, %0" : "=x"(pairs) : "x"(a));
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
}
#endif

uint64_t MultiplyInt8(uint64_t count) {
  const hn::CappedTag<int32_t, 16> d;
  const uint64_t per_step = 4 * hn::Lanes(d);
  const auto a = hn::Set(d, 0x01020304);
  const auto ones = hn::Set(d, 0x00010001);
  const uint64_t rounds = count / (kSums * per_step);
  Repeat(d, rounds, [&](auto& sum) HWY_ATTR {
    auto products = sum.raw;
    AddProducts(a.raw, ones.raw, products);
    sum.raw = products;
  });
  return rounds * kSums * per_step;
}
#else
uint64_t MultiplyInt8(uint64_t /*count*/) { return 0; }
#endif

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flashelm {

HWY_EXPORT(StreamRead);
HWY_EXPORT(MultiplyFloats);
HWY_EXPORT(MultiplyInt8);

uint64_t StreamRead(const StreamForm& form, const std::byte* data,
                    size_t num_bytes) {
  return HWY_DYNAMIC_DISPATCH(StreamRead)(form, data, num_bytes);
}

uint64_t MultiplyFloats(uint64_t count) {
  return HWY_DYNAMIC_DISPATCH(MultiplyFloats)(count);
}

uint64_t MultiplyInt8(uint64_t count) {
  return HWY_DYNAMIC_DISPATCH(MultiplyInt8)(count);
}

}  // namespace flashelm
#endif  // HWY_ONCE
