#include "core/tokenizer.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>

#include "core/utf8.h"

namespace flashelm {
namespace {

// U+2581, which stands for a space in pieces.
constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";
// What an unknown token reads as: U+2047 between spaces.
constexpr std::string_view kUnknownSurface = " \xE2\x81\x87 ";

// No piece is stored further from its home slot. At half load honest text stays
// far below, and a file made to collide cannot make a search long.
constexpr uint32_t kMaxProbes = 256;

// Longer words are cut here, so that 32 bits hold any offset in a word (a
// character has at most 4 bytes). Their scratch would be 9 GiB.
constexpr uint32_t kMaxWordChars = uint32_t{1} << 28;

// FNV-1a, with a last mix because the table uses the low bits.
uint32_t Hash(std::string_view text) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  }
  return static_cast<uint32_t>(hash ^ (hash >> 32));
}

size_t TableSize(uint64_t num_pieces) { return std::bit_ceil(2 * num_pieces); }

// The byte that "<0xNN>" names, or -1.
int ParseByteName(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') {
    return -1;
  }
  int byte = 0;
  for (const char c : text.substr(3, 2)) {
    const bool is_digit = c >= '0' && c <= '9';
    if (!is_digit && (c < 'A' || c > 'F')) return -1;
    byte = byte * 16 + (is_digit ? c - '0' : c - 'A' + 10);
  }
  return byte;
}

// Whether a U+2581 stands behind another character.
bool HasInteriorSpace(std::string_view text) {
  while (text.substr(0, kSpaceSymbol.size()) == kSpaceSymbol) {
    text.remove_prefix(kSpaceSymbol.size());
  }
  return text.find(kSpaceSymbol) != std::string_view::npos;
}

// Walks the normalized text: a U+2581 in front, spaces as U+2581, U+FFFD for
// each invalid byte. It is never stored as a whole.
class WordScanner {
 public:
  // `split`: a word ends in front of a U+2581 that follows another character;
  // otherwise all the text is one word.
  WordScanner(std::string_view text, bool split) : rest_(text), split_(split) {
    prefix_is_due_ = !text.empty();
  }

  // Calls visit(bytes) on each character of the next word; false at the end.
  template <class Visit>
  bool Next(const Visit& visit) {
    bool is_past_spaces = false;
    uint32_t num_chars = 0;
    while ((prefix_is_due_ || !rest_.empty()) && num_chars < kMaxWordChars) {
      size_t length = 0;
      std::string_view character = kSpaceSymbol;
      if (!prefix_is_due_) {
        if (ClassifyUtf8(rest_, length) != Utf8Prefix::kValid) {
          character = kReplacementCharacter;
        } else if (rest_[0] != ' ') {
          character = rest_.substr(0, length);
        }
      }
      const bool is_space = character == kSpaceSymbol;
      if (split_ && is_space && is_past_spaces) break;
      is_past_spaces = is_past_spaces || !is_space;
      visit(character);
      ++num_chars;
      prefix_is_due_ = false;
      rest_.remove_prefix(length);
    }
    return num_chars > 0;
  }

 private:
  std::string_view rest_;
  bool split_;
  bool prefix_is_due_;
};

// The most that one word of a text needs.
struct WordSize {
  size_t num_chars = 0;
  size_t num_bytes = 0;
};

WordSize LargestWord(std::string_view text, bool split) {
  WordScanner scanner(text, split);
  WordSize largest;
  WordSize word;
  const auto measure = [&word](std::string_view character) {
    ++word.num_chars;
    word.num_bytes += character.size();
  };
  while (scanner.Next(measure)) {
    largest.num_chars = std::max(largest.num_chars, word.num_chars);
    largest.num_bytes = std::max(largest.num_bytes, word.num_bytes);
    word = WordSize();
  }
  return largest;
}

}  // namespace

// One word while its symbols are merged. A symbol is a range of the word; the
// live ones form a list, and a merged one disappears into its left neighbour.
struct Tokenizer::Scratch {
  static constexpr uint32_t kDead = kNone - 1;

  struct Symbol {
    uint32_t begin;  // In `text`; it ends where the next one begins.
    uint32_t prev;   // kNone for the first.
    uint32_t next;   // kNone for the last, kDead for one merged away.
  };
  // The symbol `left` and its next, if they still have `size` bytes together:
  // a symbol only grows, so another size means that one has changed.
  struct Candidate {
    float score;
    uint32_t left;
    uint32_t size;

