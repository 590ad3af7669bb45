// Trains a LowRankPredictor from recorded FFN inputs.
#ifndef FLASHELM_PREDICTOR_LOW_RANK_TRAINER_H_
#define FLASHELM_PREDICTOR_LOW_RANK_TRAINER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/base/cancel.h"
#include "core/base/status.h"
#include "predictor/low_rank.h"
#include "predictor/threshold.h"

namespace flashelm {

// The samples of one layer, read several times over: always the same ones in
// the same order. One thread.
class SampleSource {
 public:
  virtual ~SampleSource() = default;

  // Goes back to the first sample; called before each pass.
  virtual Status Rewind() = 0;

  // Gives the next samples and their number, 0 at the end only.
  //   x       [max_samples, model_dim]    FFN inputs, finite
  //   labels  [max_samples, num_neurons]  0, or 1 where the neuron was active
  virtual Result<size_t> Next(size_t max_samples, float* x,
                              uint8_t* labels) = 0;
};

// What training has reached.
struct LowRankProgress {
  uint32_t epoch;  // 0: the start.
  // Mean over the epoch, 0 at the start. log 2 is no better than chance.
  double training_loss;
  ThresholdChoice choice;  // On the samples held out.
};

struct LowRankTrainerOptions {
  WeightType type = WeightType::kBf16;  // Of the two matrices.
  uint32_t rank = 128;
  uint32_t num_epochs = 4;  // 0 gives the start.
  uint32_t batch_samples = 64;
  // The first step of a parameter, as a part of the size that it typically has.
  // Steps become smaller evenly, down to 0 at the end.
  float learning_rate = 0.02f;
  double recall_target = 0.95;
  // Samples held out come in runs, since neighbours in a text are alike.
  double held_out_fraction = 0.1;
  uint32_t held_out_run = 32;
  uint32_t max_held_out = 1024;  // At least one run in any case.
  uint64_t seed = 1;
  const CancelToken* cancel = nullptr;
  std::function<void(const LowRankProgress&)> progress;  // May be empty.
};

struct TrainedLowRank {
  LowRankPredictor::Shape shape;
  std::vector<std::byte> bytes;  // For LowRankPredictor.
  // Measured with those bytes, on the samples held out.
  ThresholdChoice choice;
};

// Minimises the balanced logistic loss: active and other neurons count the
// same in sum, each weighted by the inverse of its frequency. Adam, in batches;
// chunks of 1024 samples are shuffled. Of the start and all epochs it returns
// the one that reaches `recall_target` on held-out samples with the fewest
// neurons kept. Where all or none are active there is nothing to learn, and it
// is the start; where none of the held-out samples' are, nothing is kept.
//
// With the gate matrix G it starts from the approximation of that rank with the
// least mean squared error in the gates, for inputs as they are in the samples:
// B A = U U^T G with U the leading eigenvectors of G C G^T, C = mean(x x^T).
// Without, from random A and no B.
//   gate  [num_neurons, model_dim], or null
//
// Equal samples and options give equal bytes, in one build on one machine.
// Passes over the samples: num_epochs + 2. Takes 6 rank * num_neurons
// multiplications, about, for a sample of an epoch, and memory for 1024 + at
// most max_held_out samples, for up to 2048 inputs and for the parameters,
// five times.
//
// kInvalidArgument: a shape or option that cannot be, too few samples to hold
// some out, samples that change between passes or are not finite, or training
// that diverges. kCancelled.
// And every error of `source`.
Result<TrainedLowRank> TrainLowRank(uint32_t num_neurons, uint32_t model_dim,
                                    const float* gate, SampleSource& source,
                                    const LowRankTrainerOptions& options);

// An upper bound on the memory that TrainLowRank() takes for so many samples,
// the gate matrix not counted.
uint64_t LowRankTrainerBytes(uint32_t num_neurons, uint32_t model_dim,
                             uint64_t num_samples,
                             const LowRankTrainerOptions& options);

}  // namespace flashelm

#endif  // FLASHELM_PREDICTOR_LOW_RANK_TRAINER_H_
