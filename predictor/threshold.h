// Where to draw the line between scores of active and of other neurons.
#ifndef FLASHELM_PREDICTOR_THRESHOLD_H_
#define FLASHELM_PREDICTOR_THRESHOLD_H_

#include <cstdint>
#include <span>

#include "core/base/status.h"

namespace flashelm {

// A threshold, and what it does to the scores that it was chosen from. Kept is
// what has a score above it.
struct ThresholdChoice {
  float threshold = 0;
  double recall = 1;         // Of the active, how many are kept.
  double precision = 1;      // Of the kept, how many are active.
  double kept_fraction = 0;  // Of all, how many are kept.
};

// The largest threshold whose recall is at least `recall_target`. Where nothing
// is active, one above which there is nothing.
//   scores, labels  [n]  of any neurons and tokens; a label is 0 or, where the
//                        neuron was active, something else
// kInvalidArgument: lengths that differ, a target outside of (0, 1], or a score
// that is NaN or infinite. Allocates up to n floats.
Result<ThresholdChoice> ChooseThreshold(std::span<const float> scores,
                                        std::span<const uint8_t> labels,
                                        double recall_target);

}  // namespace flashelm

#endif  // FLASHELM_PREDICTOR_THRESHOLD_H_
