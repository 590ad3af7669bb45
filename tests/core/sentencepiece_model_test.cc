#include "core/sentencepiece_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/tokenizer.h"
#include "tests/core/vocabulary.h"

namespace flashelm {
namespace {

constexpr auto kDataLoss = StatusCode::kDataLoss;
constexpr auto kUnimplemented = StatusCode::kUnimplemented;

std::string ReadSample() {
  std::ifstream file(FLASHELM_SOURCE_DIR "/models/tiny-stories/tokenizer.model",
                     std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The tiny vocabulary after `change`.
std::string Changed(const std::function<void(Vocabulary&)>& change) {
  Vocabulary vocabulary = TinyVocabulary();
  change(vocabulary);
  return vocabulary.Serialize();
}

// The tiny vocabulary and one more top-level field.
std::string With(const std::string& field) {
  return TinyVocabulary().Serialize() + field;
}

struct MalformedCase {
  const char* name;
  std::string bytes;
  StatusCode code;
  const char* message;  // A part of it.
};

std::vector<MalformedCase> MalformedCases() {
  const auto trainer = [](const std::string& field) {
    return Changed([&](Vocabulary& v) { v.trainer = field; });
  };
  const auto normalizer = [](const std::string& field) {
    return Changed([&](Vocabulary& v) { v.normalizer = field; });
  };
  // Piece 259 of the tiny vocabulary is "ab".
  const auto text = [](const std::string& piece) {
    return Changed([&](Vocabulary& v) { v.pieces[259].text = piece; });
  };
  const auto type = [](size_t id, int piece_type) {
    return Changed([=](Vocabulary& v) { v.pieces[id].type = piece_type; });
  };
  const auto score = [](float value) {
    return Changed([=](Vocabulary& v) { v.pieces[259].score = value; });
  };
  const std::string ten_ff(10, '\xFF');
  const uint64_t minus_one = UINT64_MAX;
  return {
      {"Empty", "", kDataLoss, "no pieces"},
      {"Text", "this is no model", kDataLoss, "wire type"},
      {"Zeros", std::string(64, '\0'), kDataLoss, "field number 0"},
      {"FieldNumberZero", With(Tag(0, 0) + "\1"), kDataLoss, "field number 0"},
      {"FieldNumberTooLarge", With(Tag(uint64_t{1} << 29, 0) + "\1"), kDataLoss,
       "field number 536870912"},
      {"TagOf11Bytes", With(ten_ff + "\1"), kDataLoss, "longer than 64 bits"},
      {"TagOver64Bits", With(std::string(9, '\xFF') + "\x02"), kDataLoss,
       "longer than 64 bits"},
      {"OverlongLength", With(Tag(9, 2) + ten_ff), kDataLoss,
       "longer than 64 bits"},
      {"LengthPastTheEnd", With(Tag(9, 2) + Varint(6) + "12345"), kDataLoss,
       "found length 6 of field 9, expected at most the 5"},
      {"Length2To63", With(Tag(9, 2) + Varint(uint64_t{1} << 63)), kDataLoss,
       "found length 9223372036854775808"},
      {"Length2To64Minus1", With(Tag(1, 2) + Varint(UINT64_MAX)), kDataLoss,
       "found length 18446744073709551615"},
      {"InnerLengthPastTheMessage",
       With(BytesField(1, Tag(1, 2) + Varint(3) + "ab") + "cccc"), kDataLoss,
       "found length 3 of field 1, expected at most the 2"},
      {"ShortFixed32", With(Tag(9, 5) + "123"), kDataLoss, "found 3 bytes"},
      {"ShortFixed64", With(Tag(9, 1) + "1234567"), kDataLoss, "found 7 bytes"},
      {"GroupStart", With(Tag(9, 3)), kDataLoss, "wire type 3"},
      {"GroupEnd", With(Tag(9, 4)), kDataLoss, "wire type 4"},
      {"WireType6", With(Tag(9, 6)), kDataLoss, "wire type 6"},
      {"WireType7", With(Tag(9, 7)), kDataLoss, "wire type 7"},
      {"PieceAsNumber", With(NumberField(1, 5)), kDataLoss, "wire type 0"},
      {"PieceTextAsNumber", With(BytesField(1, NumberField(1, 5))), kDataLoss,
       "piece's text"},
      {"ScoreAsNumber",
       With(BytesField(1, BytesField(1, "x") + NumberField(2, 5))), kDataLoss,
       "piece's score"},
      {"TypeAsBytes",
       With(BytesField(1, BytesField(1, "x") + BytesField(3, "5"))), kDataLoss,
       "piece's type"},
      {"TrainerSettingAsBytes", trainer(BytesField(35, "1")), kDataLoss,
       "trainer setting"},
      {"NormalizerSettingAsNumber", normalizer(NumberField(1, 1)), kDataLoss,
       "normalizer setting"},
      {"EmptyPiece", text(""), kDataLoss, "found 0 bytes of text in piece 259"},
      {"PieceWithoutText", With(BytesField(1, "")), kDataLoss,
       "found 0 bytes of text in piece 265"},
      {"HugePiece", text(std::string(kMaxPieceBytes + 1, 'x')), kDataLoss,
       "found 1025 bytes"},
      {"TruncatedUtf8Piece", text("\xE2\x96"), kDataLoss, "invalid UTF-8"},
      {"OverlongUtf8Piece", text("\xC0\x80"), kDataLoss, "invalid UTF-8"},
      {"SurrogatePiece", text("\xED\xA0\x80"), kDataLoss, "invalid UTF-8"},
      {"DuplicatePiece", text("ba"), kDataLoss,
       "found piece 260 with the text of piece 259"},
      {"PieceNamedLikeControl", text("</s>"), kDataLoss,
       "with the text of piece 2"},
      {"NanScore", score(std::nanf("")), kDataLoss, "found score nan"},
      {"InfiniteScore", score(-std::numeric_limits<float>::infinity()),
       kDataLoss, "found score -inf"},
      {"UserDefinedPiece", type(259, 4), kUnimplemented, "user-defined"},
      {"UnusedPiece", type(259, 5), kUnimplemented, "unused"},
      {"PieceType0", type(259, 0), kDataLoss, "found type 0"},
      {"PieceType7", type(259, 7), kDataLoss, "found type 7"},
      {"MissingByte", type(3 + 0x41, 1), kDataLoss, "no piece for byte 65"},
      {"BadByteName",
       With(BytesField(1, BytesField(1, "<0x1G>") + NumberField(3, 6))),
       kDataLoss, "another name on byte piece 265"},
      {"LowerCaseByteName",
       With(BytesField(1, BytesField(1, "<0x0a>") + NumberField(3, 6))),
       kDataLoss, "another name on byte piece 265"},
      {"DuplicateByte",
       With(BytesField(1, BytesField(1, "<0x0A>") + NumberField(3, 6))),
       kDataLoss, "with the text of piece 13"},
      {"TwoUnknownPieces", type(259, 2), kDataLoss,
       "another unknown piece with id 259"},
      {"NoUnknownPiece", type(0, 1), kDataLoss, "expected the unknown piece"},
      {"UnknownIdElsewhere", trainer(NumberField(40, 5)), kDataLoss,
       "another unknown piece with id 0"},
      {"UnknownIdOutOfRange", trainer(NumberField(40, 265)), kDataLoss,
       "found unknown id 265, expected 0 to 264"},
      {"BosIdOutOfRange", trainer(NumberField(41, 265)), kDataLoss,
       "found BOS id 265"},
      {"BosIdHuge", trainer(NumberField(41, uint64_t{1} << 63)), kDataLoss,
       "found BOS id -9223372036854775808"},
      {"EosIdWraps32Bits", trainer(NumberField(42, (uint64_t{1} << 32) + 2)),
       kDataLoss, "found EOS id 4294967298"},
      {"BosNotControl", trainer(NumberField(41, 259)), kDataLoss,
       "expected BOS, a control piece"},
      {"EosNotControl", trainer(NumberField(42, 259)), kDataLoss,
       "expected EOS, a control piece"},
      {"NoBos", trainer(NumberField(41, minus_one)), kUnimplemented,
       "no BOS piece"},
      {"NoEos", trainer(NumberField(42, minus_one)), kUnimplemented,
       "no EOS piece"},
      {"Unigram", trainer(NumberField(3, 1)), kUnimplemented,
       "found model type 1, expected 2 (BPE)"},
      {"NoByteFallback", trainer(NumberField(35, 0)), kUnimplemented,
       "byte fallback"},
      {"SpaceAsSuffix", trainer(NumberField(24, 1)), kUnimplemented, "suffix"},
      {"Charsmap", normalizer(BytesField(2, "map")), kUnimplemented,
       "expected \"identity\""},
      {"OtherNormalizer", normalizer(BytesField(1, "nmt_nfkc")), kUnimplemented,
       "expected \"identity\""},
      {"NormalizerRules", normalizer(BytesField(6, "41\t42")), kUnimplemented,
       "expected \"identity\""},
      {"RemovesExtraSpaces", normalizer(NumberField(4, 1)), kUnimplemented,
       "extra spaces"},
      {"NoDummyPrefix", normalizer(NumberField(3, 0)), kUnimplemented,
       "dummy prefix"},
      {"SpacesNotEscaped", normalizer(NumberField(5, 0)), kUnimplemented,
       "escaped"},
      {"Denormalizer", With(BytesField(5, BytesField(2, "map"))),
       kUnimplemented, "denormalizer"},
  };
}

TEST(SentencePieceModelTest, SaysWhatIsWrongWithMalformedFiles) {
  for (const MalformedCase& test : MalformedCases()) {
    SCOPED_TRACE(test.name);
    const auto result = Tokenizer::Parse(test.bytes, "some/path");
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code(), test.code) << result.error().message();
    EXPECT_EQ(result.error().message().rfind("some/path: ", 0), 0u)
        << result.error().message();
    EXPECT_NE(result.error().message().find(test.message), std::string::npos)
        << result.error().message();
  }
}

TEST(SentencePieceModelTest, RefusesAFileCutAnywhere) {
  const std::string bytes = TinyVocabulary().Serialize();
  ASSERT_TRUE(Tokenizer::Parse(bytes, "tiny"));
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::string cut = bytes.substr(0, size);
    const auto result = Tokenizer::Parse(cut, "tiny");
    ASSERT_FALSE(result) << size;
    EXPECT_TRUE(result.error().code() == kDataLoss ||
                result.error().code() == kUnimplemented)
        << result.error().message();
  }
}

TEST(SentencePieceModelTest, SkipsFieldsItDoesNotKnow) {
  const std::string unknown = NumberField(200, UINT64_MAX) +
                              BytesField(201, "xyz") + FloatField(202, 1.0f) +
                              Tag(203, 1) + "12345678" +
                              BytesField(536870911, "last number");
  const std::string bytes =
      unknown + Changed([&](Vocabulary& v) {
        v.trainer = unknown;
        v.normalizer = unknown;
      }) +
      BytesField(1, unknown + BytesField(1, "zz") + unknown) + unknown;
  const auto tokenizer = Tokenizer::Parse(bytes, "tiny");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  EXPECT_EQ(tokenizer->vocab_size(), 266u);
  EXPECT_EQ(tokenizer->piece(265), "zz");
}

TEST(SentencePieceModelTest, AcceptsTheLongestPieceAndDefaults) {
  const auto tokenizer =
      Tokenizer::Parse(Changed([](Vocabulary& v) {
                         v.pieces[259].text = std::string(kMaxPieceBytes, 'x');
                         v.normalizer = BytesField(1, "") + BytesField(2, "");
                       }) + BytesField(5, NumberField(3, 0)),
                       "tiny");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  EXPECT_EQ(tokenizer->longest_piece_bytes(), kMaxPieceBytes);
}

TEST(SentencePieceModelTest, RefusesTheFirstPieceOverTheLimit) {
  // Two bytes each would be enough to ask for memory; their text is checked as
  // they are counted, so they have some.
  std::string bytes;
  for (uint32_t i = 0; i <= kMaxPieces; ++i) bytes += "\x0A\x03\x0A\x01x";
  const auto model = SentencePieceModel::Open(bytes, "large");
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code(), kDataLoss);
  EXPECT_NE(model.error().message().find("at most 1000000"), std::string::npos);
}

TEST(SentencePieceModelTest, RefusesPiecesMadeToCollide) {
  // Texts whose hash, FNV-1a folded to 32 bits, ends in 11 zero bits: one slot
  // for all of them, in a table of 2048 for 565 pieces.
  const auto hash = [](const std::string& text) {
    uint64_t value = 0xCBF29CE484222325;
    for (const char c : text) {
      value = (value ^ static_cast<unsigned char>(c)) * 0x100000001B3;
    }
    return value ^ (value >> 32);
  };
  Vocabulary vocabulary = TinyVocabulary();
  for (int i = 0; vocabulary.pieces.size() < 565; ++i) {
    const std::string text = "piece " + std::to_string(i);
    if (hash(text) % 2048 == 0) vocabulary.Add(text);
  }
  const auto result = Tokenizer::Parse(vocabulary.Serialize(), "hostile");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), kDataLoss);
  EXPECT_NE(result.error().message().find("collide"), std::string::npos)
      << result.error().message();
}

TEST(SentencePieceModelTest, RandomBytesGiveAnError) {
  std::mt19937 random(3);
  for (int i = 0; i < 2000; ++i) {
    std::string bytes(random() % 200, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    EXPECT_FALSE(Tokenizer::Parse(bytes, "random"));
  }
}

TEST(SentencePieceModelTest, OneChangedByteGivesAModelOrAnError) {
  const std::string original = ReadSample();
  ASSERT_TRUE(Tokenizer::Parse(original, "sample"));
  std::mt19937 random(4);
  int num_models = 0;
  for (int i = 0; i < 2000; ++i) {
    std::string bytes = original;
    bytes[random() % bytes.size()] = static_cast<char>(random());
    const auto tokenizer = Tokenizer::Parse(bytes, "sample");
    if (!tokenizer) {
      EXPECT_TRUE(tokenizer.error().code() == kDataLoss ||
                  tokenizer.error().code() == kUnimplemented);
      continue;
    }
    ++num_models;
    const std::string text = "Once upon a time, there was 1 \xF0\x9F\x98\x80.";
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text, true)), text);
  }
  EXPECT_GT(num_models, 0);
}

}  // namespace
}  // namespace flashelm
