#include "core/cache_share.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>

namespace flashelm {
namespace {

// Bit patterns of numbers that are not negative have the order of the numbers.
uint32_t OrderOf(float frequency) {
  return std::bit_cast<uint32_t>(frequency + 0.0f);  // No -0.
}

// Bundles that are used at least as often as `order` says.
uint64_t CountFrom(const LayerBundles& layer, uint32_t order) {
  if (layer.frequency.empty()) {
    return order <= OrderOf(1) ? layer.num_bundles : 0;
  }
  return static_cast<uint64_t>(std::ranges::count_if(
      layer.frequency, [&](float p) { return OrderOf(p) >= order; }));
}

// The first `order` up to that of 1, or the next, for which `is_enough`, which
// stays true from there on.
template <class Predicate>
uint32_t FirstOrder(const Predicate& is_enough) {
  uint32_t low = 0;
  uint32_t high = OrderOf(1) + 1;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (is_enough(middle)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

}  // namespace

std::vector<uint32_t> ShareCache(std::span<const LayerBundles> layers,
                                 uint64_t bytes) {
  std::vector<uint64_t> floors;
  for (const LayerBundles& layer : layers) {
    assert(layer.frequency.empty() ||
           layer.frequency.size() == layer.num_bundles);
    floors.push_back(
        std::min(layer.num_bundles,
                 static_cast<uint64_t>(std::ceil(ExpectedUsed(layer)))));
  }
  const auto slots_of = [&](size_t i, uint32_t order) {
    return std::max(floors[i], CountFrom(layers[i], order));
  };
  // Between two numbers of slots for each layer, what `bytes` suffice for, with
  // the same part of the difference everywhere.
  const auto between = [&](const auto& fewest, const auto& most) {
    uint64_t fewest_bytes = 0;
    uint64_t more_bytes = 0;
    for (size_t i = 0; i < layers.size(); ++i) {
      fewest_bytes += fewest(i) * layers[i].slot_bytes;
      more_bytes += (most(i) - fewest(i)) * layers[i].slot_bytes;
    }
    const double part =
        more_bytes == 0
            ? 0
            : std::min(1.0, static_cast<double>(bytes - fewest_bytes) /
                                static_cast<double>(more_bytes));
    std::vector<uint32_t> slots;
    for (size_t i = 0; i < layers.size(); ++i) {
      const uint64_t more = most(i) - fewest(i);
      slots.push_back(static_cast<uint32_t>(
          fewest(i) + std::min(more, static_cast<uint64_t>(
                                         part * static_cast<double>(more)))));
    }
    return slots;
  };
  const auto none = [](size_t) { return uint64_t{0}; };
  const auto floor = [&](size_t i) { return floors[i]; };
  uint64_t floor_bytes = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    floor_bytes += floors[i] * layers[i].slot_bytes;
  }
  if (floor_bytes > bytes) return between(none, floor);
  const uint32_t order = FirstOrder([&](uint32_t candidate) {
    uint64_t total = 0;
    for (size_t i = 0; i < layers.size(); ++i) {
      total += slots_of(i, candidate) * layers[i].slot_bytes;
    }
    return total <= bytes;
  });
  const auto used_more = [&](size_t i) { return slots_of(i, order); };
  if (order == 0) return between(used_more, used_more);
  // For some of those that are used a little less often there is room.
  return between(used_more, [&](size_t i) { return slots_of(i, order - 1); });
}

double ExpectedUsed(const LayerBundles& layer) {
  return ExpectedMisses(layer, 0);
}

double ExpectedMisses(const LayerBundles& layer, uint64_t num_slots) {
  if (num_slots >= layer.num_bundles) return 0;
  if (layer.frequency.empty()) {
    return static_cast<double>(layer.num_bundles - num_slots);
  }
  // Those below `order` do not fit, nor do some of those at it.
  const uint32_t order = FirstOrder([&](uint32_t candidate) {
    return CountFrom(layer, candidate) <= num_slots;
  });
  double misses = 0;
  for (const float p : layer.frequency) {
    if (OrderOf(p) < order) misses += static_cast<double>(p);
  }
  const uint64_t left = num_slots - CountFrom(layer, order);
  return left == 0 || order == 0
             ? misses
             : misses -
                   static_cast<double>(left) *
                       static_cast<double>(std::bit_cast<float>(order - 1));
}

}  // namespace flashelm
