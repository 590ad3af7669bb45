// Guesses which neurons of an FFN layer will matter, before their weights are
// read.
#ifndef FLASHELM_PREDICTOR_PREDICTOR_H_
#define FLASHELM_PREDICTOR_PREDICTOR_H_

#include <cstddef>

namespace flashelm {

// The predictor of one layer. Its input is the layer's FFN input x, the normed
// hidden state. Prepare() does once per token what all neurons share, Score()
// does the rest for a range of neurons, so that callers can spread ranges over
// threads. A neuron is predicted active where its score is above threshold().
//
// A score has the same bits for any split into ranges and any number of
// threads. An x with a NaN or an infinity may give scores that are NaN, which
// are above no threshold. No function allocates. Thread-compatible.
class Predictor {
 public:
  virtual ~Predictor() = default;

  virtual size_t model_dim() const = 0;
  virtual size_t num_neurons() const = 0;
  // Bytes of the weights: what one token reads.
  virtual size_t num_bytes() const = 0;
  // Floats that Prepare() writes.
  virtual size_t prepared_floats() const = 0;
  virtual float threshold() const = 0;

  //   x         [model_dim]
  //   prepared  [prepared_floats]  for Score() alone to understand: some of it
  //                                may be no floats; overlaps not x
  virtual void Prepare(const float* x, float* prepared) const = 0;

  // Writes the scores of the neurons [begin, end) to scores[begin, end).
  //   prepared  what Prepare() wrote
  //   scores    [num_neurons]
  virtual void Score(const float* prepared, size_t begin, size_t end,
                     float* scores) const = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_PREDICTOR_PREDICTOR_H_
