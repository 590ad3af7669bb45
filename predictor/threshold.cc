#include "predictor/threshold.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "kernels/float_types.h"

namespace flashelm {

Result<ThresholdChoice> ChooseThreshold(std::span<const float> scores,
                                        std::span<const uint8_t> labels,
                                        double recall_target) {
  if (scores.size() != labels.size()) {
    return InvalidArgument("choosing a threshold: ", scores.size(),
                           " scores with ", labels.size(), " labels");
  }
  if (!(recall_target > 0 && recall_target <= 1)) {
    return InvalidArgument("choosing a threshold: a recall of ", recall_target,
                           ", expected more than 0 and at most 1");
  }
  if (const size_t bad = CountNonFinite(scores.data(), scores.size());
      bad > 0) {
    return InvalidArgument("choosing a threshold: ", bad,
                           " scores are NaN or infinite");
  }

  std::vector<float> active;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (labels[i] != 0) active.push_back(scores[i]);
  }
  ThresholdChoice choice;
  if (active.empty()) {
    choice.threshold = std::numeric_limits<float>::max();
    return choice;
  }

  // The least number of them that is enough, as recall is computed below.
  const auto num_active = static_cast<double>(active.size());
  auto wanted = static_cast<size_t>(recall_target * num_active);
  while (static_cast<double>(wanted) / num_active < recall_target) ++wanted;
  wanted = std::max<size_t>(wanted, 1);
  const auto last = active.begin() + static_cast<ptrdiff_t>(wanted - 1);
  std::nth_element(active.begin(), last, active.end(), std::greater<>());
  choice.threshold =
      std::nextafter(*last, -std::numeric_limits<float>::infinity());

  size_t num_kept = 0;
  size_t num_found = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (scores[i] > choice.threshold) {
      ++num_kept;
      num_found += labels[i] != 0 ? 1 : 0;
    }
  }
  choice.recall = static_cast<double>(num_found) / num_active;
  choice.precision =
      static_cast<double>(num_found) / static_cast<double>(num_kept);
  choice.kept_fraction =
      static_cast<double>(num_kept) / static_cast<double>(scores.size());
  return choice;
}

}  // namespace flashelm
