// Text to token ids and back, by a SentencePiece BPE vocabulary.
#ifndef FLASHELM_CORE_TOKENIZER_H_
#define FLASHELM_CORE_TOKENIZER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/status.h"
#include "core/base/types.h"
#include "core/sentencepiece_model.h"

namespace flashelm {

// A vocabulary and its merge order; gives the ids and the text that
// SentencePiece gives. Move-only, and unchanged once made: const calls are
// thread-safe. An id that is not below vocab_size() is taken for unk_id().
class Tokenizer {
 public:
  // Reads the bytes of a `tokenizer.model`, which need not outlive the call.
  // `name`, a path for instance, begins every message.
  // kDataLoss: not such a file, or damaged. kUnimplemented: a kind of model
  // that SentencePieceModel::Open does not support.
  // Cost: O(bytes) time, and at no moment more memory than memory_bytes() then
  // says, which is at most six times the size of the file and 32 KiB.
  static Result<Tokenizer> Parse(std::string_view bytes, std::string_view name);

  Tokenizer(Tokenizer&&) = default;
  Tokenizer& operator=(Tokenizer&&) = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // The bytes of this object and its arrays.
  uint64_t memory_bytes() const;

  uint32_t vocab_size() const { return static_cast<uint32_t>(types_.size()); }
  TokenId bos_id() const { return bos_id_; }
  TokenId eos_id() const { return eos_id_; }
  TokenId unk_id() const { return unk_id_; }

  // Whether the token stands for no text.
  bool IsControl(TokenId id) const { return TypeOf(id) == PieceType::kControl; }
  // The piece as the model file spells it (U+2581 for a space, "<0x0A>" for a
  // byte). Valid while the tokenizer lives.
  std::string_view piece(TokenId id) const;
  size_t longest_piece_bytes() const { return longest_piece_bytes_; }

  // The ids of `text`, after bos_id() if `add_bos`; EOS is never added. Empty
  // text has no ids of its own. A byte that is not part of valid UTF-8 counts
  // as U+FFFD. Names of control pieces in the text are ordinary text. A word
  // of over 2^28 characters is cut there. The vector's capacity is its size.
  // Cost: O(n log n) time for any text, and EncodeScratchBytes(text) of memory
  // besides the result.
  std::vector<TokenId> Encode(std::string_view text, bool add_bos) const;

  // Encode(text, add_bos).size(), at half its time and without the result.
  size_t CountTokens(std::string_view text, bool add_bos) const;

  // What CountTokens takes while it runs, and Encode besides its result: 36
  // bytes per character of the longest word, and the word. O(n) time.
  uint64_t EncodeScratchBytes(std::string_view text) const;

  // The text of `ids`: spaces for U+2581, the bytes of byte tokens, U+FFFD for
  // each of those that is not part of valid UTF-8, nothing for control tokens,
  // " \u2047 " for unk_id(). The space that Encode puts in front is dropped.
  std::string Decode(std::span<const TokenId> ids) const;

 private:
  friend class StreamDecoder;
  struct Scratch;

  Tokenizer() = default;

  // The table slot where `text` is or would go, or kNone when it is too far
  // from home to be there.
  uint32_t FindSlot(std::string_view text) const;
  Status AddPiece(TokenId id, const SentencePiece& piece,
                  std::string_view name);

  PieceType TypeOf(TokenId id) const {
    return types_[id < types_.size() ? id : unk_id_];
  }
  // The byte that a byte piece stands for.
  unsigned char ByteOf(TokenId id) const;
  // The normal piece with that text, or kNone.
  TokenId FindNormal(std::string_view text) const;

  template <class Emit>
  void ForEachToken(std::string_view text, Scratch& scratch,
                    const Emit& emit) const;
  void AddCandidate(Scratch& scratch, uint32_t left) const;
  void MergeWord(Scratch& scratch) const;

  static constexpr uint32_t kNone = UINT32_MAX;

  std::vector<char> text_;         // All pieces, end to end.
  std::vector<uint32_t> offsets_;  // [vocab_size + 1], into text_.
  std::vector<float> scores_;      // [vocab_size]
  std::vector<PieceType> types_;   // [vocab_size]
  // Ids by the hash of their text, or kNone. The size is a power of two and at
  // least twice the vocabulary's.
  std::vector<TokenId> table_;
  std::array<TokenId, 256> byte_ids_{};  // By byte.
  size_t longest_piece_bytes_ = 0;
  // No normal piece has a U+2581 behind another character.
  bool words_are_independent_ = true;
  TokenId unk_id_ = 0;
  TokenId bos_id_ = 0;
  TokenId eos_id_ = 0;
};

// Turns ids into text one at a time. All that Push and Finish return, put
// together, is what Tokenizer::Decode says of all the ids. One thread.
class StreamDecoder {
 public:
  // `tokenizer` outlives the decoder. `at_start`: the ids begin the whole text,
  // whose first space is Encode's and is dropped; false when they continue a
  // text, a prompt for instance.
  StreamDecoder(const Tokenizer& tokenizer, bool at_start);

  // The text that `id` completes: whole code points, perhaps none. Bytes that
  // may still become a code point are kept, others are U+FFFD. The view is
  // valid until the next call or the decoder's end. Allocates nothing.
  std::string_view Push(TokenId id);

  // U+FFFD for each byte that is still kept. The decoder then goes on as if
  // in the middle of a text.
  std::string_view Finish();

  // Of what Push() and Finish() return, at most.
  size_t max_text_bytes() const { return out_.capacity(); }

 private:
  void PushByte(char byte);
  void FlushPending();

  const Tokenizer* tokenizer_;
  bool at_start_;
  std::array<char, 4> pending_{};  // The beginning of a code point.
  size_t num_pending_ = 0;         // At most 3 between calls.
  std::string out_;                // Reserved once for the longest piece.
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_TOKENIZER_H_