    // The order of the heap: highest score first, leftmost on ties.
    bool operator<(const Candidate& other) const {
      return score < other.score || (score == other.score && left > other.left);
    }
  };

  // n symbols have n - 1 candidates at first, and each of at most n - 1 merges
  // takes one and adds two.
  explicit Scratch(const WordSize& largest) {
    text.reserve(largest.num_bytes);
    symbols.reserve(largest.num_chars);
    heap.reserve(2 * largest.num_chars);
  }
  static uint64_t Bytes(const WordSize& largest) {
    return largest.num_bytes +
           largest.num_chars * uint64_t{sizeof(Symbol) + 2 * sizeof(Candidate)};
  }

  std::string_view TextFrom(uint32_t begin, uint32_t end_symbol) const {
    const size_t end =
        end_symbol == kNone ? text.size() : symbols[end_symbol].begin;
    return std::string_view(text.data() + begin, end - begin);
  }

  std::vector<char> text;
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

uint64_t Tokenizer::memory_bytes() const {
  return sizeof(*this) + text_.capacity() +
         offsets_.capacity() * sizeof(uint32_t) +
         scores_.capacity() * sizeof(float) +
         types_.capacity() * sizeof(PieceType) +
         table_.capacity() * sizeof(TokenId);
}

Result<Tokenizer> Tokenizer::Parse(std::string_view bytes,
                                   std::string_view name) {
  FLASHELM_ASSIGN_OR_RETURN(const SentencePieceModel model,
                            SentencePieceModel::Open(bytes, name));
  Tokenizer tokenizer;
  tokenizer.unk_id_ = model.unk_id();
  tokenizer.bos_id_ = model.bos_id();
  tokenizer.eos_id_ = model.eos_id();
  tokenizer.longest_piece_bytes_ = model.longest_piece_bytes();
  tokenizer.text_.reserve(model.text_bytes());
  tokenizer.offsets_.reserve(size_t{model.num_pieces()} + 1);
  tokenizer.scores_.reserve(model.num_pieces());
  tokenizer.types_.reserve(model.num_pieces());
  tokenizer.table_.assign(TableSize(model.num_pieces()), kNone);
  tokenizer.byte_ids_.fill(kNone);
  tokenizer.offsets_.push_back(0);
  FLASHELM_RETURN_IF_ERROR(
      model.ForEachPiece([&](TokenId id, const SentencePiece& piece) {
        return tokenizer.AddPiece(id, piece, name);
      }));

  if (tokenizer.types_[model.unk_id()] != PieceType::kUnknown) {
    return DataLoss(name, ": found piece ", model.unk_id(),
                    " of another type, expected the unknown piece");
  }
  for (const TokenId id : {model.bos_id(), model.eos_id()}) {
    if (!tokenizer.IsControl(id)) {
      return DataLoss(name, ": found piece ", id, " of another type, expected ",
                      id == model.bos_id() ? "BOS" : "EOS",
                      ", a control piece");
    }
  }
  for (size_t byte = 0; byte < tokenizer.byte_ids_.size(); ++byte) {
    if (tokenizer.byte_ids_[byte] == kNone) {
      return DataLoss(name, ": found no piece for byte ", byte,
                      ", expected one for each of 256");
    }
  }
  return tokenizer;
}

Status Tokenizer::AddPiece(TokenId id, const SentencePiece& piece,
                           std::string_view name) {
  if (piece.type == PieceType::kUnknown && id != unk_id_) {
    return DataLoss(name, ": byte ", piece.offset,
                    ": found another unknown piece with id ", id,
                    ", expected only ", unk_id_);
  }
  if (piece.type == PieceType::kByte) {
    const int byte = ParseByteName(piece.text);
    if (byte < 0) {
      return DataLoss(name, ": byte ", piece.offset,
                      ": found another name on byte piece ", id,
                      ", expected <0x00> to <0xFF>");
    }
    byte_ids_[static_cast<size_t>(byte)] = id;
  }
  if (piece.type == PieceType::kNormal && HasInteriorSpace(piece.text)) {
    words_are_independent_ = false;
  }

  const uint32_t slot = FindSlot(piece.text);
  if (slot == kNone) {
    return DataLoss(name, ": byte ", piece.offset, ": found over ", kMaxProbes,
                    " pieces that collide with piece ", id,
                    ", expected text that does not");
  }
  if (table_[slot] != kNone) {
    return DataLoss(name, ": byte ", piece.offset, ": found piece ", id,
                    " with the text of piece ", table_[slot],
                    ", expected another");
  }
  table_[slot] = id;
  text_.insert(text_.end(), piece.text.begin(), piece.text.end());
  offsets_.push_back(static_cast<uint32_t>(text_.size()));
  scores_.push_back(piece.score);
  types_.push_back(piece.type);
  return OkStatus();
}

std::string_view Tokenizer::piece(TokenId id) const {
  if (id >= vocab_size()) id = unk_id_;
  return std::string_view(text_.data() + offsets_[id],
                          offsets_[id + 1] - offsets_[id]);
}

unsigned char Tokenizer::ByteOf(TokenId id) const {
  return static_cast<unsigned char>(ParseByteName(piece(id)));
}

uint32_t Tokenizer::FindSlot(std::string_view text) const {
  const size_t mask = table_.size() - 1;
  size_t slot = Hash(text) & mask;
  for (uint32_t i = 0; i < kMaxProbes; ++i) {
    const TokenId id = table_[slot];
    if (id == kNone || piece(id) == text) return static_cast<uint32_t>(slot);
    slot = (slot + 1) & mask;
  }
  return kNone;
}

TokenId Tokenizer::FindNormal(std::string_view text) const {
  if (text.size() > longest_piece_bytes_) return kNone;
  const uint32_t slot = FindSlot(text);
  if (slot == kNone || table_[slot] == kNone) return kNone;
  const TokenId id = table_[slot];
  return types_[id] == PieceType::kNormal ? id : kNone;
}

// Adds `left` and its next symbol to the heap's vector if they may be merged.
void Tokenizer::AddCandidate(Scratch& scratch, uint32_t left) const {
  const Scratch::Symbol& symbol = scratch.symbols[left];
  if (symbol.next == kNone) return;
  const std::string_view pair =
      scratch.TextFrom(symbol.begin, scratch.symbols[symbol.next].next);
  const TokenId id = FindNormal(pair);
  if (id == kNone) return;
  scratch.heap.push_back(
      {scores_[id], left, static_cast<uint32_t>(pair.size())});
}

// Merges the adjacent pair with the highest score until none is a piece.
void Tokenizer::MergeWord(Scratch& scratch) const {
  std::vector<Scratch::Symbol>& symbols = scratch.symbols;
  std::vector<Scratch::Candidate>& heap = scratch.heap;
  heap.clear();
  for (uint32_t i = 0; i < symbols.size(); ++i) AddCandidate(scratch, i);
  std::make_heap(heap.begin(), heap.end());
  const auto add = [&](uint32_t left) {
    const size_t size = heap.size();
    AddCandidate(scratch, left);
    if (heap.size() != size) std::push_heap(heap.begin(), heap.end());
  };

  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Scratch::Candidate top = heap.back();
    heap.pop_back();
    Scratch::Symbol& left = symbols[top.left];
    if (left.next == Scratch::kDead || left.next == kNone) continue;
    Scratch::Symbol& right = symbols[left.next];
    if (scratch.TextFrom(left.begin, right.next).size() != top.size) continue;

    left.next = right.next;
    right.next = Scratch::kDead;
    if (left.next != kNone) symbols[left.next].prev = top.left;
    if (left.prev != kNone) add(left.prev);
    add(top.left);
  }
}

