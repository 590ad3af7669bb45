// What a model file (.felm) is made of, shared by its reader and its writer.
// docs/FILE_FORMAT.md is the full description.
#ifndef FLASHELM_STORAGE_WEIGHT_FORMAT_H_
#define FLASHELM_STORAGE_WEIGHT_FORMAT_H_

#include <array>
#include <cstdint>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/checked_math.h"
#include "core/base/types.h"

namespace flashelm {

inline constexpr char kFelmMagic[8] = {'F', 'L', 'A', 'S', 'H', 'E', 'L', 'M'};
inline constexpr uint32_t kFelmVersion = 1;
inline constexpr uint64_t kFelmHeaderBytes = 4096;

// How the numbers of one part are stored: as they are, or, from q8 on, as
// codes. Of q8 and q4 the codes come first, then a scale of 16 bits for every
// group. Nibbles have none: they are what the codes of a q4 plane lack of q8.
enum class Encoding : uint8_t { kF32, kBf16, kQ8, kQ4, kNibble, kU8 };
std::string_view EncodingName(Encoding encoding);
std::optional<Encoding> EncodingFromName(std::string_view name);
// Of an element, without its share of a scale.
uint32_t EncodingBits(Encoding encoding);

// A part of codes has whole groups of this many elements.
inline constexpr uint64_t kElementsPerGroup = 32;
constexpr bool IsGrouped(Encoding encoding) {
  return encoding == Encoding::kQ8 || encoding == Encoding::kQ4 ||
         encoding == Encoding::kNibble;
}
constexpr bool HasScales(Encoding encoding) {
  return encoding == Encoding::kQ8 || encoding == Encoding::kQ4;
}
// What the place of a part in its record, and the stride, are multiples of.
uint64_t EncodingAlignment(Encoding encoding);
// Bytes of a part's elements, and of the scales behind them. The caller knows
// that 32 bits for each would fit.
uint64_t ElementsBytes(Encoding encoding, uint64_t num_elements);
uint64_t ScalesBytes(Encoding encoding, uint64_t num_elements);

// What a segment holds; the order is the order in which a token uses them.
enum class SegmentKind : uint8_t {
  kEmbedding,     // Rows of the tied embedding, read whole as output head.
  kNorms,         // One record: all norm vectors of a layer.
  kQkv,           // Rows of the fused query, key and value projection.
  kAttentionOut,  // Rows of the attention's output projection.
  kPredictor,     // One record: what chooses neurons of a layer; resident.
  kFfnGate,       // Gate rows of neurons, where bundles lack them.
  kFfnUp,         // Up rows of neurons, where there are no bundles.
  kFfnDown,       // And their down columns.
  kFfn,           // Bundles: gate row, up row and down column of a neuron.
  kFinalNorm,     // One record: the last norm vector.
};
std::string_view SegmentKindName(SegmentKind kind);
std::optional<SegmentKind> SegmentKindFromName(std::string_view name);
// Whether record i belongs to neuron i of a layer.
constexpr bool HasNeurons(SegmentKind kind) {
  return kind == SegmentKind::kFfnGate || kind == SegmentKind::kFfnUp ||
         kind == SegmentKind::kFfnDown || kind == SegmentKind::kFfn;
}

// XXH3 with seed 0; the short form is the low half of the long one.
enum class ChecksumKind : uint8_t { kXxh3Low32, kXxh3 };
std::string_view ChecksumKindName(ChecksumKind kind);
std::optional<ChecksumKind> ChecksumKindFromName(std::string_view name);
constexpr uint64_t ChecksumBytes(ChecksumKind kind) {
  return kind == ChecksumKind::kXxh3Low32 ? 4 : 8;
}

// One vector inside every record of a segment.
struct Part {
  std::string name;
  Encoding encoding = Encoding::kF32;
  uint64_t offset_bytes = 0;  // Inside the record.
  uint64_t num_elements = 0;

  uint64_t num_bytes() const {
    return ElementsBytes(encoding, num_elements) +
           ScalesBytes(encoding, num_elements);
  }
  // In the record; for encodings that have scales.
  uint64_t scales_offset_bytes() const {
    return offset_bytes + ElementsBytes(encoding, num_elements);
  }
};

// An array of records of one size, one plane of the weights. The unit of
// addressing, of checksums and of pinning is a range of its records.
struct Segment {
  SegmentKind kind = SegmentKind::kEmbedding;
  std::optional<uint32_t> layer;
  uint64_t offset_bytes = 0;  // In the file, a multiple of kIoAlignment.
  uint64_t num_records = 0;
  uint64_t stride_bytes = 0;
  ChecksumKind checksum = ChecksumKind::kXxh3;
  uint64_t records_per_checksum = 1;
  uint64_t first_checksum_byte = 0;  // In the checksum section.
  std::vector<Part> parts;

  uint64_t num_bytes() const { return num_records * stride_bytes; }
  uint64_t num_checksums() const {
    return CeilDiv(num_records, records_per_checksum);
  }
  // The fewest records after which a page of the file begins again: runs that
  // start and end at multiples of it share no page with their neighbours.
  uint64_t records_per_page_run() const {
    return kIoAlignment / std::gcd(stride_bytes, kIoAlignment);
  }
  // The fewest records that can be read and verified on their own.
  uint64_t unit_records() const {
    return std::lcm(records_per_page_run(), records_per_checksum);
  }
  // "layer 3 ffn", for messages.
  std::string Describe() const;
};

// One plane of a tensor: a part of every record of a segment.
struct Plane {
  uint32_t segment = 0;
  uint32_t part = 0;
  uint32_t bits = 0;
  // How planes of one tensor combine; the first plane, or the only one, "none".
  std::string combine = "none";
};
// Of a plane of nibbles, which follows the q4 plane that it makes q8.
inline constexpr std::string_view kCombineNibbles = "low-nibble";

// Rows and columns of a matrix, or one row for a vector; row r is record r.
struct Tensor {
  std::string name;
  uint64_t rows = 0;
  uint64_t cols = 0;
  std::vector<Plane> planes;
};

// A part of the file outside the segments.
struct Section {
  uint64_t offset_bytes = 0;
  uint64_t stored_bytes = 0;
  uint64_t raw_bytes = 0;  // After decompression.
  uint32_t codec = 0;
  uint64_t checksum = 0;  // XXH3 of the stored bytes.
};

enum class SectionCodec : uint32_t { kNone = 0, kZstd = 1 };

// The sections, in header and file order.
enum SectionId : uint32_t { kManifest, kTokenizer, kChecksums, kNumSections };
inline constexpr std::array<std::string_view, kNumSections> kSectionNames = {
    "manifest", "tokenizer", "checksums"};

// The 4 KiB at the front of a file.
struct FelmHeader {
  uint64_t file_bytes = 0;
  std::array<Section, kNumSections> sections;
};

// The header as bytes, with its own checksum.
std::array<std::byte, kFelmHeaderBytes> SerializeHeader(
    const FelmHeader& header);

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_WEIGHT_FORMAT_H_
