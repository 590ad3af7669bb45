#include "core/convert/synth_tokenizer.h"

#include <algorithm>
#include <bit>
#include <map>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/base/format.h"
#include "core/convert/synth_words.h"

namespace flashelm {
namespace {

constexpr uint32_t kNumFixedPieces = 259;  // Unknown, controls, bytes.
// One more, for a space, which byte pieces cannot stand for.
constexpr uint32_t kMinPieces = kNumFixedPieces + 1;
constexpr uint32_t kMaxPieces = 1u << 17;
constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581
constexpr size_t kMaxSpaces = 16;
constexpr float kSpacesScore = -1e9f;

enum class PieceKind : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kByte = 6
};

// Protobuf, as far as this file needs it.
void AppendVarint(uint64_t value, std::string& out) {
  for (; value >= 0x80; value >>= 7) {
    out += static_cast<char>((value & 0x7F) | 0x80);
  }
  out += static_cast<char>(value);
}
void AppendNumber(uint32_t field, uint64_t value, std::string& out) {
  AppendVarint(field << 3, out);
  AppendVarint(value, out);
}
void AppendBytes(uint32_t field, std::string_view bytes, std::string& out) {
  AppendVarint(field << 3 | 2, out);
  AppendVarint(bytes.size(), out);
  out += bytes;
}
void AppendPiece(std::string_view text, float score, PieceKind kind,
                 std::string& out) {
  std::string piece;
  AppendBytes(1, text, piece);
  AppendVarint(2 << 3 | 5, piece);
  const auto bits = std::bit_cast<uint32_t>(score);
  for (int i = 0; i < 4; ++i) piece += static_cast<char>(bits >> (8 * i));
  if (kind != PieceKind::kNormal) {
    AppendNumber(3, static_cast<uint64_t>(kind), piece);
  }
  AppendBytes(1, piece, out);
}

size_t NumCharacters(std::string_view text) {
  return text.starts_with(kSpace) ? text.size() - kSpace.size() + 1
                                  : text.size();
}

// Texts of normal pieces, each once, in the order of merging.
class Merges {
 public:
  explicit Merges(size_t limit) : limit_(limit) {}
  bool is_full() const { return texts_.size() >= limit_; }
  void Add(std::string text) {
    if (!is_full() && known_.insert(text).second) {
      texts_.push_back(std::move(text));
    }
  }
  const std::vector<std::string>& texts() const { return texts_; }

 private:
  size_t limit_;
  std::vector<std::string> texts_;
  std::unordered_set<std::string> known_;
};

// Every part of every common word with the space in front of it. Whatever
// order the parts of such a word are merged in, two neighbours make another
// part, so that merging ends with the whole word.
void AddPartsOfWords(Merges& merges) {
  std::map<std::string, uint64_t, std::less<>> weights;
  uint64_t rank = 0;
  for (std::string_view rest = kCommonWords; !rest.empty();) {
    const size_t length = std::min(rest.find(' '), rest.size());
    std::string word(rest.substr(0, length));
    rest.remove_prefix(std::min(length + 1, rest.size()));
    const uint64_t weight = 100'000'000 / ++rank;  // Zipf's law.
    const auto add_parts = [&](std::string_view text, uint64_t share) {
      for (size_t end = 2; end <= text.size(); ++end) {
        std::string part(kSpace);
        part += text.substr(0, end - 1);
        weights[part] += weight / share;
        for (size_t begin = 0; begin + 2 <= end; ++begin) {
          weights[std::string(text.substr(begin, end - begin))] +=
              weight / share;
        }
      }
      weights[std::string(kSpace) + std::string(text)] += weight / share;
    };
    add_parts(word, 1);
    // At the start of a sentence; only the commonest have a piece for that.
    if (rank <= 400 && word[0] >= 'a' && word[0] <= 'z') {
      word[0] = static_cast<char>(word[0] - 'a' + 'A');
      add_parts(word, 20);
    }
  }
  // A part is at least as frequent as what it is part of, so shorter first on
  // ties puts every piece behind those it is merged from.
  std::vector<std::pair<std::string, uint64_t>> ranked(weights.begin(),
                                                       weights.end());
  std::sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) {
    if (a.second != b.second) return a.second > b.second;
    const size_t a_length = NumCharacters(a.first);
    const size_t b_length = NumCharacters(b.first);
    return a_length != b_length ? a_length < b_length : a.first < b.first;
  });
  for (auto& [text, weight] : ranked) merges.Add(std::move(text));
}

