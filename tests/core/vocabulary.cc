#include "tests/core/vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <map>
#include <random>
#include <set>

namespace flashelm {

std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) {
    out += static_cast<char>((value & 0x7F) | 0x80);
  }
  out += static_cast<char>(value);
  return out;
}

std::string Tag(uint64_t number, int type) {
  return Varint(number << 3 | static_cast<uint64_t>(type));
}

std::string NumberField(uint64_t number, uint64_t value) {
  return Tag(number, 0) + Varint(value);
}

std::string BytesField(uint64_t number, std::string_view bytes) {
  return Tag(number, 2) + Varint(bytes.size()) + std::string(bytes);
}

std::string FloatField(uint64_t number, float value) {
  std::string out = Tag(number, 5);
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  for (int i = 0; i < 4; ++i) out += static_cast<char>(bits >> (8 * i));
  return out;
}

Vocabulary::Vocabulary() {
  pieces = {{"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3}};
  for (int byte = 0; byte < 256; ++byte) {
    pieces.push_back({fmt::format("<0x{:02X}>", byte), 0, 6});
  }
}

void Vocabulary::Add(std::string_view text) {
  Add(text, -static_cast<float>(pieces.size() - 259));
}

void Vocabulary::Add(std::string_view text, float score) {
  pieces.push_back({std::string(text), score, 1});
}

std::string Vocabulary::Serialize() const {
  std::string out;
  for (const Piece& piece : pieces) {
    std::string message =
        BytesField(1, piece.text) + FloatField(2, piece.score);
    if (piece.type != 1) {
      message += NumberField(3, static_cast<uint64_t>(piece.type));
    }
    out += BytesField(1, message);
  }
  out += BytesField(2, NumberField(3, 2) + NumberField(35, 1) + trainer);
  out +=
      BytesField(3, BytesField(1, "identity") + NumberField(4, 0) + normalizer);
  return out;
}

Vocabulary TinyVocabulary() {
  Vocabulary vocabulary;
  for (const char* text : {"ab", "ba", "aa", "\xE2\x96\x81", "a", "b"}) {
    vocabulary.Add(text);
  }
  return vocabulary;
}

Vocabulary LlamaLikeVocabulary(std::string_view text) {
  std::map<std::string, int, std::less<>> counts;
  std::set<std::string, std::less<>> letters = {std::string(kUnderline)};
  for (char c = '!'; c <= '~'; ++c) letters.insert(std::string(1, c));
  std::string word(kUnderline);
  for (const char c : text) {
    if (static_cast<unsigned char>(c) >= 0x80 || c < ' ') continue;
    if (c != ' ') {
      word += c;
      continue;
    }
    // Parts of up to 10 characters, of which U+2581 is one, in front.
    std::vector<size_t> starts = {0};
    for (size_t i = kUnderline.size(); i <= word.size(); ++i) {
      starts.push_back(i);
    }
    for (size_t i = 0; i + 1 < starts.size(); ++i) {
      const size_t end = std::min(starts.size(), i + 11);
      bool has_digit = false;
      for (size_t j = i + 1; j < end; ++j) {
        const char last = word[starts[j] - 1];
        if (last >= '0' && last <= '9') has_digit = true;
        if (has_digit) break;
        if (j > i + 1) {
          ++counts[word.substr(starts[i], starts[j] - starts[i])];
        }
      }
    }
    word = kUnderline;
  }
  std::vector<std::pair<int, std::string>> ranked;
  for (const auto& [part, count] : counts) ranked.emplace_back(-count, part);
  std::sort(ranked.begin(), ranked.end());

  Vocabulary vocabulary;
  size_t run = 2;
  const size_t num_parts = 32000 - 259 - 15 - letters.size();
  for (size_t i = 0; i < num_parts; ++i) {
    if (i % 1000 == 0 && run <= 16) {
      std::string spaces;
      for (size_t j = 0; j < run; ++j) spaces += kUnderline;
      vocabulary.Add(spaces, -1e9f);
      ++run;
    }
    // Rare parts run out on a small text: made-up words take their place.
    vocabulary.Add(i < ranked.size() ? ranked[i].second
                                     : fmt::format("{}~{}~", kUnderline, i));
  }
  for (const std::string& letter : letters) vocabulary.Add(letter);
  return vocabulary;
}

Vocabulary InteriorSpaceVocabulary() {
  const std::vector<std::string> alphabet = {"a", "b", std::string(kUnderline),
                                             "\xC3\xA9"};
  std::mt19937 random(7);
  std::set<std::string> texts;
  while (texts.size() < 150) {
    std::string text;
    const size_t length = 2 + random() % 5;
    for (size_t i = 0; i < length; ++i) text += alphabet[random() % 4];
    texts.insert(text);
  }
  Vocabulary vocabulary;
  for (const std::string& text : texts) {
    vocabulary.Add(text, -static_cast<float>(random() % 4));
  }
  for (const std::string& text : alphabet) vocabulary.Add(text, -9.0f);
  return vocabulary;
}

}  // namespace flashelm
