// A model file again, as choosing neurons needs it.
#ifndef FLASHELM_CORE_CONVERT_CALIBRATED_FILE_H_
#define FLASHELM_CORE_CONVERT_CALIBRATED_FILE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/base/cancel.h"
#include "core/base/status.h"
#include "core/model_file.h"
#include "storage/json.h"

namespace flashelm {

struct CalibratedFileOptions {
  // Gate rows go to segments of their own. Where `in` has no bundles, up rows
  // and down columns keep theirs.
  bool split_gate = true;
  // For each layer: order[new place] = place in the input. An empty order, or
  // no orders at all: as it is.
  std::vector<std::vector<uint32_t>> neuron_order;
  // For each layer, [ffn_dim] as the input has the neurons: of the tokens seen,
  // those for which each was active, 0 to 1. None at all: zeros.
  std::vector<std::vector<float>> frequency;
  // For each layer, a predictor as predictor/predictor_file.h has it, with the
  // neurons in the new order. None at all: no predictors.
  std::vector<std::vector<std::byte>> predictors;
  // What calibration found, an object; goes into the provenance as
  // "calibration", with "weights_hash" added to it. At most 4 MiB as text.
  Json calibration = Json::object();
  // Of records that wait to be written in order; at least one fits. With fewer
  // bytes the input is read more often.
  uint64_t block_bytes = uint64_t{128} << 20;
  // Polled between reads; null when nobody will ask to stop. Outlives the call.
  const CancelToken* cancel = nullptr;
  // Called from the calling thread, after each block, with bytes of records
  // written. May be empty.
  std::function<void(uint64_t done, uint64_t total)> progress;
};

// Writes the weights of `in` to `out_path`, the neurons of each layer in the
// order given, with their importance: the product of the L2 norms of up row and
// down column, as they are decoded, in f32; not finite where the weights are
// not. Predictors that `in` has are not taken over. Codes and scales are
// copied. Other weights, configuration, tokenizer and the rest of the
// provenance stay as they are. The order is free to differ from layer to layer,
// and counts from the neurons' places in `in`, which may be calibrated itself.
// Every record that is taken over was compared with its checksum. Returns the
// size of the file, which appears under its name when it is complete; after an
// error there is none, and one that stood there stays as it was. Equal input
// gives equal bytes.
//
// Cost. Reads run from front to back, whatever the order: a layer's FFN is read
// once for every block, or part of it, of each of its segments in the output.
// With the default that is twice for any layer of a 3B model that is split as
// q4 or q8, three times for the widest of bf16 and five times of f32; where the
// order stays as it is, parts that a block lacks are skipped. Where the gates
// of `in` are split off already, each segment is read for its own blocks, and
// the bundles once more. Takes block_bytes and 8 MiB of memory (64 where a
// checksum of `in` covers so much), and the size of the tokenizer and the
// checksums a few times over.
//
// kInvalidArgument: an order that is not one of the layer's neurons; orders,
// frequencies or predictors that are not there for all layers or of other
// shapes; gates that are split off already and are to go back; a
// calibration that is no object or too large; the output cannot be written or
// is the input. kUnimplemented: an input that neither Convert() nor this made.
// kNotFound: the output's directory. kDataLoss: the input is damaged.
// kUnavailable: a read failed. kResourceExhausted: the disk is full.
// kCancelled: as asked.
Result<uint64_t> WriteCalibratedFile(const ModelFile& in,
                                     const std::string& out_path,
                                     const CalibratedFileOptions& options);

}  // namespace flashelm

#endif  // FLASHELM_CORE_CONVERT_CALIBRATED_FILE_H_
