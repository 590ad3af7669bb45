// Reads a serialized SentencePiece model (`tokenizer.model`) in place.
#ifndef FLASHELM_CORE_SENTENCEPIECE_MODEL_H_
#define FLASHELM_CORE_SENTENCEPIECE_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>

#include "core/base/status.h"
#include "core/base/types.h"

namespace flashelm {

// The numbers are those of the file.
enum class PieceType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kByte = 6,
};

inline constexpr uint32_t kMaxPieces = 1'000'000;
inline constexpr size_t kMaxPieceBytes = 1024;

struct SentencePiece {
  std::string_view text;  // Valid UTF-8, 1 to kMaxPieceBytes bytes.
  float score = 0.0f;     // Finite; the pair with the highest is merged first.
  PieceType type = PieceType::kNormal;
  uint64_t offset = 0;  // Of the piece in the file, for messages.
};

// A model whose bytes are well-formed, whose settings are those that this
// project implements, and each of whose pieces is sound on its own. What holds
// between pieces (duplicates, the set of byte pieces) is for the reader of
// ForEachPiece to check. Refers to the bytes and name given to Open, which
// outlive it; owns nothing. Thread-compatible.
class SentencePieceModel {
 public:
  // `name` begins every message. Supported are BPE models with byte fallback,
  // identity normalisation with a dummy prefix and escaped spaces, and normal,
  // unknown, control and byte pieces.
  // kDataLoss: not such a file, or damaged; says at which byte.
  // kUnimplemented: a sound file that asks for something else.
  // Cost: reads the bytes once and allocates nothing.
  static Result<SentencePieceModel> Open(std::string_view bytes,
                                         std::string_view name);

  uint32_t num_pieces() const { return num_pieces_; }
  uint64_t text_bytes() const { return text_bytes_; }  // Of all pieces.
  size_t longest_piece_bytes() const { return longest_piece_bytes_; }
  TokenId unk_id() const { return unk_id_; }  // Each id is < num_pieces().
  TokenId bos_id() const { return bos_id_; }
  TokenId eos_id() const { return eos_id_; }

  // Calls `visit` on each piece, in the order of ids; ends at its first error,
  // which is returned.
  Status ForEachPiece(
      const std::function<Status(TokenId, const SentencePiece&)>& visit) const;

 private:
  SentencePieceModel(std::string_view bytes, std::string_view name)
      : bytes_(bytes), name_(name) {}

  std::string_view bytes_;
  std::string_view name_;
  uint32_t num_pieces_ = 0;
  uint64_t text_bytes_ = 0;
  size_t longest_piece_bytes_ = 0;
  TokenId unk_id_ = 0;
  TokenId bos_id_ = 0;
  TokenId eos_id_ = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_SENTENCEPIECE_MODEL_H_
