// Which neurons to compute where the gates are known exactly, and what leaving
// out the others costs.
//
// The FFN of input b with the gates g, rows u[i] of up and columns d[i] of down
// is the sum over i of act(g[i]) (u[i] . b) d[i]. Let the importance of neuron
// i be |u[i]| |d[i]|, L2 norms. With the Cauchy-Schwarz inequality its term has
// at most the norm |b| |act(g[i])| importance[i], so that, with the triangle
// inequality, leaving out a set S of neurons changes the output by at most
//
//   |b| * skipped,   skipped = sum over S of |act(g[i])| importance[i]
//
// in L2 norm. `skipped` as reported here is never below that sum, computed
// exactly from the gates and importances given: every rounding is accounted
// for, and the result is rounded up. The rounding of the FFN itself and of the
// gates is not its subject.
#ifndef FLASHELM_PREDICTOR_GATE_SELECTOR_H_
#define FLASHELM_PREDICTOR_GATE_SELECTOR_H_

#include <cstddef>
#include <cstdint>

#include "kernels/activation.h"

namespace flashelm {

// |up| |down|, rounded up: never below the exact value of the norms' product.
//   up, down  [model_dim]
float NeuronImportance(const float* up, const float* down, size_t model_dim);
// The same of the product of the two norms, each computed in double.
float ImportanceOfNorms(double product);

// The neurons that kRelu lets pass, those with a gate above 0, ascending, and
// their number. Leaving out the others changes nothing, as long as none of the
// gates is NaN, which is not selected.
//   gates   [num_neurons]
//   active  [num_neurons], all of which may be overwritten
size_t SelectPositive(const float* gates, uint32_t num_neurons,
                      uint32_t* active);

// Selects the min(num_kept, num_neurons) neurons of the largest
// |act(gate)| * importance in f32, of equal ones those with the lower index.
// Returns their number.
//   gates, importance  [num_neurons]      importances are finite, not negative
//   scratch            [2 * num_neurons]  overlaps no input
//   active             [num_neurons]      ascending
//   skipped            null, or the sum over the others, rounded up
// A gate that is NaN or infinite counts as the largest. Does not allocate.
// About 10 ns for a neuron.
size_t SelectTop(const float* gates, const float* importance,
                 Activation activation, uint32_t num_neurons, size_t num_kept,
                 float* scratch, uint32_t* active, float* skipped);

// Selects the fewest neurons, in the order of SelectTop(), that leave a
// `skipped` of at most `max_skipped`, not negative. As sums are rounded, it may
// take one neuron more than needed where one part in a million decides.
// Arguments as in SelectTop(). Does not allocate. About 20 ns for a neuron.
size_t SelectWithin(const float* gates, const float* importance,
                    Activation activation, uint32_t num_neurons,
                    float max_skipped, float* scratch, uint32_t* active,
                    float* skipped);

}  // namespace flashelm

#endif  // FLASHELM_PREDICTOR_GATE_SELECTOR_H_
