// How layers share the cache of bundles.
#ifndef FLASHELM_CORE_CACHE_SHARE_H_
#define FLASHELM_CORE_CACHE_SHARE_H_

#include <cstdint>
#include <span>
#include <vector>

namespace flashelm {

struct LayerBundles {
  uint64_t num_bundles = 0;
  uint64_t slot_bytes = 0;  // What caching one of them takes.
  // [num_bundles], from 0 to 1: of all tokens, those that use a bundle. Empty:
  // not known, as if every token used all of them.
  std::span<const float> frequency;
};

// Slots for each layer, which take no more than `bytes`. First come those that
// a token's bundles take on average, or the same part of them in every layer;
// then the slots of those bundles that are used most often, wherever they are,
// since of a bundle that is cached for good as many misses are spared as it is
// used. Of bundles that are used equally often every layer has the same part.
std::vector<uint32_t> ShareCache(std::span<const LayerBundles> layers,
                                 uint64_t bytes);

// Bundles that a token uses on average.
double ExpectedUsed(const LayerBundles& layer);

// Bundles that a token misses on average if the `num_slots` that are used most
// often are cached for good: what a cache that follows the text should not
// exceed, and may well undercut.
double ExpectedMisses(const LayerBundles& layer, uint64_t num_slots);

}  // namespace flashelm

#endif  // FLASHELM_CORE_CACHE_SHARE_H_
