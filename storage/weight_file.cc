#include "storage/weight_file.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "storage/checksum.h"
#include "storage/compression.h"

namespace flashelm {
namespace {

// A manifest of 3B takes about 150 KB; anything far larger is not one.
constexpr uint64_t kMaxManifestBytes = uint64_t{8} << 20;
// The tokenizer of a vocabulary of a million pieces stays below this.
constexpr uint64_t kMaxTokenizerBytes = uint64_t{64} << 20;
// A zstd frame cannot expand more than this (RFC 8878 blocks).
constexpr uint64_t kMaxExpansion = 1u << 16;
constexpr uint64_t kMaxSegments = 1u << 16;
// What has to be in memory at once to be compared with its checksums. Writers
// stay below 1 MiB, except where a page run of wide records is longer.
constexpr uint64_t kMaxUnitBytes = uint64_t{64} << 20;
// In the checksum table, which is used as an array of 32-bit words.
constexpr uint64_t kChecksumAlignment = 4;

// Reads the fixed-width fields of a header in order.
class FieldReader {
 public:
  explicit FieldReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <class T>
  T Next() {
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof(value));
    at_ += sizeof(value);
    return value;
  }

 private:
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
};

Status CheckSection(const Section& section, std::string_view name,
                    uint64_t file_bytes, const std::string& path) {
  // Subtract, do not add: every field comes from the file and may be huge.
  if (section.offset_bytes < kFelmHeaderBytes ||
      section.offset_bytes > file_bytes ||
      section.stored_bytes > file_bytes - section.offset_bytes) {
    return DataLoss(path, ": section ", name, " at byte ", section.offset_bytes,
                    " of ", section.stored_bytes, " bytes, but the file has ",
                    file_bytes);
  }
  if (section.codec != static_cast<uint32_t>(SectionCodec::kNone) &&
      section.codec != static_cast<uint32_t>(SectionCodec::kZstd)) {
    return Unimplemented(path, ": section ", name, " has codec ", section.codec,
                         ", known are 0 (none) and 1 (zstd)");
  }
  const bool plain =
      section.codec == static_cast<uint32_t>(SectionCodec::kNone);
  if (plain ? section.raw_bytes != section.stored_bytes
            : section.raw_bytes / kMaxExpansion > section.stored_bytes) {
    return DataLoss(path, ": section ", name, " stores ", section.stored_bytes,
                    " bytes and claims ", section.raw_bytes, " after codec ",
                    section.codec);
  }
  return OkStatus();
}

// A name out of a closed list. kUnimplemented: not in it.
template <class Enum>
Result<Enum> GetName(const Json& object, const char* key,
                     std::optional<Enum> (*from_name)(std::string_view),
                     std::string_view name) {
  FLASHELM_ASSIGN_OR_RETURN(const std::string_view text,
                            GetString(object, key, name));
  const std::optional<Enum> value = from_name(text);
  if (!value) {
    return Unimplemented(name, ": ", key, " ", Describe(Json(text)),
                         " is not known to this version");
  }
  return *value;
}

Result<Part> ParsePart(const Json& json, const std::string& name,
                       uint64_t stride_bytes) {
  Part part;
  FLASHELM_ASSIGN_OR_RETURN(const std::string_view part_name,
                            GetString(json, "name", name));
  part.name = std::string(part_name);
  FLASHELM_ASSIGN_OR_RETURN(part.encoding,
                            GetName(json, "encoding", &EncodingFromName, name));
  FLASHELM_ASSIGN_OR_RETURN(part.offset_bytes, GetUint(json, "offset", name));
  FLASHELM_ASSIGN_OR_RETURN(part.num_elements, GetUint(json, "elements", name));
  // More bits than any element has: what follows fits where this does.
  if (!CheckedMul(part.num_elements, 64) || part.offset_bytes > stride_bytes ||
      part.num_bytes() > stride_bytes - part.offset_bytes) {
    return DataLoss(name, ": part ", Describe(Json(part.name)), " of ",
                    part.num_elements, " elements at byte ", part.offset_bytes,
                    " does not fit a record of ", stride_bytes, " bytes");
  }
  // Every record, not only the first, which begins at a page.
  const uint64_t alignment = EncodingAlignment(part.encoding);
  if (part.offset_bytes % alignment != 0 || stride_bytes % alignment != 0) {
    return DataLoss(name, ": part ", Describe(Json(part.name)), " at byte ",
                    part.offset_bytes, " of records of ", stride_bytes,
                    " bytes is not aligned to ", alignment, " bytes, as ",
                    EncodingName(part.encoding), " needs");
  }
  if (IsGrouped(part.encoding) && part.num_elements % kElementsPerGroup != 0) {
    return DataLoss(name, ": part ", Describe(Json(part.name)), " of ",
                    part.num_elements, " elements, expected whole groups of ",
                    kElementsPerGroup, " as ", EncodingName(part.encoding),
                    " has them");
  }
  return part;
}

Result<Segment> ParseSegment(const Json& json, const std::string& name,
                             const FelmHeader& header) {
  Segment segment;
  FLASHELM_ASSIGN_OR_RETURN(segment.kind,
                            GetName(json, "kind", &SegmentKindFromName, name));
  if (json.contains("layer")) {
    FLASHELM_ASSIGN_OR_RETURN(const uint32_t layer,
                              GetUint32(json, "layer", name));
    segment.layer = layer;
  }
  FLASHELM_ASSIGN_OR_RETURN(const std::string_view codec,
                            GetString(json, "codec", name));
  if (codec != "none") {
    return Unimplemented(name, ": codec ", Describe(Json(codec)),
                         " is not known to this version");
  }
  FLASHELM_ASSIGN_OR_RETURN(const std::string_view addressing,
                            GetString(json, "addressing", name));
  if (addressing != "stride") {
    return Unimplemented(name, ": addressing ", Describe(Json(addressing)),
                         " is not known to this version");
  }
  FLASHELM_ASSIGN_OR_RETURN(segment.offset_bytes,
                            GetUint(json, "offset", name));
  FLASHELM_ASSIGN_OR_RETURN(segment.num_records,
                            GetUint(json, "records", name));
  FLASHELM_ASSIGN_OR_RETURN(segment.stride_bytes,
                            GetUint(json, "stride", name));
  FLASHELM_ASSIGN_OR_RETURN(
      segment.checksum, GetName(json, "checksum", &ChecksumKindFromName, name));
  FLASHELM_ASSIGN_OR_RETURN(segment.records_per_checksum,
                            GetUint(json, "records_per_checksum", name));
  FLASHELM_ASSIGN_OR_RETURN(segment.first_checksum_byte,
                            GetUint(json, "first_checksum_byte", name));

  const uint64_t file_bytes = header.file_bytes;
  const auto bytes = CheckedMul(segment.num_records, segment.stride_bytes);
  if (segment.num_records == 0 || segment.stride_bytes == 0 || !bytes) {
    return DataLoss(name, ": ", segment.num_records, " records of ",
                    segment.stride_bytes, " bytes");
  }
  if (segment.offset_bytes % kIoAlignment != 0 ||
      segment.offset_bytes > file_bytes ||
      *bytes > file_bytes - segment.offset_bytes) {
    return DataLoss(name, ": at byte ", segment.offset_bytes, " of ", *bytes,
                    " bytes, but the file has ", file_bytes,
                    " and segments start at multiples of ", kIoAlignment);
  }
  if (segment.records_per_checksum == 0 ||
      segment.records_per_checksum > segment.num_records) {
    return DataLoss(name, ": ", segment.records_per_checksum,
                    " records per checksum of ", segment.num_records);
  }
  // In this order: the unit is a product that is known to fit only once the
  // block is known to be small.
  const auto too_large = [&](uint64_t records) {
    return std::min(records, segment.num_records) >
           kMaxUnitBytes / segment.stride_bytes;
  };
  if (too_large(segment.records_per_checksum) ||
      too_large(segment.unit_records())) {
    return DataLoss(name, ": ", segment.records_per_checksum, " records of ",
                    segment.stride_bytes,
                    " bytes share a checksum and pages; at most ",
                    kMaxUnitBytes, " bytes may");
  }
  const uint64_t table_bytes = header.sections[kChecksums].raw_bytes;
  const uint64_t num_checksums = segment.num_checksums();
  const uint64_t checksum_bytes = ChecksumBytes(segment.checksum);
  if (segment.first_checksum_byte % kChecksumAlignment != 0 ||
      segment.first_checksum_byte > table_bytes ||
      num_checksums >
          (table_bytes - segment.first_checksum_byte) / checksum_bytes) {
    return DataLoss(name, ": ", num_checksums, " checksums of ", checksum_bytes,
                    " bytes at byte ", segment.first_checksum_byte,
                    ", but the table has ", table_bytes,
                    " bytes and checksums start at multiples of ",
                    kChecksumAlignment);
  }
  FLASHELM_ASSIGN_OR_RETURN(const Json* parts, GetArray(json, "parts", name));
  for (const Json& part_json : *parts) {
    FLASHELM_ASSIGN_OR_RETURN(Part part,
                              ParsePart(part_json, name, segment.stride_bytes));
    segment.parts.push_back(std::move(part));
  }
  for (size_t i = 1; i < segment.parts.size(); ++i) {
    const Part& before = segment.parts[i - 1];
    if (segment.parts[i].offset_bytes <
        before.offset_bytes + before.num_bytes()) {
      return DataLoss(name, ": part ", Describe(Json(segment.parts[i].name)),
                      " overlaps part ", Describe(Json(before.name)));
    }
  }
  if (segment.parts.empty()) return DataLoss(name, ": no parts");
  return segment;
}

Result<Plane> ParsePlane(const Json& json, const std::string& name,
                         const Tensor& tensor,
                         const std::vector<Segment>& segments) {
  Plane plane;
  FLASHELM_ASSIGN_OR_RETURN(plane.segment, GetUint32(json, "segment", name));
  if (plane.segment >= segments.size()) {
    return DataLoss(name, ": segment ", plane.segment, " of ", segments.size());
  }
  const Segment& segment = segments[plane.segment];
  FLASHELM_ASSIGN_OR_RETURN(plane.part, GetUint32(json, "part", name));
  if (plane.part >= segment.parts.size()) {
    return DataLoss(name, ": part ", plane.part, " of ", segment.parts.size());
  }
  const Part& part = segment.parts[plane.part];
  FLASHELM_ASSIGN_OR_RETURN(plane.bits, GetUint32(json, "bits", name));
  FLASHELM_ASSIGN_OR_RETURN(const std::string_view combine,
                            GetString(json, "combine", name));
  plane.combine = std::string(combine);
  if (plane.bits != EncodingBits(part.encoding)) {
    return DataLoss(name, ": ", plane.bits, " bits, but encoding ",
                    EncodingName(part.encoding), " has ",
                    EncodingBits(part.encoding));
  }
  if (segment.num_records != tensor.rows || part.num_elements != tensor.cols) {
    return DataLoss(name, ": shape [", tensor.rows, ", ", tensor.cols,
                    "], but segment ", plane.segment, " holds [",
                    segment.num_records, ", ", part.num_elements, "]");
  }
  return plane;
}

Result<Tensor> ParseTensor(const Json& json, const std::string& where,
                           const std::vector<Segment>& segments) {
  Tensor tensor;
  FLASHELM_ASSIGN_OR_RETURN(const std::string_view tensor_name,
                            GetString(json, "name", where));
  tensor.name = std::string(tensor_name);
  const std::string name =
      StatusMessage::Join(where, " ", Describe(Json(tensor.name)));
  FLASHELM_ASSIGN_OR_RETURN(tensor.rows, GetUint(json, "rows", name));
  FLASHELM_ASSIGN_OR_RETURN(tensor.cols, GetUint(json, "cols", name));
  FLASHELM_ASSIGN_OR_RETURN(const Json* planes, GetArray(json, "planes", name));
  for (const Json& plane_json : *planes) {
    FLASHELM_ASSIGN_OR_RETURN(Plane plane,
                              ParsePlane(plane_json, name, tensor, segments));
    tensor.planes.push_back(std::move(plane));
  }
  if (tensor.planes.empty()) return DataLoss(name, ": no planes");
  const auto encoding_of = [&](const Plane& plane) {
    return segments[plane.segment].parts[plane.part].encoding;
  };
  for (size_t i = 0; i < tensor.planes.size(); ++i) {
    // They mean something behind codes with scales only.
    const bool is_refining = tensor.planes[i].combine == kCombineNibbles;
    const bool is_nibble = encoding_of(tensor.planes[i]) == Encoding::kNibble;
    const bool follows_q4 =
        i > 0 && encoding_of(tensor.planes[i - 1]) == Encoding::kQ4;
    if (is_refining != is_nibble || (is_nibble && !follows_q4)) {
      return DataLoss(name, ": plane ", i, " is ",
                      EncodingName(encoding_of(tensor.planes[i])),
                      ", combined by ",
                      Describe(Json(tensor.planes[i].combine)),
                      "; a plane of nibble, and no other, is combined by \"",
                      kCombineNibbles, "\" with the q4 plane before it");
    }
  }
  return tensor;
}

}  // namespace

