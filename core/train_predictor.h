// From recorded activations to the predictor of a layer.
#ifndef FLASHELM_CORE_TRAIN_PREDICTOR_H_
#define FLASHELM_CORE_TRAIN_PREDICTOR_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/activation_spool.h"
#include "core/base/cancel.h"
#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "core/model_file.h"
#include "predictor/predictor_file.h"

namespace flashelm {

struct PredictorOptions {
  PredictorKind kind = PredictorKind::kLowRank;
  unsigned bits = 2;            // Low-bit.
  double recall_target = 0.95;  // Of the active neurons, those to be found.
  // Low-rank. A rank of 0 tries powers of two and the largest that takes at
  // most `max_share` of the layer's FFN in bf16, up to 512, the small ones
  // first, until one keeps no more than 7/4 of what is active, nor more than
  // halfway to all. Where none does, it is the one that keeps least. Ranks of
  // whole groups of weights are stored as q4, and tried where there is room for
  // one, if model_dim is whole groups, too; others as bf16.
  uint32_t rank = 0;
  double max_share = 0.05;
  uint32_t num_epochs = 4;
  uint64_t seed = 1;
  const CancelToken* cancel = nullptr;
  // Gets the part of the layer that is done, 0 to 1. May be empty.
  std::function<void(double)> progress;
};

// On samples that neither training nor threshold has seen; parts of 1.
struct PredictorQuality {
  double active_fraction = 0;  // Of all neurons, those that are active,
  double kept_fraction = 0;    // and those that are predicted.
  double recall = 1;           // Of the active, those predicted.
  double precision = 1;        // Of the predicted, those active.
};

struct LayerPredictor {
  std::vector<std::byte> bytes;  // As StorePredictor() gives them.
  uint32_t rank = 0;             // Low-rank.
  PredictorQuality quality;
};

// One sample in eight, in runs, is for measuring; there is need of three runs.
inline constexpr uint32_t kMinTrainingSamples = 96;

// Bytes of a layer's gate, up and down in bf16, whatever the file has.
uint64_t Bf16FfnBytes(const ModelConfig& config, uint32_t layer);

// An upper bound on the memory that TrainPredictor() takes for any layer,
// together with its results for all of them.
uint64_t TrainingBytes(const ModelFile& model, uint32_t num_samples,
                       const PredictorOptions& options, uint32_t num_threads);

// `order` as in CalibratedFileOptions::neuron_order: predictor and gate rows
// have the new one. Equal input gives equal bytes for any number of threads.
// Where nothing is active, so is nothing kept.
// kInvalidArgument: options or samples that cannot be; see TrainLowRank(); with
// the layer.
// kDataLoss, kUnavailable: reading the model. kCancelled.
Result<LayerPredictor> TrainPredictor(const ModelFile& model,
                                      const ActivationSpool& spool,
                                      uint32_t layer,
                                      std::span<const uint32_t> order,
                                      const PredictorOptions& options,
                                      ThreadPool& pool);

}  // namespace flashelm

#endif  // FLASHELM_CORE_TRAIN_PREDICTOR_H_