// Calls emit(id) on each id of `text`.
//
// Word by word where that is exact: a word here is a run of U+2581 and what
// follows up to the next one. A merge across the border between two words would
// make a piece with a U+2581 behind another character. If the vocabulary has no
// such piece, no merge crosses, and merges on one side never depend on the
// other, so each word can be merged on its own, with the memory of the longest.
template <class Emit>
void Tokenizer::ForEachToken(std::string_view text, Scratch& scratch,
                             const Emit& emit) const {
  WordScanner scanner(text, words_are_independent_);
  const auto add_symbol = [&scratch](std::string_view character) {
    const auto index = static_cast<uint32_t>(scratch.symbols.size());
    scratch.symbols.push_back({static_cast<uint32_t>(scratch.text.size()),
                               index == 0 ? kNone : index - 1, index + 1});
    scratch.text.insert(scratch.text.end(), character.begin(), character.end());
  };
  while (true) {
    scratch.text.clear();
    scratch.symbols.clear();
    if (!scanner.Next(add_symbol)) return;
    scratch.symbols.back().next = kNone;
    MergeWord(scratch);
    for (uint32_t i = 0; i != kNone; i = scratch.symbols[i].next) {
      const std::string_view symbol =
          scratch.TextFrom(scratch.symbols[i].begin, scratch.symbols[i].next);
      const TokenId id = FindNormal(symbol);
      if (id != kNone) {
        emit(id);
        continue;
      }
      for (const char c : symbol)
        emit(byte_ids_[static_cast<unsigned char>(c)]);
    }
  }
}

