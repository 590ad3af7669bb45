#include "kernels/low_bit_dot.h"

#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/low_bit_dot.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using WordTag = hn::CappedTag<uint16_t, kLowBitWords>;
using CodeTag = hn::RebindToSigned<WordTag>;
using SumTag = hn::CappedTag<int32_t, kLowBitWords / 2>;
using Sums = hn::Vec<SumTag>;
constexpr size_t kWordLanes = hn::MaxLanes(WordTag());

HWY_INLINE hn::Vec<WordTag> LoadWords(const std::byte* from) {
#if HWY_TARGET == HWY_SCALAR
  uint16_t word;
  std::memcpy(&word, from, sizeof(word));
  return hn::Set(WordTag(), word);
#else
  const hn::Repartition<uint8_t, WordTag> d8;
  return hn::BitCast(WordTag(),
                     hn::LoadU(d8, reinterpret_cast<const uint8_t*>(from)));
#endif
}

// Adds the products of slots kSlot and up of some words of a block.
//   a  the block's, from the first of those words on
template <unsigned kBits, unsigned kSlot>
HWY_INLINE void AddSlots(hn::Vec<WordTag> words, const int16_t* a,
                         Sums (&even)[2], Sums (&odd)[2]) {
  if constexpr (kSlot * kBits < 16) {
    auto codes = words;
    if constexpr (kSlot > 0) codes = hn::ShiftRight<kSlot * kBits>(codes);
    if constexpr ((kSlot + 1) * kBits < 16) {
      codes = hn::And(
          codes, hn::Set(WordTag(), static_cast<uint16_t>((1 << kBits) - 1)));
    }
    // Two chains of sums, so that one need not wait for the other.
    Sums(&sums)[2] = kSlot % 2 == 0 ? even : odd;
    sums[0] = hn::ReorderWidenMulAccumulate(
        SumTag(), hn::BitCast(CodeTag(), codes),
        hn::LoadU(CodeTag(), a + kSlot * kLowBitWords), sums[0], sums[1]);
    AddSlots<kBits, kSlot + 1>(words, a, even, odd);
  }
}

template <unsigned kBits>
HWY_INLINE void LowBitDotsOf(const std::byte* rows, size_t num_rows,
                             size_t num_blocks, const int16_t* a,
                             int32_t* out) {
  const SumTag d;
  for (size_t r = 0; r < num_rows; ++r) {
    Sums even[2] = {hn::Zero(d), hn::Zero(d)};
    Sums odd[2] = {hn::Zero(d), hn::Zero(d)};
    const std::byte* row = rows + r * num_blocks * kLowBitBlockBytes;
    for (size_t b = 0; b < num_blocks; ++b) {
      for (size_t w = 0; w < kLowBitWords; w += kWordLanes) {
        AddSlots<kBits, 0>(LoadWords(row + b * kLowBitBlockBytes + 2 * w),
                           a + b * LowBitBlockCodes(kBits) + w, even, odd);
      }
    }
    out[r] = hn::GetLane(hn::SumOfLanes(
        d, hn::Add(hn::Add(even[0], even[1]), hn::Add(odd[0], odd[1]))));
  }
}

void LowBitDots(unsigned bits, const std::byte* rows, size_t num_rows,
                size_t num_blocks, const int16_t* a, int32_t* out) {
  if (bits == 1) {
    LowBitDotsOf<1>(rows, num_rows, num_blocks, a, out);
  } else {
    LowBitDotsOf<2>(rows, num_rows, num_blocks, a, out);
  }
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace flashelm {

HWY_EXPORT(LowBitDots);

void LowBitDots(unsigned bits, const std::byte* rows, size_t num_rows,
                size_t num_blocks, const int16_t* a, int32_t* out) {
  HWY_DYNAMIC_DISPATCH(LowBitDots)(bits, rows, num_rows, num_blocks, a, out);
}

}  // namespace flashelm
#endif  // HWY_ONCE
