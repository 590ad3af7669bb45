// The weights of a checkpoint to the records of a model file.
#ifndef FLASHELM_CORE_CONVERT_WRITE_SEGMENTS_H_
#define FLASHELM_CORE_CONVERT_WRITE_SEGMENTS_H_

#include <vector>

#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "core/convert/checkpoint.h"
#include "core/convert/convert.h"
#include "core/convert/source_check.h"
#include "core/model_config.h"
#include "storage/weight_file_writer.h"
#include "storage/weight_format.h"

namespace flashelm {

// Writes the records of all segments, in their order, from sources that
// CheckSource() has been through; what quantising cost goes to `report`. Takes
// 56 MiB of memory, and 32 more when it quantises. Errors as Convert() has
// them.
Status WriteSegments(const std::vector<Segment>& segments,
                     const ModelConfig& config,
                     const CheckpointWeights& weights,
                     const TensorEncodings& encodings,
                     const ConvertOptions& options, ThreadPool& pool,
                     WeightFileWriter& writer, ConvertReport& report);

}  // namespace flashelm

#endif  // FLASHELM_CORE_CONVERT_WRITE_SEGMENTS_H_
