// Weights of every encoding as vectors of floats, inlined into each SIMD
// target. Included after hwy/highway.h, once per target.
#if defined(FLASHELM_KERNELS_WEIGHTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FLASHELM_KERNELS_WEIGHTS_INL_H_
#undef FLASHELM_KERNELS_WEIGHTS_INL_H_
#else
#define FLASHELM_KERNELS_WEIGHTS_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/dot-inl.h"
#include "kernels/weight_view.h"

HWY_BEFORE_NAMESPACE();
namespace flashelm::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Encodings as template arguments, beside float and Bf16.
struct Q8 {};
struct Q4 {};

template <class W>
constexpr WeightType TypeOf() {
  if constexpr (std::is_same_v<W, Q8>) return WeightType::kQ8;
  if constexpr (std::is_same_v<W, Q4>) return WeightType::kQ4;
  if constexpr (std::is_same_v<W, Bf16>) return WeightType::kBf16;
  return WeightType::kF32;
}

template <class W>
constexpr bool kIsQuantized = IsQuantized(TypeOf<W>());

// Columns are taken in spans of the size of a group, whatever the encoding.
template <class W>
constexpr size_t kGroupBytes = ElementsBytes(TypeOf<W>(), kQuantGroup);

// The next Lanes(d) F16, at any address, as floats.
template <class D>
HWY_INLINE hn::Vec<D> LoadF16(D d, const std::byte* from) {
  const hn::Rebind<hwy::float16_t, D> d16;
#if HWY_TARGET == HWY_SCALAR
  hwy::float16_t bits;
  std::memcpy(&bits, from, sizeof(bits));
  return hn::PromoteTo(d, hn::Set(d16, bits));
#else
  const hn::Repartition<uint8_t, decltype(d16)> d8;
  return hn::PromoteTo(
      d,
      hn::BitCast(d16, hn::LoadU(d8, reinterpret_cast<const uint8_t*>(from))));
#endif
}

// Groups whose scales are converted at once.
constexpr size_t kScaledGroups = 16;

// A weight of a quantized group is its code times `unit`, plus `offset`.
struct GroupUnits {
  float unit[kScaledGroups];
  float offset[kScaledGroups];
};

// Of the first `count` groups of a row, at most kScaledGroups. Nothing for
// elements that are floats.
template <class W>
HWY_INLINE void LoadUnits(const std::byte* scales, size_t count,
                          GroupUnits& units) {
  if constexpr (kIsQuantized<W>) {
    const auto load = [&](auto d, size_t i) HWY_ATTR {
      const auto scale = LoadF16(d, scales + i * sizeof(F16));
      if constexpr (std::is_same_v<W, Q8>) {
        hn::StoreU(hn::Mul(scale, hn::Set(d, 1.0f / 16)), d, units.unit + i);
      } else {
        hn::StoreU(scale, d, units.unit + i);
        hn::StoreU(hn::Mul(scale, hn::Set(d, -8.0f)), d, units.offset + i);
      }
    };
    size_t i = 0;
    for (; count - i >= kLanes; i += kLanes) load(VectorTag(), i);
    for (; i < count; ++i) load(LaneTag(), i);
  }
}

// The units of one group in all lanes.
struct UnitVectors {
  Vector unit;
  Vector offset;
};

template <class W>
HWY_INLINE UnitVectors BroadcastUnits(const GroupUnits& units, size_t group) {
  const VectorTag d;
  UnitVectors result = {hn::Zero(d), hn::Zero(d)};
  if constexpr (kIsQuantized<W>) result.unit = hn::Set(d, units.unit[group]);
  if constexpr (std::is_same_v<W, Q4>) {
    result.offset = hn::Set(d, units.offset[group]);
  }
  return result;
}

// The weights at columns j and j + 16 of a group, kLanes from each on, exact;
// `group` is where its codes begin.
template <class W>
HWY_INLINE void LoadPair(const std::byte* group, size_t j,
                         const UnitVectors& units, Vector& low, Vector& high) {
  const VectorTag d;
  constexpr size_t kHalf = kQuantGroup / 2;
  if constexpr (!kIsQuantized<W>) {
    low = LoadElements<W>(d, group + j * sizeof(W));
    high = LoadElements<W>(d, group + (kHalf + j) * sizeof(W));
  } else {
    const hn::RebindToSigned<VectorTag> d32;
    const auto* codes = reinterpret_cast<const uint8_t*>(group) + j;
    if constexpr (std::is_same_v<W, Q8>) {
      const hn::Rebind<int8_t, VectorTag> d8;
      const auto* q = reinterpret_cast<const int8_t*>(codes);
      const auto convert = [&](const int8_t* at) HWY_ATTR {
        return hn::ConvertTo(d, hn::PromoteTo(d32, hn::LoadU(d8, at)));
      };
      low = hn::Mul(convert(q), units.unit);
      high = hn::Mul(convert(q + kHalf), units.unit);
    } else {
      const hn::Rebind<uint8_t, VectorTag> d8;
      const auto both = hn::PromoteTo(d32, hn::LoadU(d8, codes));
      const auto n = hn::And(both, hn::Set(d32, 15));
      // n d - 8 d, which is exact with a fused multiply-add and without.
      low = hn::MulAdd(hn::ConvertTo(d, n), units.unit, units.offset);
      high = hn::MulAdd(hn::ConvertTo(d, hn::ShiftRight<4>(both)), units.unit,
                        units.offset);
    }
  }
}

// Calls `run` with the template argument that stands for `type`.
template <class Run>
HWY_INLINE void WithEncoding(WeightType type, const Run& run) {
  switch (type) {
    case WeightType::kF32:
      return run(float());
    case WeightType::kBf16:
      return run(Bf16());
    case WeightType::kQ8:
      return run(Q8());
    case WeightType::kQ4:
      return run(Q4());
  }
}

}  // namespace flashelm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // FLASHELM_KERNELS_WEIGHTS_INL_H_
