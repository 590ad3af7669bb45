#include "core/sentencepiece_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/utf8.h"

namespace flashelm {
namespace {

// The wire types of protobuf. Groups (3 and 4) were retired before
// SentencePiece existed.
enum class WireType : uint8_t {
  kVarint = 0,
  kFixed64 = 1,
  kBytes = 2,
  kFixed32 = 5
};

struct Field {
  uint64_t number = 0;
  WireType type = WireType::kVarint;
  uint64_t value = 0;      // Of a varint; a fixed field's bits.
  std::string_view bytes;  // Of a kBytes field.
  uint64_t offset = 0;     // Of the tag, in the file.
  uint64_t bytes_offset = 0;
};

// Walks the fields of one message, which lies at `base` in the file.
class FieldReader {
 public:
  FieldReader(std::string_view message, uint64_t base, std::string_view name)
      : message_(message), base_(base), name_(name) {}

  // The next field, or false at the end. kDataLoss: bytes that are no field.
  Result<bool> Next(Field& field) {
    if (pos_ == message_.size()) return false;
    field.offset = base_ + pos_;
    uint64_t tag = 0;
    FLASHELM_RETURN_IF_ERROR(ReadVarint(tag));
    field.number = tag >> 3;
    if (field.number == 0 || tag > std::numeric_limits<uint32_t>::max()) {
      return DataLoss(name_, ": byte ", field.offset, ": found field number ",
                      field.number, ", expected 1 to 536870911");
    }
    field.bytes = {};
    field.value = 0;
    switch (tag & 7) {
      case 0:
        field.type = WireType::kVarint;
        FLASHELM_RETURN_IF_ERROR(ReadVarint(field.value));
        return true;
      case 1:
        field.type = WireType::kFixed64;
        FLASHELM_RETURN_IF_ERROR(ReadFixed(8, field.value));
        return true;
      case 2: {
        field.type = WireType::kBytes;
        const uint64_t length_offset = base_ + pos_;
        uint64_t length = 0;
        FLASHELM_RETURN_IF_ERROR(ReadVarint(length));
        if (length > message_.size() - pos_) {
          return DataLoss(name_, ": byte ", length_offset, ": found length ",
                          length, " of field ", field.number,
                          ", expected at most the ", message_.size() - pos_,
                          " bytes that are left");
        }
        field.bytes_offset = base_ + pos_;
        field.bytes = message_.substr(pos_, length);
        pos_ += length;
        return true;
      }
      case 5:
        field.type = WireType::kFixed32;
        FLASHELM_RETURN_IF_ERROR(ReadFixed(4, field.value));
        return true;
      default:
        return DataLoss(name_, ": byte ", field.offset, ": found wire type ",
                        tag & 7, " of field ", field.number,
                        ", expected 0, 1, 2 or 5");
    }
  }

 private:
  Status ReadVarint(uint64_t& value) {
    const uint64_t offset = base_ + pos_;
    value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (pos_ == message_.size()) {
        return DataLoss(name_, ": byte ", offset,
                        ": found the end inside a number, expected its last "
                        "byte");
      }
      const uint64_t byte = static_cast<unsigned char>(message_[pos_++]);
      // The tenth byte holds bit 63 alone.
      if (shift == 63 && byte > 1) break;
      value |= (byte & 0x7F) << shift;
      if (byte < 0x80) return OkStatus();
    }
    return DataLoss(name_, ": byte ", offset,
                    ": found a number longer than 64 bits, expected a varint");
  }

  Status ReadFixed(size_t size, uint64_t& value) {
    if (size > message_.size() - pos_) {
      return DataLoss(name_, ": byte ", base_ + pos_, ": found ",
                      message_.size() - pos_, " bytes, expected ", size,
                      " of a fixed-size field");
    }
    value = 0;
    for (size_t i = 0; i < size; ++i) {
      const uint64_t byte = static_cast<unsigned char>(message_[pos_ + i]);
      value |= byte << (8 * i);
    }
    pos_ += size;
    return OkStatus();
  }

  std::string_view message_;
  uint64_t base_;
  std::string_view name_;
  size_t pos_ = 0;  // <= message_.size()
};

Status ExpectType(const Field& field, WireType type, std::string_view what,
                  std::string_view name) {
  if (field.type == type) return OkStatus();
  return DataLoss(name, ": byte ", field.offset, ": found wire type ",
                  static_cast<int>(field.type), " of ", what, ", expected ",
                  static_cast<int>(type));
}

// Calls visit(field) on each field of a message; ends at the first error.
template <class Visit>
Status ForEachField(std::string_view message, uint64_t base,
                    std::string_view name, const Visit& visit) {
  FieldReader reader(message, base, name);
  Field field;
  while (true) {
    FLASHELM_ASSIGN_OR_RETURN(const bool more, reader.Next(field));
    if (!more) return OkStatus();
    FLASHELM_RETURN_IF_ERROR(visit(field));
  }
}

// What the settings of the file say, with protobuf's defaults. As protobuf has
// it, the last of several occurrences of a field counts.
struct Settings {
  int64_t model_type = 1;  // Unigram.
  bool whitespace_as_suffix = false;
  bool byte_fallback = false;
  int64_t unk_id = 0;
  int64_t bos_id = 1;
  int64_t eos_id = 2;

