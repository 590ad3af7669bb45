#include "storage/weight_format.h"

#include <bit>
#include <cstring>
#include <span>

#include "core/base/status.h"
#include "storage/checksum.h"

namespace flashelm {
namespace {

constexpr std::array<std::string_view, 6> kEncodings = {"f32", "bf16",   "q8",
                                                        "q4",  "nibble", "u8"};
// A scale is an F16.
constexpr uint64_t kScaleBytes = 2;
constexpr std::array<std::string_view, 10> kSegmentKinds = {
    "embedding", "norms",  "qkv",      "attention_out", "predictor",
    "ffn_gate",  "ffn_up", "ffn_down", "ffn",           "final_norm"};
constexpr std::array<std::string_view, 2> kChecksumKinds = {"xxh3-low32",
                                                            "xxh3"};

template <class Enum, size_t N>
std::optional<Enum> Find(const std::array<std::string_view, N>& names,
                         std::string_view name) {
  for (size_t i = 0; i < N; ++i) {
    if (names[i] == name) return static_cast<Enum>(i);
  }
  return std::nullopt;
}

static_assert(std::endian::native == std::endian::little,
              "the file is little-endian and is used in place");

}  // namespace

std::string_view EncodingName(Encoding encoding) {
  return kEncodings[static_cast<size_t>(encoding)];
}
std::optional<Encoding> EncodingFromName(std::string_view name) {
  return Find<Encoding>(kEncodings, name);
}
uint32_t EncodingBits(Encoding encoding) {
  switch (encoding) {
    case Encoding::kF32:
      return 32;
    case Encoding::kBf16:
      return 16;
    case Encoding::kQ8:
    case Encoding::kU8:
      return 8;
    case Encoding::kQ4:
    case Encoding::kNibble:
      return 4;
  }
  return 0;
}
uint64_t EncodingAlignment(Encoding encoding) {
  if (HasScales(encoding)) return kScaleBytes;
  return IsGrouped(encoding) ? 1 : EncodingBits(encoding) / 8;
}
uint64_t ElementsBytes(Encoding encoding, uint64_t num_elements) {
  return num_elements * EncodingBits(encoding) / 8;
}
uint64_t ScalesBytes(Encoding encoding, uint64_t num_elements) {
  return HasScales(encoding) ? num_elements / kElementsPerGroup * kScaleBytes
                             : 0;
}

std::string_view SegmentKindName(SegmentKind kind) {
  return kSegmentKinds[static_cast<size_t>(kind)];
}
std::optional<SegmentKind> SegmentKindFromName(std::string_view name) {
  return Find<SegmentKind>(kSegmentKinds, name);
}

std::string_view ChecksumKindName(ChecksumKind kind) {
  return kChecksumKinds[static_cast<size_t>(kind)];
}
std::optional<ChecksumKind> ChecksumKindFromName(std::string_view name) {
  return Find<ChecksumKind>(kChecksumKinds, name);
}

std::string Segment::Describe() const {
  const std::string_view name = SegmentKindName(kind);
  return layer ? StatusMessage::Join("layer ", *layer, " ", name)
               : std::string(name);
}

std::array<std::byte, kFelmHeaderBytes> SerializeHeader(
    const FelmHeader& header) {
  std::array<std::byte, kFelmHeaderBytes> bytes{};
  size_t at = 0;
  const auto put = [&](const auto& value) {
    std::memcpy(bytes.data() + at, &value, sizeof(value));
    at += sizeof(value);
  };
  put(kFelmMagic);
  put(kFelmVersion);
  put(static_cast<uint32_t>(kFelmHeaderBytes));
  put(header.file_bytes);
  for (const Section& section : header.sections) {
    put(section.offset_bytes);
    put(section.stored_bytes);
    put(section.raw_bytes);
    put(section.codec);
    put(uint32_t{0});
    put(section.checksum);
  }
  at = kFelmHeaderBytes - sizeof(uint64_t);
  put(Xxh3(std::span(bytes).first(at)));
  return bytes;
}

}  // namespace flashelm
