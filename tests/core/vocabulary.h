// Makes serialized SentencePiece models for tests.
#ifndef FLASHELM_TESTS_CORE_VOCABULARY_H_
#define FLASHELM_TESTS_CORE_VOCABULARY_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace flashelm {

// U+2581.
inline constexpr std::string_view kUnderline = "\xE2\x96\x81";

// Parts of a protobuf message. `type` is a wire type.
std::string Varint(uint64_t value);
std::string Tag(uint64_t number, int type);
std::string NumberField(uint64_t number, uint64_t value);
std::string BytesField(uint64_t number, std::string_view bytes);
std::string FloatField(uint64_t number, float value);

// A ModelProto piece by piece; fields are public so that a test can damage one.
struct Vocabulary {
  struct Piece {
    std::string text;
    float score = 0.0f;
    int type = 1;
  };
  std::vector<Piece> pieces;
  // Fields of trainer_spec and normalizer_spec, after which come `trainer` and
  // `normalizer`; of a repeated field the last one counts.
  std::string trainer;
  std::string normalizer;

  // <unk>, <s>, </s> and the byte pieces: ids 0 to 258.
  Vocabulary();
  // A normal piece with the id as its rank, as trained models have it.
  void Add(std::string_view text);
  void Add(std::string_view text, float score);
  std::string Serialize() const;
};

// Letters a and b with "ab", "ba", "aa" and U+2581: the smallest useful one.
Vocabulary TinyVocabulary();

// 32,000 pieces in the manner of LLaMA: no piece with two digits, a tab or a
// newline, runs of 2 to 16 U+2581 with score -1e9, single characters last;
// pieces in between are frequent parts of the words of `text`.
Vocabulary LlamaLikeVocabulary(std::string_view text);

// Many equal scores, and pieces with U+2581 in the middle.
Vocabulary InteriorSpaceVocabulary();

}  // namespace flashelm

#endif  // FLASHELM_TESTS_CORE_VOCABULARY_H_