std::vector<TokenId> Tokenizer::Encode(std::string_view text,
                                       bool add_bos) const {
  // Twice, first to count: a result that grew by doubling would take up to
  // three times its size on the way.
  Scratch scratch(LargestWord(text, words_are_independent_));
  size_t count = add_bos ? 1 : 0;
  ForEachToken(text, scratch, [&count](TokenId) { ++count; });
  std::vector<TokenId> ids;
  ids.reserve(count);
  if (add_bos) ids.push_back(bos_id_);
  ForEachToken(text, scratch, [&ids](TokenId id) { ids.push_back(id); });
  assert(ids.size() == count);
  return ids;
}

size_t Tokenizer::CountTokens(std::string_view text, bool add_bos) const {
  Scratch scratch(LargestWord(text, words_are_independent_));
  size_t count = add_bos ? 1 : 0;
  ForEachToken(text, scratch, [&count](TokenId) { ++count; });
  return count;
}

uint64_t Tokenizer::EncodeScratchBytes(std::string_view text) const {
  return Scratch::Bytes(LargestWord(text, words_are_independent_));
}

std::string Tokenizer::Decode(std::span<const TokenId> ids) const {
  size_t max_bytes = 0;
  for (const TokenId id : ids) {
    max_bytes += std::max(piece(id).size(), kUnknownSurface.size());
  }
  std::string text;
  text.reserve(max_bytes);
  StreamDecoder decoder(*this, /*at_start=*/true);
  for (const TokenId id : ids) text += decoder.Push(id);
  text += decoder.Finish();
  return text;
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool at_start)
    : tokenizer_(&tokenizer), at_start_(at_start) {
  // Three kept bytes may turn out invalid together with what a token adds.
  out_.reserve(
      3 * kReplacementCharacter.size() +
      std::max(tokenizer.longest_piece_bytes(), kUnknownSurface.size()));
}

std::string_view StreamDecoder::Push(TokenId id) {
  out_.clear();
  const PieceType type = tokenizer_->TypeOf(id);
  if (type == PieceType::kByte) {
    PushByte(static_cast<char>(tokenizer_->ByteOf(id)));
    at_start_ = false;
    return out_;
  }
  // Any other token, even a control one, ends a run of bytes.
  FlushPending();
  if (type == PieceType::kControl) return out_;
  if (type == PieceType::kUnknown) {
    out_ += kUnknownSurface;
  } else {
    std::string_view piece = tokenizer_->piece(id);
    if (at_start_ && piece.substr(0, kSpaceSymbol.size()) == kSpaceSymbol) {
      piece.remove_prefix(kSpaceSymbol.size());
    }
    while (!piece.empty()) {
      const size_t space = piece.find(kSpaceSymbol);
      out_ += piece.substr(0, space);
      if (space == std::string_view::npos) break;
      out_ += ' ';
      piece.remove_prefix(space + kSpaceSymbol.size());
    }
  }
  at_start_ = false;
  return out_;
}

std::string_view StreamDecoder::Finish() {
  out_.clear();
  FlushPending();
  at_start_ = false;
  return out_;
}

void StreamDecoder::PushByte(char byte) {
  pending_[num_pending_++] = byte;
  while (num_pending_ > 0) {
    const std::string_view pending(pending_.data(), num_pending_);
    size_t length = 0;
    const Utf8Prefix prefix = ClassifyUtf8(pending, length);
    if (prefix == Utf8Prefix::kIncomplete) return;
    out_ += prefix == Utf8Prefix::kValid ? pending.substr(0, length)
                                         : kReplacementCharacter;
    num_pending_ -= length;
    std::memmove(pending_.data(), pending_.data() + length, num_pending_);
  }
}

void StreamDecoder::FlushPending() {
  for (; num_pending_ > 0; --num_pending_) out_ += kReplacementCharacter;
}

}  // namespace flashelm
