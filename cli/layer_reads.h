// What each layer of a model reads for a token, for records.
#ifndef FLASHELM_CLI_LAYER_READS_H_
#define FLASHELM_CLI_LAYER_READS_H_

#include <cstdint>
#include <vector>

#include "cli/record.h"
#include "core/engine.h"

namespace flashelm::cli {

// The record's "layers": every key, null.
Json EmptyLayers();

// Counts neurons between Begin() and End(), any number of times; what is
// streamed follows from the plan. The engine outlives it.
class LayerReads {
 public:
  explicit LayerReads(const Engine& engine);

  void Begin();
  void End();

  // Arrays have an element for each layer. `num_passes`: those between Begin()
  // and End(); with none, nothing is known of single neurons.
  Json ToJson(uint64_t num_passes) const;

 private:
  struct Sums {
    uint64_t num_wanted = 0;
    uint64_t num_hits = 0;
    uint64_t fresh_bytes = 0;
  };
  // Adds what the store of neurons has counted, `sign` times.
  void Add(int sign);

  const Engine& engine_;
  std::vector<Sums> layers_;
};

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_LAYER_READS_H_
