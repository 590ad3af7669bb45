// Learning from a text which neurons of a model go together.
#ifndef FLASHELM_CORE_CALIBRATE_H_
#define FLASHELM_CORE_CALIBRATE_H_

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/activation_recorder.h"
#include "core/base/cancel.h"
#include "core/ffn_observer.h"
#include "core/session.h"

namespace flashelm {

// Runs the session's model over `tokens`, a text encoded without BOS, in
// windows of n_ctx positions, BOS first, for `observers` to see.
// Overwrites the session's sequence. `progress`, which may be empty, gets
// tokens done. kInvalidArgument: no tokens, or an n_ctx below 2 or above the
// context. Other errors as Session::Run().
Status RecordActivations(Session& session, std::span<const TokenId> tokens,
                         TokenId bos_id, uint32_t n_ctx,
                         const CancelToken& cancel,
                         const std::function<void(uint64_t)>& progress,
                         std::span<FfnObserver* const> observers);

// Positions that it computes: the tokens, and a BOS for each window.
uint64_t NumPositions(uint64_t num_tokens, uint32_t n_ctx);

enum class NeuronOrder : uint8_t { kFile, kFrequency, kCoActivation };

// order[new place] = neuron of the file. Empty for kFile.
std::vector<uint32_t> OrderNeurons(const ActivationRecorder& recorder,
                                   uint32_t layer, NeuronOrder order);

// An upper bound on the memory that it takes for any layer, with the orders of
// all of them.
uint64_t OrderBytes(const ModelConfig& config);

// What a layer did, for people.
struct LayerActivity {
  double active_fraction = 0;  // Of its neurons, for a token, on average.
  // Bundles side by side that are read together: mean length of runs of active
  // neurons, as the file has them and in the new order.
  double run_length_before = 0;
  double run_length_after = 0;
  // By the number of tokens before that they may have been active for, from 1
  // on: the part of a token's active neurons that were not.
  std::vector<double> fresh_fractions;
};
LayerActivity ActivityOf(const ActivationRecorder& recorder, uint32_t layer,
                         std::span<const uint32_t> order);

}  // namespace flashelm

#endif  // FLASHELM_CORE_CALIBRATE_H_
