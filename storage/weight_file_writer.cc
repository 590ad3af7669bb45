#include "storage/weight_file_writer.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "storage/compression.h"

namespace flashelm {
namespace {

constexpr uint64_t kChecksumBlockBytes = uint64_t{64} << 10;

Json SegmentToJson(const Segment& segment) {
  Json parts = Json::array();
  for (const Part& part : segment.parts) {
    parts.push_back({{"name", part.name},
                     {"encoding", EncodingName(part.encoding)},
                     {"offset", part.offset_bytes},
                     {"elements", part.num_elements}});
  }
  Json json = {{"kind", SegmentKindName(segment.kind)},
               {"codec", "none"},
               {"addressing", "stride"},
               {"offset", segment.offset_bytes},
               {"records", segment.num_records},
               {"stride", segment.stride_bytes},
               {"checksum", ChecksumKindName(segment.checksum)},
               {"records_per_checksum", segment.records_per_checksum},
               {"first_checksum_byte", segment.first_checksum_byte},
               {"parts", std::move(parts)}};
  if (segment.layer) json["layer"] = *segment.layer;
  return json;
}

Json TensorToJson(const Tensor& tensor) {
  Json planes = Json::array();
  for (const Plane& plane : tensor.planes) {
    planes.push_back({{"segment", plane.segment},
                      {"part", plane.part},
                      {"bits", plane.bits},
                      {"combine", plane.combine}});
  }
  return {{"name", tensor.name},
          {"rows", tensor.rows},
          {"cols", tensor.cols},
          {"planes", std::move(planes)}};
}

Json ManifestToJson(const WeightFileContents& contents) {
  Json segments = Json::array();
  for (const Segment& segment : contents.segments) {
    segments.push_back(SegmentToJson(segment));
  }
  Json tensors = Json::array();
  for (const Tensor& tensor : contents.tensors) {
    tensors.push_back(TensorToJson(tensor));
  }
  return {{"config", contents.config},
          {"provenance", contents.provenance},
          {"segments", std::move(segments)},
          {"tensors", std::move(tensors)}};
}

// Places the segments one after the other from `begin`; returns the end.
uint64_t PlaceSegments(uint64_t begin, std::vector<Segment>& segments) {
  uint64_t at = RoundUp(begin, kIoAlignment);
  for (Segment& segment : segments) {
    segment.offset_bytes = at;
    at = RoundUp(at + segment.num_bytes(), kIoAlignment);
  }
  return at;
}

std::span<const std::byte> AsBytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

// Where everything of a file goes.
struct FilePlan {
  FelmHeader header;  // Without checksums of manifest and table.
  uint64_t manifest_room_bytes = 0;
  std::string tokenizer;  // As stored.
  uint64_t front_bytes() const {
    const Section& table = header.sections[kChecksums];
    return RoundUp(table.offset_bytes + table.stored_bytes, kIoAlignment);
  }
};

// Also places the segments, and takes the tokenizer out of `contents`: it has
// up to 64 MiB, and is not needed again.
Result<FilePlan> PlanFile(WeightFileContents& contents) {
  uint64_t table_bytes = 0;
  for (Segment& segment : contents.segments) {
    ChooseChecksums(segment);
    segment.first_checksum_byte = table_bytes;
    table_bytes += segment.num_checksums() * ChecksumBytes(segment.checksum);
  }
  FilePlan plan;
  FLASHELM_ASSIGN_OR_RETURN(plan.tokenizer, ZstdCompress(contents.tokenizer));
  const uint64_t raw_tokenizer_bytes = contents.tokenizer.size();
  std::string().swap(contents.tokenizer);
  // The manifest holds offsets that depend on its own compressed size, and
  // provenance that is not known yet. Offsets are laid out as if it took its
  // worst case, which ends that circle; the pages between are zero.
  PlaceSegments(UINT64_MAX / 4, contents.segments);
  plan.manifest_room_bytes = RoundUp(
      ManifestToJson(contents).dump().size() + kIoAlignment, kIoAlignment);
  const uint64_t tokenizer_offset = kFelmHeaderBytes + plan.manifest_room_bytes;
  const uint64_t table_offset =
      RoundUp(tokenizer_offset + plan.tokenizer.size(), kIoAlignment);
  plan.header.file_bytes =
      PlaceSegments(table_offset + table_bytes, contents.segments);
  plan.header.sections[kTokenizer] = {
      tokenizer_offset, plan.tokenizer.size(), raw_tokenizer_bytes,
      static_cast<uint32_t>(SectionCodec::kZstd),
      Xxh3(AsBytes(plan.tokenizer))};
  plan.header.sections[kChecksums] = {table_offset, table_bytes, table_bytes, 0,
                                      0};
  return plan;
}

// The manifest as stored, which goes behind the header; notes it there.
Result<std::string> StoreManifest(const WeightFileContents& contents,
                                  uint64_t room_bytes, FelmHeader& header) {
  const std::string raw = ManifestToJson(contents).dump();
  FLASHELM_ASSIGN_OR_RETURN(std::string stored, ZstdCompress(raw));
  if (stored.size() > room_bytes) {
    return Internal("a manifest of ", stored.size(), " bytes in a room of ",
                    room_bytes);
  }
  header.sections[kManifest] = {kFelmHeaderBytes, stored.size(), raw.size(),
                                static_cast<uint32_t>(SectionCodec::kZstd),
                                Xxh3(AsBytes(stored))};
  return stored;
}

}  // namespace

Result<WeightFileFront> MakeWeightFileFront(WeightFileContents contents) {
  FLASHELM_ASSIGN_OR_RETURN(FilePlan plan, PlanFile(contents));
  FLASHELM_ASSIGN_OR_RETURN(
      const std::string manifest,
      StoreManifest(contents, plan.manifest_room_bytes, plan.header));
  const Section& tokenizer = plan.header.sections[kTokenizer];
  WeightFileFront front;
  front.file_bytes = plan.header.file_bytes;
  // Whole pages, as sections are read; the table begins behind them.
  front.bytes.resize(
      RoundUp(tokenizer.offset_bytes + tokenizer.stored_bytes, kIoAlignment));
  const auto put = [&front](uint64_t offset, std::span<const std::byte> bytes) {
    std::copy(bytes.begin(), bytes.end(),
              front.bytes.begin() + static_cast<ptrdiff_t>(offset));
  };
  put(kFelmHeaderBytes, AsBytes(manifest));
  put(tokenizer.offset_bytes, AsBytes(plan.tokenizer));
  put(0, SerializeHeader(plan.header));
  return front;
}

void ChooseChecksums(Segment& segment) {
  if (HasNeurons(segment.kind)) {
    segment.checksum = ChecksumKind::kXxh3Low32;
    segment.records_per_checksum = 1;
    return;
  }
  segment.checksum = ChecksumKind::kXxh3;
  const uint64_t run = segment.records_per_page_run();
  const uint64_t runs =
      std::max<uint64_t>(1, kChecksumBlockBytes / (run * segment.stride_bytes));
  segment.records_per_checksum = std::min(segment.num_records, run * runs);
}

WeightFileWriter::WeightFileWriter(OutputFile file, WeightFileContents contents)
    : file_(std::move(file)), contents_(std::move(contents)) {}

Result<WeightFileWriter> WeightFileWriter::Create(const std::string& path,
                                                  WeightFileContents contents) {
  FLASHELM_ASSIGN_OR_RETURN(FilePlan plan, PlanFile(contents));
  FLASHELM_ASSIGN_OR_RETURN(OutputFile file,
                            OutputFile::Create(path, plan.header.file_bytes));
  WeightFileWriter writer(std::move(file), std::move(contents));
  writer.manifest_room_bytes_ = plan.manifest_room_bytes;
  writer.header_ = plan.header;
  writer.table_.reserve(plan.header.sections[kChecksums].raw_bytes);

  // Everything in front of the segments; header, manifest and checksums come
  // last.
  std::vector<std::byte> front(plan.front_bytes());
  std::memcpy(front.data() + plan.header.sections[kTokenizer].offset_bytes,
              plan.tokenizer.data(), plan.tokenizer.size());
  FLASHELM_RETURN_IF_ERROR(writer.file_.Append(front));
  return writer;
}

Status WeightFileWriter::Append(std::span<const std::byte> records) {
  if (current_ == contents_.segments.size()) {
    return Internal("records after the last segment");
  }
  const Segment& segment = contents_.segments[current_];
  const uint64_t stride = segment.stride_bytes;
  if (records.size() % stride != 0 ||
      records.size() / stride > segment.num_records - records_done_) {
    return Internal(segment.Describe(), ": ", records.size(),
                    " bytes appended, where ", records_left(), " records of ",
                    stride, " bytes are missing");
  }
  for (size_t at = 0; at < records.size();) {
    const uint64_t in_block =
        std::min<uint64_t>(segment.records_per_checksum - records_hashed_,
                           (records.size() - at) / stride);
    hash_.Update(records.subspan(at, in_block * stride));
    at += in_block * stride;
    records_hashed_ += in_block;
    if (records_hashed_ == segment.records_per_checksum) AddChecksum();
  }
  FLASHELM_RETURN_IF_ERROR(file_.Append(records));
  records_done_ += records.size() / stride;
  if (records_done_ == segment.num_records) {
    if (records_hashed_ > 0) AddChecksum();
    FLASHELM_RETURN_IF_ERROR(Pad());
    ++current_;
    records_done_ = 0;
  }
  return OkStatus();
}

uint64_t WeightFileWriter::records_left() const {
  return current_ == contents_.segments.size()
             ? 0
             : contents_.segments[current_].num_records - records_done_;
}

void WeightFileWriter::AddChecksum() {
  const uint64_t digest = hash_.Digest64();
  const auto* bytes = reinterpret_cast<const std::byte*>(&digest);
  table_.insert(table_.end(), bytes,
                bytes + ChecksumBytes(contents_.segments[current_].checksum));
  hash_.Reset();
  records_hashed_ = 0;
}

Status WeightFileWriter::Pad() {
  const uint64_t at = file_.size_bytes();
  const std::array<std::byte, kIoAlignment> zeros{};
  return file_.Append(std::span(zeros).first(RoundUp(at, kIoAlignment) - at));
}

Result<uint64_t> WeightFileWriter::Finish() {
  if (current_ != contents_.segments.size()) {
    return Internal(contents_.segments[current_].Describe(), ": ",
                    records_left(), " records are missing");
  }
  FLASHELM_ASSIGN_OR_RETURN(
      const std::string manifest,
      StoreManifest(contents_, manifest_room_bytes_, header_));
  FLASHELM_RETURN_IF_ERROR(file_.WriteAt(kFelmHeaderBytes, AsBytes(manifest)));
  Section& checksums = header_.sections[kChecksums];
  checksums.checksum = Xxh3(table_);
  FLASHELM_RETURN_IF_ERROR(file_.WriteAt(checksums.offset_bytes, table_));
  FLASHELM_RETURN_IF_ERROR(file_.WriteAt(0, SerializeHeader(header_)));
  if (file_.size_bytes() != header_.file_bytes) {
    return Internal("wrote ", file_.size_bytes(), " bytes, planned ",
                    header_.file_bytes);
  }
  FLASHELM_RETURN_IF_ERROR(file_.Commit());
  return header_.file_bytes;
}

}  // namespace flashelm