// All strings of that many letters, with `front` before them.
void AddLetters(std::string_view front, int num_letters, Merges& merges) {
  std::string letters(static_cast<size_t>(num_letters), 'a');
  while (!merges.is_full()) {
    merges.Add(std::string(front) + letters);
    size_t at = letters.size();
    while (at > 0 && letters[at - 1] == 'z') letters[--at] = 'a';
    if (at == 0) return;
    ++letters[at - 1];
  }
}

}  // namespace

Result<std::string> MakeTokenizerModel(uint32_t vocab_size) {
  if (vocab_size < kMinPieces || vocab_size > kMaxPieces) {
    return InvalidArgument("a tokenizer of ", vocab_size, " pieces, expected ",
                           kMinPieces, " to ", kMaxPieces);
  }
  std::vector<std::string> singles = {std::string(kSpace)};
  for (char c = 'a'; c <= 'z'; ++c) singles.emplace_back(1, c);
  for (char c = '!'; c <= '~'; ++c) {
    if (c < 'a' || c > 'z') singles.emplace_back(1, c);
  }
  const size_t num_normal = vocab_size - kNumFixedPieces;
  singles.resize(std::min(singles.size(), num_normal));
  const size_t num_runs = std::min(kMaxSpaces - 1, num_normal - singles.size());
  Merges merges(num_normal - singles.size() - num_runs);
  AddPartsOfWords(merges);
  for (const int num_letters : {2, 3, 4}) {
    AddLetters("", num_letters, merges);
    AddLetters(kSpace, num_letters - 1, merges);
  }

  std::string out;
  out.reserve(size_t{vocab_size} * 20);
  AppendPiece("<unk>", 0, PieceKind::kUnknown, out);
  AppendPiece("<s>", 0, PieceKind::kControl, out);
  AppendPiece("</s>", 0, PieceKind::kControl, out);
  for (int byte = 0; byte < 256; ++byte) {
    AppendPiece(fmt::format("<0x{:02X}>", byte), 0, PieceKind::kByte, out);
  }
  uint32_t rank = 0;
  for (size_t i = 0; i < num_runs; ++i, ++rank) {
    std::string spaces;
    for (size_t j = 0; j < i + 2; ++j) spaces += kSpace;
    AppendPiece(spaces, kSpacesScore, PieceKind::kNormal, out);
  }
  const auto append_all = [&](const std::vector<std::string>& texts) {
    for (const std::string& text : texts) {
      AppendPiece(text, -static_cast<float>(rank++), PieceKind::kNormal, out);
    }
  };
  append_all(merges.texts());
  append_all(singles);
  std::string trainer;
  AppendNumber(3, 2, trainer);  // BPE.
  AppendNumber(4, vocab_size, trainer);
  AppendNumber(25, 1, trainer);  // Digits are split.
  AppendNumber(35, 1, trainer);  // Byte fallback.
  AppendBytes(2, trainer, out);
  std::string normalizer;
  AppendBytes(1, "identity", normalizer);
  AppendNumber(3, 1, normalizer);  // Dummy prefix.
  AppendNumber(4, 0, normalizer);  // Extra whitespace stays.
  AppendNumber(5, 1, normalizer);  // Spaces are escaped.
  AppendBytes(3, normalizer, out);
  return out;
}

}  // namespace flashelm
