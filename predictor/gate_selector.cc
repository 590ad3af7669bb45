#include "predictor/gate_selector.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "predictor/active_set.h"

namespace flashelm {
namespace {

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();
constexpr double kLeastSubnormal = std::numeric_limits<float>::denorm_min();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A float that is not below `value`.
float RoundedUp(double value) {
  const auto rounded = static_cast<float>(value);
  return rounded < value ? std::nextafter(rounded, kInfinity) : rounded;
}

// |act(gate)| * importance, in f32; infinity instead of NaN, which has no place
// in an order.
//   keys  [num_neurons]
void ComputeKeys(const float* gates, const float* importance,
                 Activation activation, uint32_t num_neurons, float* keys) {
  GluActivate(activation, gates, importance, num_neurons, keys);
  for (uint32_t i = 0; i < num_neurons; ++i) {
    const float key = std::abs(keys[i]);
    keys[i] = key >= 0 ? key : kInfinity;
  }
}

// No less than |act(gate)| * importance. The factor of kSilu is twice the
// error that kernels/activation.h states, so that what a sum of up to 2^29 of
// them loses in double is covered as well.
double UpperBound(Activation activation, float gate, float importance,
                  float key) {
  if (activation == Activation::kRelu) {
    // Exact in double.
    if (gate <= 0) return 0;
    return static_cast<double>(gate) * importance;
  }
  if (key == kInfinity) return kInfinity;
  return key * (1 + 8 * kEpsilon) + (std::abs(static_cast<double>(gate)) + 1) *
                                        (static_cast<double>(importance) + 1) *
                                        kLeastSubnormal;
}

// What a sum of UpperBound() may have lost in double.
float UpperSum(double sum) { return RoundedUp(sum * (1 + kEpsilon)); }

}  // namespace

float NeuronImportance(const float* up, const float* down, size_t model_dim) {
  double up_squares = 0;
  double down_squares = 0;
  for (size_t k = 0; k < model_dim; ++k) {
    up_squares += static_cast<double>(up[k]) * up[k];
    down_squares += static_cast<double>(down[k]) * down[k];
  }
  return ImportanceOfNorms(std::sqrt(up_squares) * std::sqrt(down_squares));
}

float ImportanceOfNorms(double product) { return UpperSum(product); }

size_t SelectPositive(const float* gates, uint32_t num_neurons,
                      uint32_t* active) {
  return SelectAbove(gates, num_neurons, 0.0f, active);
}

size_t SelectTop(const float* gates, const float* importance,
                 Activation activation, uint32_t num_neurons, size_t num_kept,
                 float* scratch, uint32_t* active, float* skipped) {
  num_kept = std::min<size_t>(num_kept, num_neurons);
  float* keys = scratch;
  ComputeKeys(gates, importance, activation, num_neurons, keys);

  // The least key that is kept, and how many of those equal to it are.
  float least = kInfinity;
  size_t num_least = 0;
  if (num_kept > 0) {
    float* sorted = scratch + num_neurons;
    std::copy_n(keys, num_neurons, sorted);
    float* last = sorted + (num_kept - 1);
    std::nth_element(sorted, last, sorted + num_neurons, std::greater<>());
    least = *last;
    num_least = 1 + static_cast<size_t>(std::count(sorted, last, least));
  }

  size_t count = 0;
  double sum = 0;
  for (uint32_t i = 0; i < num_neurons; ++i) {
    const bool is_least = keys[i] == least && num_least > 0;
    if (is_least) --num_least;
    if (keys[i] > least || is_least) {
      active[count++] = i;
    } else {
      sum += UpperBound(activation, gates[i], importance[i], keys[i]);
    }
  }
  if (skipped != nullptr) *skipped = UpperSum(sum);
  return count;
}

size_t SelectWithin(const float* gates, const float* importance,
                    Activation activation, uint32_t num_neurons,
                    float max_skipped, float* scratch, uint32_t* active,
                    float* skipped) {
  float* keys = scratch;
  ComputeKeys(gates, importance, activation, num_neurons, keys);
  const auto bound = [&](uint32_t i) {
    return UpperBound(activation, gates[i], importance[i], keys[i]);
  };
  const auto is_skipped_before = [&](uint32_t a, uint32_t b) {
    return keys[a] != keys[b] ? keys[a] < keys[b] : a > b;
  };

  // Room for the order of summation, which differs below, and for UpperSum().
  const double limit = max_skipped * (1 - 8 * kEpsilon);
  // Invariant: active[0, begin) are skipped, with the sum `sum`, active[end,
  // num_neurons) are kept, and all between are in the order between them.
  for (uint32_t i = 0; i < num_neurons; ++i) active[i] = i;
  uint32_t* begin = active;
  uint32_t* end = active + num_neurons;
  double sum = 0;
  while (begin < end) {
    uint32_t* middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, is_skipped_before);
    double half = 0;
    for (const uint32_t* i = begin; i <= middle; ++i) half += bound(*i);
    if (sum + half <= limit) {
      sum += half;
      begin = middle + 1;
    } else {
      end = middle;
    }
  }

  // Marks instead of sorting: scratch has what active has no room for.
  float* is_kept = scratch + num_neurons;
  std::fill_n(is_kept, num_neurons, 1.0f);
  for (const uint32_t* i = active; i < begin; ++i) is_kept[*i] = 0.0f;
  sum = 0;
  for (uint32_t i = 0; i < num_neurons; ++i) {
    if (is_kept[i] == 0.0f) sum += bound(i);
  }
  if (skipped != nullptr) *skipped = UpperSum(sum);
  return SelectAbove(is_kept, num_neurons, 0.5f, active);
}

}  // namespace flashelm