  std::string_view normalizer;
  bool has_charsmap = false;
  bool has_rules = false;
  bool has_denormalizer = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

Status ReadTrainerSpec(const Field& spec, std::string_view name,
                       Settings& settings) {
  const auto read = [&](const Field& field) -> Status {
    int64_t* number = nullptr;
    bool* flag = nullptr;
    switch (field.number) {
      case 3:
        number = &settings.model_type;
        break;
      case 24:
        flag = &settings.whitespace_as_suffix;
        break;
      case 35:
        flag = &settings.byte_fallback;
        break;
      case 40:
        number = &settings.unk_id;
        break;
      case 41:
        number = &settings.bos_id;
        break;
      case 42:
        number = &settings.eos_id;
        break;
      default:
        return OkStatus();
    }
    FLASHELM_RETURN_IF_ERROR(
        ExpectType(field, WireType::kVarint, "a trainer setting", name));
    if (number != nullptr) *number = static_cast<int64_t>(field.value);
    if (flag != nullptr) *flag = field.value != 0;
    return OkStatus();
  };
  return ForEachField(spec.bytes, spec.bytes_offset, name, read);
}

Status ReadNormalizerSpec(const Field& spec, std::string_view name,
                          Settings& settings) {
  const auto read = [&](const Field& field) -> Status {
    const bool is_bytes =
        field.number == 1 || field.number == 2 || field.number == 6;
    const bool is_flag = field.number >= 3 && field.number <= 5;
    if (!is_bytes && !is_flag) return OkStatus();
    FLASHELM_RETURN_IF_ERROR(
        ExpectType(field, is_flag ? WireType::kVarint : WireType::kBytes,
                   "a normalizer setting", name));
    switch (field.number) {
      case 1:
        settings.normalizer = field.bytes;
        break;
      case 2:
        settings.has_charsmap = !field.bytes.empty();
        break;
      case 3:
        settings.add_dummy_prefix = field.value != 0;
        break;
      case 4:
        settings.remove_extra_whitespaces = field.value != 0;
        break;
      case 5:
        settings.escape_whitespaces = field.value != 0;
        break;
      default:
        settings.has_rules = !field.bytes.empty();
        break;
    }
    return OkStatus();
  };
  return ForEachField(spec.bytes, spec.bytes_offset, name, read);
}

// Any rule at all in the denormalizer; its other settings mean nothing.
Status ReadDenormalizerSpec(const Field& spec, std::string_view name,
                            Settings& settings) {
  Settings other;
  FLASHELM_RETURN_IF_ERROR(ReadNormalizerSpec(spec, name, other));
  if (other.has_charsmap) settings.has_denormalizer = true;
  return OkStatus();
}

Status ReadPieceType(const Field& field, TokenId id, std::string_view name,
                     PieceType& type) {
  switch (field.value) {
    case 1:
    case 2:
    case 3:
    case 6:
      type = static_cast<PieceType>(field.value);
      return OkStatus();
    case 4:
      return Unimplemented(name, ": byte ", field.offset, ": piece ", id,
                           " is user-defined, expected only normal, unknown, "
                           "control and byte pieces");
    case 5:
      return Unimplemented(name, ": byte ", field.offset, ": piece ", id,
                           " is marked unused, expected only normal, unknown, "
                           "control and byte pieces");
    default:
      return DataLoss(name, ": byte ", field.offset, ": found type ",
                      field.value, " of piece ", id, ", expected 1 to 6");
  }
}

Status ReadPiece(const Field& message, TokenId id, std::string_view name,
                 SentencePiece& piece) {
  piece = SentencePiece();
  piece.offset = message.offset;
  const auto read = [&](const Field& field) -> Status {
    switch (field.number) {
      case 1:
        FLASHELM_RETURN_IF_ERROR(
            ExpectType(field, WireType::kBytes, "a piece's text", name));
        piece.text = field.bytes;
        return OkStatus();
      case 2:
        FLASHELM_RETURN_IF_ERROR(
            ExpectType(field, WireType::kFixed32, "a piece's score", name));
        piece.score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
        return OkStatus();
      case 3:
        FLASHELM_RETURN_IF_ERROR(
            ExpectType(field, WireType::kVarint, "a piece's type", name));
        return ReadPieceType(field, id, name, piece.type);
      default:
        return OkStatus();
    }
  };
  FLASHELM_RETURN_IF_ERROR(
      ForEachField(message.bytes, message.bytes_offset, name, read));

  if (piece.text.empty() || piece.text.size() > kMaxPieceBytes) {
    return DataLoss(name, ": byte ", piece.offset, ": found ",
                    piece.text.size(), " bytes of text in piece ", id,
                    ", expected 1 to ", kMaxPieceBytes);
  }
  if (!IsValidUtf8(piece.text)) {
    return DataLoss(name, ": byte ", piece.offset,
                    ": found invalid UTF-8 in piece ", id,
                    ", expected valid text");
  }
  if (!std::isfinite(piece.score)) {
    return DataLoss(name, ": byte ", piece.offset, ": found score ",
                    piece.score, " of piece ", id, ", expected a finite one");
  }
  return OkStatus();
}

Status CheckSettings(const Settings& settings, std::string_view name) {
  if (settings.model_type != 2) {
    return Unimplemented(name, ": found model type ", settings.model_type,
                         ", expected 2 (BPE)");
  }
  if (!settings.byte_fallback) {
    return Unimplemented(name, ": byte fallback is off, expected on");
  }
  if (settings.whitespace_as_suffix) {
    return Unimplemented(name,
                         ": whitespace is a suffix of words, expected a "
                         "prefix");
  }
  if (settings.has_charsmap || settings.has_rules ||
      (!settings.normalizer.empty() && settings.normalizer != "identity")) {
    return Unimplemented(
        name, ": the normalizer maps characters, expected \"identity\"");
  }
  if (settings.has_denormalizer) {
    return Unimplemented(name, ": found a denormalizer, expected none");
  }
  if (!settings.add_dummy_prefix) {
    return Unimplemented(name, ": the dummy prefix is off, expected on");
  }
  if (settings.remove_extra_whitespaces) {
    return Unimplemented(name, ": extra spaces are removed, expected kept");
  }
  if (!settings.escape_whitespaces) {
    return Unimplemented(name, ": spaces are not escaped, expected escaped");
  }
  return OkStatus();
}

Status CheckId(int64_t id, uint32_t num_pieces, std::string_view what,
               std::string_view name, TokenId& out) {
  if (id == -1) {
    return Unimplemented(name, ": there is no ", what, " piece, expected one");
  }
  if (id < 0 || id >= int64_t{num_pieces}) {
    return DataLoss(name, ": found ", what, " id ", id, ", expected 0 to ",
                    num_pieces - 1);
  }
  out = static_cast<TokenId>(id);
  return OkStatus();
}

}  // namespace

Result<SentencePieceModel> SentencePieceModel::Open(std::string_view bytes,
                                                    std::string_view name) {
  SentencePieceModel model(bytes, name);
  Settings settings;
  const auto read = [&](const Field& field) -> Status {
    const bool is_known =
        (field.number >= 1 && field.number <= 3) || field.number == 5;
    if (!is_known) return OkStatus();
    FLASHELM_RETURN_IF_ERROR(
        ExpectType(field, WireType::kBytes, "a part of the model", name));
    if (field.number == 2) return ReadTrainerSpec(field, name, settings);
    if (field.number == 3) return ReadNormalizerSpec(field, name, settings);
    if (field.number == 5) return ReadDenormalizerSpec(field, name, settings);

    if (model.num_pieces_ == kMaxPieces) {
      return DataLoss(name, ": byte ", field.offset, ": found piece ",
                      kMaxPieces, ", expected at most ", kMaxPieces, " pieces");
    }
    SentencePiece piece;
    FLASHELM_RETURN_IF_ERROR(ReadPiece(field, model.num_pieces_, name, piece));
    ++model.num_pieces_;
    model.text_bytes_ += piece.text.size();
    model.longest_piece_bytes_ =
        std::max(model.longest_piece_bytes_, piece.text.size());
    return OkStatus();
  };
  FLASHELM_RETURN_IF_ERROR(ForEachField(bytes, 0, name, read));

  if (model.num_pieces_ == 0) {
    return DataLoss(name, ": found no pieces in ", bytes.size(),
                    " bytes, expected a SentencePiece model");
  }
  FLASHELM_RETURN_IF_ERROR(CheckSettings(settings, name));
  FLASHELM_RETURN_IF_ERROR(CheckId(settings.unk_id, model.num_pieces_,
                                   "unknown", name, model.unk_id_));
  FLASHELM_RETURN_IF_ERROR(
      CheckId(settings.bos_id, model.num_pieces_, "BOS", name, model.bos_id_));
  FLASHELM_RETURN_IF_ERROR(
      CheckId(settings.eos_id, model.num_pieces_, "EOS", name, model.eos_id_));
  return model;
}

Status SentencePieceModel::ForEachPiece(
    const std::function<Status(TokenId, const SentencePiece&)>& visit) const {
  TokenId id = 0;
  SentencePiece piece;
  return ForEachField(bytes_, 0, name_, [&](const Field& field) -> Status {
    if (field.number != 1) return OkStatus();
    FLASHELM_RETURN_IF_ERROR(ReadPiece(field, id, name_, piece));
    return visit(id++, piece);
  });
}

}  // namespace flashelm