Result<WeightFile> WeightFile::Open(const std::string& path, CacheMode mode) {
  FLASHELM_ASSIGN_OR_RETURN(auto file, OpenFile(path, mode));
  return Open(std::move(file));
}

Result<WeightFile> WeightFile::Open(std::unique_ptr<RandomAccessFile> file) {
  WeightFile weights;
  weights.file_ = std::move(file);
  FLASHELM_RETURN_IF_ERROR(weights.ReadHeader());
  FLASHELM_RETURN_IF_ERROR(weights.ReadManifest());
  return weights;
}

Status WeightFile::ReadHeader() {
  alignas(kIoAlignment) std::byte bytes[kFelmHeaderBytes];
  FLASHELM_RETURN_IF_ERROR(ReadExactly(*file_, 0, bytes, "the header"));
  FieldReader fields(bytes);
  const auto magic = fields.Next<std::array<char, sizeof(kFelmMagic)>>();
  if (std::memcmp(magic.data(), kFelmMagic, sizeof(kFelmMagic)) != 0) {
    return DataLoss(path(),
                    ": not a FlashELM model file: the first bytes are "
                    "not \"FLASHELM\" (make one with `flashelm "
                    "convert`)");
  }
  const auto version = fields.Next<uint32_t>();
  if (version != kFelmVersion) {
    return Unimplemented(path(), ": format version ", version,
                         ", this program reads version ", kFelmVersion);
  }
  const auto header_bytes = fields.Next<uint32_t>();
  constexpr size_t kChecksumAt = kFelmHeaderBytes - sizeof(uint64_t);
  uint64_t stored = 0;
  std::memcpy(&stored, bytes + kChecksumAt, sizeof(stored));
  const uint64_t computed = Xxh3(std::span(bytes).first(kChecksumAt));
  if (stored != computed) {
    return DataLoss(path(), ": the header is damaged: its checksum is ",
                    computed, ", at byte ", kChecksumAt, " stands ", stored);
  }
  if (header_bytes != kFelmHeaderBytes) {
    return DataLoss(path(), ": header of ", header_bytes, " bytes, expected ",
                    kFelmHeaderBytes);
  }
  header_.file_bytes = fields.Next<uint64_t>();
  if (header_.file_bytes != file_->size_bytes()) {
    return DataLoss(path(), ": the file has ", file_->size_bytes(),
                    " bytes, its header says ", header_.file_bytes,
                    " (was it copied whole?)");
  }
  for (uint32_t id = 0; id < kNumSections; ++id) {
    Section& section = header_.sections[id];
    section.offset_bytes = fields.Next<uint64_t>();
    section.stored_bytes = fields.Next<uint64_t>();
    section.raw_bytes = fields.Next<uint64_t>();
    section.codec = fields.Next<uint32_t>();
    fields.Next<uint32_t>();
    section.checksum = fields.Next<uint64_t>();
    FLASHELM_RETURN_IF_ERROR(
        CheckSection(section, kSectionNames[id], header_.file_bytes, path()));
  }
  // Stored bytes too: a frame may be far larger than what comes out of it.
  const auto bytes_needed = [&](SectionId id) {
    const Section& section = header_.sections[id];
    return std::max(section.raw_bytes, section.stored_bytes);
  };
  if (bytes_needed(kManifest) > kMaxManifestBytes ||
      bytes_needed(kTokenizer) > kMaxTokenizerBytes) {
    return DataLoss(path(), ": a manifest of ", bytes_needed(kManifest),
                    " bytes and a tokenizer of ", bytes_needed(kTokenizer),
                    ", expected at most ", kMaxManifestBytes, " and ",
                    kMaxTokenizerBytes);
  }
  if (header_.sections[kChecksums].codec !=
      static_cast<uint32_t>(SectionCodec::kNone)) {
    return DataLoss(path(), ": section checksums is compressed");
  }
  return OkStatus();
}

