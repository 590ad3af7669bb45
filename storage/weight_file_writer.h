// Writes a model file from front to back.
#ifndef FLASHELM_STORAGE_WEIGHT_FILE_WRITER_H_
#define FLASHELM_STORAGE_WEIGHT_FILE_WRITER_H_

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/base/status.h"
#include "storage/checksum.h"
#include "storage/json.h"
#include "storage/output_file.h"
#include "storage/weight_format.h"

namespace flashelm {

// What a file will hold. Offsets, and the checksum fields of the segments, are
// the writer's to choose.
struct WeightFileContents {
  Json config = Json::object();
  Json provenance = Json::object();
  std::string tokenizer;
  std::vector<Segment> segments;  // In file order.
  std::vector<Tensor> tensors;
};

// The checksum layout for a segment: one short checksum per neuron for FFN
// segments, one long one per block of about 64 KiB, whole pages, for others.
void ChooseChecksums(Segment& segment);

// Of such a file, all that does not depend on the records: header, manifest and
// tokenizer as they would be. Checksums are not there, though the file has room
// for them, and the header has none of theirs.
struct WeightFileFront {
  std::vector<std::byte> bytes;
  uint64_t file_bytes = 0;  // Of the whole file.
};
// What WeightFileWriter would write of these contents; makes no file.
// kInternal, kResourceExhausted: as Finish().
Result<WeightFileFront> MakeWeightFileFront(WeightFileContents contents);

// Takes the records of all segments in order. The file appears under its name
// at Finish(); until then nothing is there. Move-only, one thread. Holds the
// checksum table, 4 to 8 bytes per checksum, and what goes into the manifest.
class WeightFileWriter {
 public:
  // kInvalidArgument, kNotFound, kResourceExhausted: as OutputFile::Create().
  static Result<WeightFileWriter> Create(const std::string& path,
                                         WeightFileContents contents);

  // The next whole records of the segment being written; a call never crosses
  // into the next segment. kInternal: it would.
  Status Append(std::span<const std::byte> records);

  // Records that the current segment still lacks; 0 when all are complete.
  uint64_t records_left() const;

  // Instead of what Create() got: a member whose value is known only when the
  // weights have been written. The manifest keeps its place, which has room for
  // at least a page more than its text took, and much more once compressed.
  void set_provenance(Json provenance) {
    contents_.provenance = std::move(provenance);
  }

  // Completes manifest, header and checksums and gives the file its name.
  // kInternal: records are missing, or the provenance outgrew its place.
  // Returns the size of the file.
  Result<uint64_t> Finish();

  uint64_t file_bytes() const { return header_.file_bytes; }
  // As they will be in the file, and the checksums of the records so far.
  const std::vector<Segment>& segments() const { return contents_.segments; }
  std::span<const std::byte> checksums() const { return table_; }

 private:
  WeightFileWriter(OutputFile file, WeightFileContents contents);
  Status Pad();
  void AddChecksum();

  OutputFile file_;
  FelmHeader header_;
  WeightFileContents contents_;  // Without the tokenizer.
  uint64_t manifest_room_bytes_ = 0;
  std::vector<std::byte> table_;
  size_t current_ = 0;           // Segment being written.
  uint64_t records_done_ = 0;    // Of that segment.
  uint64_t records_hashed_ = 0;  // Since the last checksum.
  Xxh3Stream hash_;
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_WEIGHT_FILE_WRITER_H_
