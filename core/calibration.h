// What a model file says of its calibration, and whether that is about the
// weights that it holds.
#ifndef FLASHELM_CORE_CALIBRATION_H_
#define FLASHELM_CORE_CALIBRATION_H_

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/model_file.h"
#include "storage/weight_format.h"

namespace flashelm {

// The calibration in a file's provenance, and in there the hash.
inline constexpr char kCalibrationKey[] = "calibration";
inline constexpr char kWeightsHashKey[] = "weights_hash";

// XXH3, as 16 hex digits, of the checksums in `table` of all segments but the
// predictor ones: a fingerprint of the weights that a calibration cannot
// change. `table` is a file's checksum section.
std::string WeightsHash(const std::vector<Segment>& segments,
                        std::span<const std::byte> table);

// Whether the file's calibration was made for the weights that it holds: its
// "weights_hash" is their WeightsHash(). Reads the checksum section, no
// weights. Messages say how to calibrate. kNotFound: there is none. kDataLoss:
// it was made for other weights, or lacks the hash; the checksum section is
// damaged. kUnavailable: a read failed. kResourceExhausted: no memory for the
// checksums.
Status CheckCalibration(const ModelFile& model);

}  // namespace flashelm

#endif  // FLASHELM_CORE_CALIBRATION_H_