Result<std::string> WeightFile::ReadSection(SectionId id) const {
  const Section& section = header_.sections[id];
  const std::string name =
      StatusMessage::Join(path(), ": section ", kSectionNames[id]);
  // Whole pages around the section, as a direct file asks for.
  const uint64_t begin = RoundDown(section.offset_bytes, kIoAlignment);
  const uint64_t end =
      RoundUp(section.offset_bytes + section.stored_bytes, kIoAlignment);
  std::vector<std::byte> pages(end - begin + kIoAlignment);
  std::byte* aligned =
      pages.data() +
      (kIoAlignment - reinterpret_cast<uintptr_t>(pages.data()) % kIoAlignment);
  const uint64_t wanted =
      std::min(end, header_.file_bytes) - begin;  // The file may end first.
  FLASHELM_ASSIGN_OR_RETURN(
      const size_t got, file_->ReadAt(begin, std::span(aligned, end - begin)));
  if (got < wanted) {
    return DataLoss(name, " at byte ", section.offset_bytes, " of ",
                    section.stored_bytes, " bytes, but the file ends before");
  }
  const std::span<const std::byte> stored(
      aligned + (section.offset_bytes - begin), section.stored_bytes);
  if (Xxh3(stored) != section.checksum) {
    return DataLoss(name, " at byte ", section.offset_bytes,
                    " is damaged: its checksum is ", Xxh3(stored),
                    ", the header says ", section.checksum);
  }
  if (section.codec == static_cast<uint32_t>(SectionCodec::kNone)) {
    return std::string(reinterpret_cast<const char*>(stored.data()),
                       stored.size());
  }
  return ZstdDecompress(stored, section.raw_bytes, name);
}

