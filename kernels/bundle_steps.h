// The order in which one thread goes through the bundles of an FFN for one
// token, and how far ahead of it they are fetched.
#ifndef FLASHELM_KERNELS_BUNDLE_STEPS_H_
#define FLASHELM_KERNELS_BUNDLE_STEPS_H_

#include <algorithm>
#include <cstddef>

#include "kernels/prefetch.h"
#include "kernels/quant_sum.h"
#include "kernels/weight_view.h"

namespace flashelm {

// Bundles go through a core's caches once, some at a time: gates and ups of a
// few neurons, of the next few, and so on, then the down columns of all.
struct BundleSteps {
  // Bundles of a step: few, since those of the step and those that are fetched
  // share the second-level cache; a whole block of AddQuantRows() where down
  // columns are quantized.
  size_t bundles;
  // Of these, neurons whose gates come before their ups: few for the same
  // reason, but enough to be worth a call.
  size_t gates;
};

inline constexpr size_t kMaxBundlesOfStep = kQuantSumRows;

// `type`: that of the down columns.
constexpr BundleSteps BundleStepsOf(WeightType type) {
  if (IsQuantized(type)) return {kMaxBundlesOfStep, 8};
  return {8, 4};
}

// How many bytes ahead of the work bundles have to be fetched, in the order in
// which they lie in memory, so that each part was fetched at least 32 KiB of
// work before its turn, once that lead is won. Work leaves bundles in the order
// above: it comes to the last gate of a step when all the down columns before
// that, and the ups of its group, are still to come.
// As much as 176 KiB for f32 and 160 KiB for q8 with the 3072 columns of 3B.
//   part_bytes  of a gate, up or down column
//   num_parts   of a bundle: 2 where gates lie elsewhere, 1 where ups do, too
constexpr size_t BundleBytesAhead(BundleSteps steps, size_t part_bytes,
                                  size_t num_parts) {
  constexpr size_t kMinLead = size_t{32} << 10;
  const size_t disorder =
      num_parts == 1 ? 0 : (steps.bundles + steps.gates) * part_bytes;
  return std::max(disorder + kMinLead, kBytesAhead);
}

}  // namespace flashelm

#endif  // FLASHELM_KERNELS_BUNDLE_STEPS_H_
