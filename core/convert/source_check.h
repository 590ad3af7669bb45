// The pass over a checkpoint's weights before any of them is written.
#ifndef FLASHELM_CORE_CONVERT_SOURCE_CHECK_H_
#define FLASHELM_CORE_CONVERT_SOURCE_CHECK_H_

#include <cstdint>
#include <map>
#include <string>

#include "core/base/status.h"
#include "core/convert/checkpoint.h"
#include "core/convert/convert.h"
#include "core/convert/safetensors.h"
#include "core/model_layout.h"
#include "storage/checksum.h"
#include "storage/json.h"
#include "storage/weight_format.h"

namespace flashelm {

// What each tensor that the model needs becomes.
using TensorEncodings = std::map<const SafetensorsTensor*, Encoding>;

// Norms are f32.
TensorEncodings EncodingsOfTensors(const CheckpointWeights& weights,
                                   const MatrixEncodings& matrices);

// A file of the source, as provenance has it.
Json DescribeFile(std::string name, uint64_t num_bytes, const Xxh3Stream& hash);

// Reads every byte of the weight files once: what they are goes to `files`, and
// how many values cannot be stored to `report`. Takes 4 MiB of memory. Errors
// as Convert() has them.
Status CheckSource(const Checkpoint& checkpoint,
                   const TensorEncodings& encodings,
                   const ConvertOptions& options, Json& files,
                   ConvertReport& report);

}  // namespace flashelm

#endif  // FLASHELM_CORE_CONVERT_SOURCE_CHECK_H_