Status WeightFile::ReadManifest() {
  FLASHELM_ASSIGN_OR_RETURN(const std::string text, ReadSection(kManifest));
  const std::string name = StatusMessage::Join(path(), ": manifest");
  FLASHELM_ASSIGN_OR_RETURN(Json parsed, ParseJson(text, name));
  const OwnedJson owned(std::move(parsed));
  const Json& manifest = owned.value;
  FLASHELM_ASSIGN_OR_RETURN(const Json* config,
                            GetObject(manifest, "config", name));
  FLASHELM_ASSIGN_OR_RETURN(const Json* provenance,
                            GetObject(manifest, "provenance", name));
  FLASHELM_ASSIGN_OR_RETURN(const Json* segments,
                            GetArray(manifest, "segments", name));
  FLASHELM_ASSIGN_OR_RETURN(const Json* tensors,
                            GetArray(manifest, "tensors", name));
  if (segments->size() > kMaxSegments || tensors->size() > kMaxSegments) {
    return DataLoss(name, ": ", segments->size(), " segments and ",
                    tensors->size(), " tensors, expected at most ",
                    kMaxSegments);
  }
  config_ = OwnedJson(*config);
  provenance_ = OwnedJson(*provenance);

  uint64_t end = kFelmHeaderBytes;
  for (uint32_t id = 0; id < kNumSections; ++id) {
    const Section& section = header_.sections[id];
    if (section.offset_bytes < end) {
      return DataLoss(path(), ": section ", kSectionNames[id],
                      " starts at byte ", section.offset_bytes,
                      ", inside what ends at byte ", end);
    }
    end = section.offset_bytes + section.stored_bytes;
  }
  uint64_t checksums_end = 0;
  segments_.reserve(segments->size());
  for (const Json& json : *segments) {
    const std::string where =
        StatusMessage::Join(name, ": segment ", segments_.size());
    FLASHELM_ASSIGN_OR_RETURN(Segment segment,
                              ParseSegment(json, where, header_));
    if (segment.offset_bytes < end) {
      return DataLoss(where, ": starts at byte ", segment.offset_bytes,
                      ", inside what ends at byte ", end);
    }
    end = segment.offset_bytes + segment.num_bytes();
    // A checksum that two segments shared would count as compared for both.
    if (segment.first_checksum_byte < checksums_end) {
      return DataLoss(where, ": checksums at byte ",
                      segment.first_checksum_byte,
                      ", inside those that end at byte ", checksums_end);
    }
    checksums_end = segment.first_checksum_byte +
                    segment.num_checksums() * ChecksumBytes(segment.checksum);
    weight_bytes_ += segment.num_bytes();
    segments_.push_back(std::move(segment));
  }
  if (RoundUp(end, kIoAlignment) != header_.file_bytes) {
    return DataLoss(name, ": the last segment ends at byte ", end,
                    ", but the file at ", header_.file_bytes);
  }
  tensors_.reserve(tensors->size());
  for (const Json& json : *tensors) {
    const std::string where =
        StatusMessage::Join(name, ": tensor ", tensors_.size());
    FLASHELM_ASSIGN_OR_RETURN(Tensor tensor,
                              ParseTensor(json, where, segments_));
    if (FindTensor(tensor.name) != nullptr) {
      return DataLoss(where, ": ", Describe(Json(tensor.name)),
                      " appears twice");
    }
    tensors_.push_back(std::move(tensor));
  }
  return OkStatus();
}

