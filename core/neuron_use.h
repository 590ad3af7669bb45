// How many of a layer's neurons tokens use, and what reading those costs.
#ifndef FLASHELM_CORE_NEURON_USE_H_
#define FLASHELM_CORE_NEURON_USE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/model_file.h"
#include "core/sparsity.h"
#include "storage/read_planner.h"
#include "storage/weight_format.h"

namespace flashelm {

// As if tokens used neurons independently of each other but for neighbours, and
// of the tokens before where nothing says how they resemble them.
struct NeuronUse {
  double kept = 0;  // Of a layer's neurons, so many by a token.
  // [ffn_dim], as NeuronFrequency has it; empty: all are used equally often.
  std::span<const float> frequency;
  // Neighbours in the file that are used together, on average: at least as many
  // as happen to be. 1: not known.
  double run_length = 1;
  // By the number of tokens before, from 1 on: the part of a token's neurons
  // that none of these used, falling. Empty: not known.
  std::vector<float> fresh_fractions = {};
};

// Neurons that are kept by their gate's size, or at random, count as used
// equally often. Gates keep what is active, at most as many as the options say,
// other selectors as many as these say, and a predictor alone what the
// calibration measured. Nothing: neither the file nor the options say how many
// are kept.
//   frequency  of the layer's neurons; lives as long as the result
std::optional<NeuronUse> UseOf(const ModelFile& model,
                               const SparsityOptions& options, uint32_t layer,
                               std::span<const float> frequency);

// Of the records that a token uses, those that it misses on average while
// `num_cached` of them are cached: for good, those that are used most often, or
// those that the last tokens used, whichever misses fewer.
// `always_the_same`: whether every token uses the same ones.
double ExpectedMisses(const NeuronUse& use, const Segment& segment,
                      uint64_t num_cached, bool always_the_same);

// How long reading so many records takes, runs of `run_length` of which lie
// anywhere, merged as the cost says, or all of the segment in one go where that
// is less. What is cached is taken to be whole runs.
double ReadNs(const Segment& segment, double num_records, double run_length,
              const ReadCost& cost);

}  // namespace flashelm

#endif  // FLASHELM_CORE_NEURON_USE_H_
