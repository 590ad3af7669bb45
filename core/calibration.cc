#include "core/calibration.h"

#include <string_view>

#include "core/base/format.h"
#include "core/base/memory.h"
#include "core/record_reader.h"
#include "storage/checksum.h"
#include "storage/json.h"
#include "storage/weight_file.h"

namespace flashelm {

std::string WeightsHash(const std::vector<Segment>& segments,
                        std::span<const std::byte> table) {
  Xxh3Stream hash;
  for (const Segment& segment : segments) {
    if (segment.kind == SegmentKind::kPredictor) continue;
    hash.Update(table.subspan(
        segment.first_checksum_byte,
        segment.num_checksums() * ChecksumBytes(segment.checksum)));
  }
  return fmt::format("{:016x}", hash.Digest64());
}

Status CheckCalibration(const ModelFile& model) {
  const WeightFile& file = model.weight_file();
  const auto calibration = file.provenance().find(kCalibrationKey);
  if (calibration == file.provenance().end()) {
    return NotFound(model.path(),
                    ": is not calibrated; run: flashelm calibrate -m ",
                    model.path(), " -f TEXT -o OUT.felm");
  }
  // Which takes no file that was calibrated.
  constexpr std::string_view advice =
      "; run: flashelm calibrate -m MODEL.felm -f TEXT -o OUT.felm, with the "
      "file that convert wrote";
  const std::string name =
      StatusMessage::Join(model.path(), ": ", kCalibrationKey);
  if (!calibration->is_object()) {
    return DataLoss(name, " is ", Describe(*calibration),
                    ", expected an object", advice);
  }
  auto stored = GetString(*calibration, kWeightsHashKey, name);
  if (!stored) return DataLoss(stored.error().message(), advice);
  MemoryBudget unlimited(UINT64_MAX);
  FLASHELM_ASSIGN_OR_RETURN(const AlignedBuffer table,
                            LoadChecksums(file, unlimited));
  const std::string computed = WeightsHash(file.segments(), table.bytes());
  if (*stored != computed) {
    return DataLoss(name, " was made for the weights ", Describe(Json(*stored)),
                    ", the file holds ", computed, advice);
  }
  return OkStatus();
}

}  // namespace flashelm
