// Which neurons of an FFN are computed.
#ifndef FLASHELM_CORE_SPARSITY_H_
#define FLASHELM_CORE_SPARSITY_H_

#include <cstdint>

namespace flashelm {

enum class Selector : uint8_t {
  kOff,   // All of them, as the model was made.
  kGate,  // By their gates, which are all computed.
};

struct SparsityOptions {
  Selector selector = Selector::kOff;
  // Of each layer's neurons, how many are kept, above 0 to 1. 0, for ReLU only:
  // those whose gate is positive, which loses nothing.
  double kept_fraction = 0;
  // Tokens whose neurons stay in DRAM, as far as there is room. 0: none do, and
  // no room is taken for them.
  uint32_t window_tokens = 5;
  // Whether neurons that lie together are read together. Without, each is a
  // read of its own: a baseline to measure against.
  bool merges_reads = true;

  bool is_on() const { return selector != Selector::kOff; }
};

// What a sparse FFN left out, summed over tokens and layers.
struct SparsityStats {
  uint64_t num_neurons = 0;  // Of all FFNs, for each token.
  uint64_t num_kept = 0;
  // The largest of any token and layer: what was left out of the FFN's output
  // has at most this many times the L2 norm of its input.
  double max_skipped = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_SPARSITY_H_
