// Which neurons of an FFN are computed.
#ifndef FLASHELM_CORE_SPARSITY_H_
#define FLASHELM_CORE_SPARSITY_H_

#include <cstdint>
#include <string_view>

namespace flashelm {

enum class Selector : uint8_t {
  kOff,      // All of them, as the model was made.
  kGate,     // By their gates, which are all computed.
  kLowBit,   // By a predictor: their gates at one or two bits.
  kLowRank,  // By a predictor: two thin matrices, trained.
  // What others are measured against: no neuron's input is looked at.
  kRandom,     // Any, others for each layer and position.
  kMagnitude,  // Those of the largest up row and down column, for all tokens.
};

// As --sparsity names them.
constexpr std::string_view SelectorName(Selector selector) {
  switch (selector) {
    case Selector::kOff:
      return "off";
    case Selector::kGate:
      return "gate";
    case Selector::kLowBit:
      return "low-bit";
    case Selector::kLowRank:
      return "low-rank";
    case Selector::kRandom:
      return "random";
    case Selector::kMagnitude:
      return "magnitude";
  }
  return "";
}

// How the neurons of layers come from flash.
enum class NeuronReads : uint8_t {
  kAuto,      // As is faster, layer by layer.
  kSingle,    // Those that are kept, one by one, and into a cache.
  kStreamed,  // All of them, in order, as without sparsity.
};

struct SparsityOptions {
  Selector selector = Selector::kOff;
  // Of each layer's neurons, how many are kept, above 0 to 1. 0, for ReLU only:
  // those whose gate is positive, which loses nothing, or those of which a
  // predictor says so.
  double kept_fraction = 0;
  // For kGate, in place of a fraction: as few neurons are kept as leave out no
  // more of a layer's output than this many times the L2 norm of its input. 0:
  // no such bound is given.
  double max_skipped = 0;
  // Tokens whose neurons stay in DRAM, as far as there is room. 0: none do, and
  // no room is taken for them; UINT32_MAX: as long as there is room.
  uint32_t window_tokens = UINT32_MAX;
  // Whether neurons that lie together are read together. Without, each is a
  // read of its own: a baseline to measure against.
  bool merges_reads = true;
  NeuronReads reads = NeuronReads::kAuto;

  bool is_on() const { return selector != Selector::kOff; }
  // Whether a neuron's gate alone decides, so that parts of a layer can be
  // selected, and read, as their gates become known.
  bool takes_gates_one_by_one() const {
    return selector == Selector::kGate && kept_fraction == 0 &&
           max_skipped == 0;
  }
  // Whether a predictor of the file selects.
  bool needs_predictor() const {
    return selector == Selector::kLowBit || selector == Selector::kLowRank;
  }
};

// What a sparse FFN left out, summed over tokens and layers. Active is a neuron
// of a ReLU model whose gate is positive.
struct SparsityStats {
  uint64_t num_neurons = 0;  // Of all FFNs, for each token.
  // Selected. Of these, neurons whose gate is known and 0 need not be read.
  uint64_t num_kept = 0;
  uint64_t num_active = 0;       // Of all; where knows_active.
  uint64_t num_kept_active = 0;  // Of those kept; where knows_kept_active.
  // Of single tokens, each with the one before it: neurons that both keep, and
  // that one of them does.
  uint64_t num_in_both = 0;
  uint64_t num_in_either = 0;
  // The largest of any token and layer, where knows_skipped: what was left out
  // of the FFN's output has at most this many times the L2 norm of its input.
  double max_skipped = 0;

  bool knows_active = false;       // With ReLU, and all gates computed.
  bool knows_kept_active = false;  // With ReLU.
  bool knows_skipped = false;      // Where gates select.
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_SPARSITY_H_