const Tensor* WeightFile::FindTensor(std::string_view name) const {
  const auto it =
      std::find_if(tensors_.begin(), tensors_.end(),
                   [&](const Tensor& tensor) { return tensor.name == name; });
  return it == tensors_.end() ? nullptr : &*it;
}

Result<std::string> WeightFile::ReadTokenizer() const {
  return ReadSection(kTokenizer);
}

Status WeightFile::ReadChecksums(std::span<std::byte> table) const {
  const Section& section = header_.sections[kChecksums];
  const std::string name = StatusMessage::Join(path(), ": section checksums");
  if (section.offset_bytes % kIoAlignment != 0) {
    return DataLoss(name, " at byte ", section.offset_bytes,
                    ", expected a multiple of ", kIoAlignment);
  }
  if (table.size() < RoundUp(section.raw_bytes, kIoAlignment)) {
    return Internal(name, ": a table of ", table.size(), " bytes for ",
                    section.raw_bytes);
  }
  FLASHELM_RETURN_IF_ERROR(ReadExactly(
      *file_, section.offset_bytes,
      table.first(RoundUp(section.raw_bytes, kIoAlignment)), "checksums"));
  const uint64_t computed = Xxh3(table.first(section.raw_bytes));
  if (computed != section.checksum) {
    return DataLoss(name, " at byte ", section.offset_bytes,
                    " is damaged: its checksum is ", computed,
                    ", the header says ", section.checksum);
  }
  return OkStatus();
}

}  // namespace flashelm
