#include "core/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "core/utf8.h"
#include "tests/core/allocation_counter.h"
#include "tests/core/vocabulary.h"
#include "tests/stored_answers.h"

#ifdef FLASHELM_HAS_SENTENCEPIECE
#include <sentencepiece_processor.h>
#endif

namespace flashelm {
namespace {

using Ids = std::vector<TokenId>;

constexpr const char* kModels[] = {"tiny-stories", "tiny-stories-relu"};

std::string ReadFile(const std::string& path) {
  std::ifstream file(std::string(FLASHELM_SOURCE_DIR "/") + path,
                     std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string SampleModel() {
  return ReadFile("models/tiny-stories/tokenizer.model");
}

const std::string& LlamaLikeModel() {
  static const std::string* const model =
      new std::string(LlamaLikeVocabulary(ReadFile("tests/data/stories.txt") +
                                          ReadFile("tests/data/books.txt"))
                          .Serialize());
  return *model;
}

Tokenizer Parse(const std::string& bytes) {
  auto tokenizer = Tokenizer::Parse(bytes, "test");
  if (!tokenizer) {
    ADD_FAILURE() << tokenizer.error().message();
    std::abort();
  }
  return std::move(*tokenizer);
}

Tokenizer Sample() { return Parse(SampleModel()); }

// The pieces of the ids, with '|' in between and '_' for U+2581.
std::string Pieces(const Tokenizer& tokenizer, const Ids& ids) {
  std::string out;
  for (const TokenId id : ids) {
    if (!out.empty()) out += '|';
    std::string_view piece = tokenizer.piece(id);
    while (!piece.empty()) {
      const bool is_space = piece.substr(0, kUnderline.size()) == kUnderline;
      out += is_space ? '_' : piece[0];
      piece.remove_prefix(is_space ? kUnderline.size() : 1);
    }
  }
  return out;
}

std::string Segment(const Tokenizer& tokenizer, std::string_view text) {
  return Pieces(tokenizer, tokenizer.Encode(text, /*add_bos=*/false));
}

// Text with what may be difficult: words, parts of pieces, every kind of code
// point, runs of spaces, digits, control characters, U+2581 and, if asked for,
// invalid UTF-8 of every kind.
class RandomText {
 public:
  RandomText(const Tokenizer& tokenizer, uint32_t seed, bool only_valid)
      : tokenizer_(tokenizer), random_(seed), only_valid_(only_valid) {}

  std::string Next() {
    std::string text;
    const uint32_t num_parts = Below(12);
    for (uint32_t i = 0; i < num_parts; ++i) AddPart(text);
    return text;
  }

 private:
  uint32_t Below(uint32_t limit) {
    return static_cast<uint32_t>(random_() % limit);
  }

  void AddCodePoint(std::string& text, uint32_t code) {
    if (code >= 0xD800 && code < 0xE000) code = 0xFFFD;
    if (code == 0x2581) code = 0x2582;  // Has its own part.
    if (code < 0x80) {
      text += static_cast<char>(code);
    } else if (code < 0x800) {
      text += static_cast<char>(0xC0 | code >> 6);
      text += static_cast<char>(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
      text += static_cast<char>(0xE0 | code >> 12);
      text += static_cast<char>(0x80 | (code >> 6 & 0x3F));
      text += static_cast<char>(0x80 | (code & 0x3F));
    } else {
      text += static_cast<char>(0xF0 | code >> 18);
      text += static_cast<char>(0x80 | (code >> 12 & 0x3F));
      text += static_cast<char>(0x80 | (code >> 6 & 0x3F));
      text += static_cast<char>(0x80 | (code & 0x3F));
    }
  }

  void AddPart(std::string& text) {
    static const std::string kInvalid[] = {
        "\xE2\x96",
        "\xE2",
        "\xF0\x9F\x98",
        "\xF0\x9F",
        "\xC3",
        "\xC0\x80",
        "\xC1\xBF",
        "\xE0\x80\x80",
        "\xE0\x9F\xBF",
        "\xF0\x80\x80\x80",
        "\xF0\x8F\xBF\xBF",
        "\xED\xA0\x80",
        "\xED\xBF\xBF",
        "\xED\xA0\xBD\xED\xB8\x80",
        "\xF4\x90\x80\x80",
        "\xF5\x80\x80\x80",
        "\xF7\xBF\xBF\xBF",
        "\xF8\x88\x80\x80\x80",
        "\xFE",
        "\xFF",
        "\x80",
        "\xBF\x80",
        "\xE2\x96 ",
        "\xF0\x9F\x98 \xF0",
    };
    static const char* const kWords[] = {"Once", "upon", "a",    "time",
                                         "the",  "Lily", "</s>", "<0x0A>",
                                         "it's", "e.g.", "HELLO"};
    switch (Below(only_valid_ ? 10 : 13)) {
      case 0:
      case 1:
        text += kWords[Below(std::size(kWords))];
        text += ' ';
        break;
      case 2: {
        std::string piece(tokenizer_.piece(Below(tokenizer_.vocab_size())));
        for (size_t at; (at = piece.find(kUnderline)) != std::string::npos;) {
          piece.replace(at, kUnderline.size(), " ");
        }
        text += piece;
        break;
      }
      case 3:
        AddCodePoint(text, Below(0x800));
        break;
      case 4:
        AddCodePoint(text, Below(0x10000));
        break;
      case 5:
        AddCodePoint(text, 0x10000 + Below(0x100000));
        break;
      case 6:
        text.append(Below(20), ' ');
        break;
      case 7:
        for (uint32_t i = Below(6); i > 0; --i) {
          text += static_cast<char>('0' + Below(10));
        }
        break;
      case 8:
        text += static_cast<char>(Below(32));
        break;
      case 9:
        for (uint32_t i = Below(30); i > 0; --i) text += "ab bae"[Below(6)];
        break;
      case 10:
        text += kUnderline;
        break;
      case 11:
        text += kInvalid[Below(std::size(kInvalid))];
        break;
      default:
        text += static_cast<char>(Below(256));
        break;
    }
  }

  const Tokenizer& tokenizer_;
  std::mt19937 random_;
  bool only_valid_;
};

Ids RandomIds(const Tokenizer& tokenizer, std::mt19937& random) {
  Ids ids(random() % 20);
  for (TokenId& id : ids) {
    // Mostly bytes, and mostly those that continue something.
    switch (random() % 4) {
      case 0:
        id = static_cast<TokenId>(random() % tokenizer.vocab_size());
        break;
      case 1:
        id = static_cast<TokenId>(random() % 259);
        break;
      default: {
        static const unsigned char kBytes[] = {
            0xE2, 0x96, 0x81, 0xF0, 0x9F, 0x98, 0x80, 0xC3, 0xA9, 0xED,
            0xA0, 0xE0, 0xF4, 0x90, 0x8F, 0xBF, 0x20, 0x41, 0xC0, 0xFF};
        id = 3u + kBytes[random() % std::size(kBytes)];
      }
    }
  }
  return ids;
}

TEST(TokenizerTest, AgreesWithTheGoldenRuns) {
  for (const char* model : kModels) {
    SCOPED_TRACE(model);
    const std::string folder = std::string("models/") + model;
    const Tokenizer tokenizer = Parse(ReadFile(folder + "/tokenizer.model"));
    const auto golden =
        nlohmann::json::parse(ReadFile(folder + "/golden/golden.json"));
    ASSERT_FALSE(golden["prompts"].empty());
    for (const auto& prompt : golden["prompts"]) {
      const auto text = prompt["text"].get<std::string>();
      auto ids = prompt["ids"].get<Ids>();
      EXPECT_EQ(tokenizer.Encode(text, /*add_bos=*/true), ids) << text;
      for (const auto& id : prompt["greedy_ids"]) {
        ids.push_back(id.get<TokenId>());
      }
      EXPECT_EQ(tokenizer.Decode(ids),
                prompt["greedy_text"].get<std::string>());
    }
  }
}

TEST(TokenizerTest, KnowsItsSpecialPieces) {
  const Tokenizer tokenizer = Sample();
  EXPECT_EQ(tokenizer.vocab_size(), 2048u);
  EXPECT_EQ(tokenizer.unk_id(), 0u);
  EXPECT_EQ(tokenizer.bos_id(), 1u);
  EXPECT_EQ(tokenizer.eos_id(), 2u);
  EXPECT_FALSE(tokenizer.IsControl(0));
  EXPECT_TRUE(tokenizer.IsControl(1));
  EXPECT_TRUE(tokenizer.IsControl(2));
  EXPECT_FALSE(tokenizer.IsControl(3));
  EXPECT_EQ(tokenizer.piece(13), "<0x0A>");
  EXPECT_EQ(tokenizer.piece(259), "he");
}

TEST(TokenizerTest, AnIdOutOfRangeIsTheUnknownToken) {
  const Tokenizer tokenizer = Sample();
  const std::string surface = " \xE2\x81\x87 ";
  for (const TokenId id : {TokenId{0}, TokenId{2048}, TokenId{UINT32_MAX}}) {
    EXPECT_EQ(tokenizer.Decode(Ids{id}), surface);
    EXPECT_EQ(tokenizer.piece(id), "<unk>");
    EXPECT_FALSE(tokenizer.IsControl(id));
  }
}

TEST(TokenizerTest, EmptyTextIsJustBos) {
  const Tokenizer tokenizer = Sample();
  EXPECT_EQ(tokenizer.Encode("", true), Ids{1});
  EXPECT_EQ(tokenizer.Encode("", false), Ids{});
  EXPECT_EQ(tokenizer.Decode(Ids{1}), "");
  EXPECT_EQ(tokenizer.Decode({}), "");
}

TEST(TokenizerTest, SegmentsALlamaLikeVocabulary) {
  const Tokenizer tokenizer = Parse(LlamaLikeModel());
  EXPECT_EQ(tokenizer.vocab_size(), 32000u);
  const struct {
    std::string_view text;
    const char* pieces;
  } kCases[] = {
      {" ", "__"},
      {"   ", "____"},
      {"1234", "_|1|2|3|4"},
      {"\n", "_|<0x0A>"},
      {"\t\n", "_|<0x09>|<0x0A>"},
      {"\xF0\x9F\x98\x80", "_|<0xF0>|<0x9F>|<0x98>|<0x80>"},
      {std::string_view("\0", 1), "_|<0x00>"},
      {"\xFF", "_|<0xEF>|<0xBF>|<0xBD>"},
      // A space in front of a word joins the word before a run, whose score is
      // the lowest of all.
      {"  Once", "__|_Once"},
      {" upon", "_|_upon"},
  };
  for (const auto& test : kCases) {
    EXPECT_EQ(Segment(tokenizer, test.text), test.pieces) << test.text;
  }
  // 37 U+2581: all runs have one score, so the leftmost pair goes first, again
  // and again, until the run at the left is the longest piece.
  const std::string run(16, '_');
  EXPECT_EQ(Segment(tokenizer, std::string(36, ' ')),
            run + "|" + run + "|_____");
}

TEST(TokenizerTest, MergesTheHighestScoreFirstAndTheLeftmostOnTies) {
  Vocabulary vocabulary = TinyVocabulary();  // ab 0, ba -1, aa -2
  vocabulary.Add("aab", -0.5f);
  const Tokenizer tokenizer = Parse(vocabulary.Serialize());
  EXPECT_EQ(Segment(tokenizer, "aaa"), "_|aa|a");
  EXPECT_EQ(Segment(tokenizer, "aba"), "_|ab|a");
  EXPECT_EQ(Segment(tokenizer, "bab"), "_|b|ab");
  EXPECT_EQ(Segment(tokenizer, "aab"), "_|aab");
  EXPECT_EQ(Segment(tokenizer, "aaab"), "_|a|aab");
  EXPECT_EQ(Segment(tokenizer, "baab"), "_|b|aab");
}

TEST(TokenizerTest, MergesAcrossWordsWhereAPieceDoes) {
  const std::string space(kUnderline);
  Vocabulary vocabulary = TinyVocabulary();
  vocabulary.Add("b" + space, 1.0f);
  vocabulary.Add("b" + space + "a", 2.0f);
  const Tokenizer tokenizer = Parse(vocabulary.Serialize());
  EXPECT_EQ(Segment(tokenizer, "ab ab"), "_|a|b_a|b");
  EXPECT_EQ(Segment(tokenizer, "b  b"), "_|b_|_|b");
}

TEST(TokenizerTest, NamesOfControlPiecesAreOrdinaryText) {
  const Tokenizer tokenizer = Sample();
  const Ids ids = tokenizer.Encode("<s></s><unk><0x0A>", false);
  for (const TokenId id : {0u, 1u, 2u, 13u}) {
    EXPECT_EQ(std::count(ids.begin(), ids.end(), id), 0) << id;
  }
  EXPECT_EQ(tokenizer.Decode(ids), "<s></s><unk><0x0A>");
}

TEST(TokenizerTest, DropsOneLeadingSpaceOnly) {
  const Tokenizer tokenizer = Sample();
  const auto id = [&](std::string_view text) {
    for (TokenId i = 259; i < tokenizer.vocab_size(); ++i) {
      if (tokenizer.piece(i) == text) return i;
    }
    return tokenizer.unk_id();
  };
  const TokenId space = id(kUnderline);
  const TokenId a = id(std::string(kUnderline) + "a");
  EXPECT_EQ(tokenizer.Decode(Ids{a, a}), "a a");
  EXPECT_EQ(tokenizer.Decode(Ids{1, a}), "a");
  EXPECT_EQ(tokenizer.Decode(Ids{space, a}), " a");
  EXPECT_EQ(tokenizer.Decode(Ids{space, 2, a}), " a");
  EXPECT_EQ(tokenizer.Decode(Ids{3 + 'x', a}), "x a");
  EXPECT_EQ(tokenizer.Decode(Ids{3 + ' ', a}), "  a");
  // The bytes of U+2581 are that character, not a space.
  EXPECT_EQ(tokenizer.Decode(Ids{3 + 0xE2, 3 + 0x96, 3 + 0x81}), kUnderline);
  // A control token ends a run of bytes.
  EXPECT_EQ(tokenizer.Decode(Ids{3 + 0xC3, 2, 3 + 0xA9}),
            "\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(TokenizerTest, ValidTextComesBackUnchanged) {
  for (const std::string& model :
       {SampleModel(), InteriorSpaceVocabulary().Serialize()}) {
    const Tokenizer tokenizer = Parse(model);
    RandomText random(tokenizer, 1, /*only_valid=*/true);
    for (int i = 0; i < 20000; ++i) {
      const std::string text = random.Next();
      ASSERT_EQ(tokenizer.Decode(tokenizer.Encode(text, true)), text);
    }
  }
}

TEST(TokenizerTest, EncodesFromSeveralThreadsAtOnce) {
  const Tokenizer tokenizer = Sample();
  const std::string text = ReadFile("tests/data/stories.txt").substr(0, 20000);
  const Ids expected = tokenizer.Encode(text, true);
  std::vector<Ids> results(4);
  std::vector<std::thread> threads;
  for (Ids& result : results) {
    threads.emplace_back([&] { result = tokenizer.Encode(text, true); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Ids& result : results) EXPECT_EQ(result, expected);
}

// Memory.

// What Parse may take, from the size of the file.
uint64_t MostBytes(uint64_t model_bytes) {
  return 6 * model_bytes + (uint64_t{32} << 10);
}

TEST(TokenizerMemoryTest, ParseTakesNoMoreThanWhatItMakes) {
  for (const std::string& model :
       {SampleModel(), LlamaLikeModel(), TinyVocabulary().Serialize(),
        InteriorSpaceVocabulary().Serialize()}) {
    const AllocationCounter counter;
    const Tokenizer tokenizer = Parse(model);
    const uint64_t peak = counter.peak_bytes() + sizeof(Tokenizer);
    EXPECT_EQ(peak, tokenizer.memory_bytes());
    EXPECT_LE(peak, MostBytes(model.size()));
  }
}

TEST(TokenizerMemoryTest, SoItDoesForTheDensestFile) {
  // Every code point from U+0021 on, with no more than its text.
  std::string model = Vocabulary().Serialize();
  uint32_t num_pieces = 259;
  for (uint32_t code = 0x21; num_pieces < 66000; ++code) {
    std::string text;
    if (code < 0x80) {
      text += static_cast<char>(code);
    } else if (code < 0x800) {
      text = {static_cast<char>(0xC0 | code >> 6),
              static_cast<char>(0x80 | (code & 0x3F))};
    } else if (code < 0x10000) {
      if (code >= 0xD800 && code < 0xE000) continue;
      text = {static_cast<char>(0xE0 | code >> 12),
              static_cast<char>(0x80 | (code >> 6 & 0x3F)),
              static_cast<char>(0x80 | (code & 0x3F))};
    } else {
      text = {static_cast<char>(0xF0 | code >> 18),
              static_cast<char>(0x80 | (code >> 12 & 0x3F)),
              static_cast<char>(0x80 | (code >> 6 & 0x3F)),
              static_cast<char>(0x80 | (code & 0x3F))};
    }
    model += BytesField(1, BytesField(1, text));
    ++num_pieces;
  }
  const AllocationCounter counter;
  const Tokenizer tokenizer = Parse(model);
  EXPECT_EQ(tokenizer.vocab_size(), num_pieces);
  EXPECT_EQ(counter.peak_bytes() + sizeof(Tokenizer), tokenizer.memory_bytes());
  EXPECT_LE(tokenizer.memory_bytes(), MostBytes(model.size()));
}

TEST(TokenizerMemoryTest, EncodeTakesWhatItSays) {
  const Tokenizer sample = Sample();
  const Tokenizer whole = Parse(InteriorSpaceVocabulary().Serialize());
  RandomText random(sample, 2, /*only_valid=*/false);
  std::vector<std::string> texts = {"",
                                    "a",
                                    std::string(5000, 'a'),
                                    std::string(5000, ' '),
                                    std::string(3000, '\xF0'),
                                    ReadFile("tests/data/stories.txt")};
  for (int i = 0; i < 300; ++i) texts.push_back(random.Next());
  for (const Tokenizer* tokenizer : {&sample, &whole}) {
    for (const std::string& text : texts) {
      const size_t count = tokenizer->CountTokens(text, true);
      const uint64_t scratch = tokenizer->EncodeScratchBytes(text);
      const AllocationCounter counter;
      const Ids ids = tokenizer->Encode(text, true);
      EXPECT_EQ(counter.peak_bytes(), scratch + count * sizeof(TokenId));
      EXPECT_EQ(ids.size(), count);
      EXPECT_EQ(ids.capacity(), count);
    }
  }
  const std::string stories = ReadFile("tests/data/stories.txt");
  EXPECT_LE(sample.EncodeScratchBytes(stories), 4096u);
}

// Streaming.

TEST(StreamDecoderTest, SaysWhatDecodeSaysInWholeCodePoints) {
  const Tokenizer tokenizer = Sample();
  std::mt19937 random(6);
  for (int i = 0; i < 20000; ++i) {
    const Ids ids = RandomIds(tokenizer, random);
    StreamDecoder decoder(tokenizer, /*at_start=*/true);
    std::string text;
    for (const TokenId id : ids) {
      const std::string_view part = decoder.Push(id);
      ASSERT_TRUE(IsValidUtf8(part));
      text += part;
    }
    const std::string_view tail = decoder.Finish();
    ASSERT_TRUE(IsValidUtf8(tail));
    text += tail;
    ASSERT_EQ(text, tokenizer.Decode(ids));
    ASSERT_EQ(decoder.Finish(), "");
  }
}

TEST(StreamDecoderTest, ReturnsTextAsSoonAsItIsKnown) {
  const Tokenizer tokenizer = Sample();
  StreamDecoder decoder(tokenizer, /*at_start=*/true);
  const auto push = [&](unsigned char byte) {
    return std::string(decoder.Push(TokenId{3} + byte));
  };
  const std::string bad(kReplacementCharacter);
  EXPECT_EQ(push('a'), "a");
  EXPECT_EQ(push(0xF0), "");
  EXPECT_EQ(push(0x9F), "");
  EXPECT_EQ(push(0x98), "");
  EXPECT_EQ(push(0x80), "\xF0\x9F\x98\x80");
  EXPECT_EQ(push(0x80), bad);        // Continues nothing.
  EXPECT_EQ(push(0xC0), bad);        // Begins nothing.
  EXPECT_EQ(push(0xE0), "");         // May go on with A0...
  EXPECT_EQ(push(0x80), bad + bad);  // ...but not with 80.
  EXPECT_EQ(push(0xF0), "");
  EXPECT_EQ(push(0x90), "");
  EXPECT_EQ(push(0x80), "");
  EXPECT_EQ(push('b'), bad + bad + bad + "b");
  EXPECT_EQ(push(0xE2), "");
  EXPECT_EQ(push(0xE2), bad);  // The second may still go on.
  EXPECT_EQ(decoder.Finish(), bad);
  EXPECT_EQ(push(0xC3), "");
  EXPECT_EQ(decoder.Push(2), bad);  // EOS ends the run of bytes.
}

TEST(StreamDecoderTest, KeepsTheFirstSpaceWhenItContinuesAText) {
  const Tokenizer tokenizer = Sample();
  const Ids ids = tokenizer.Encode("time", false);
  std::string at_start, later;
  StreamDecoder first(tokenizer, /*at_start=*/true);
  StreamDecoder second(tokenizer, /*at_start=*/false);
  for (const TokenId id : ids) {
    at_start += first.Push(id);
    later += second.Push(id);
  }
  EXPECT_EQ(at_start, "time");
  EXPECT_EQ(later, " time");
}

TEST(StreamDecoderTest, AllocatesNothingPerToken) {
  Vocabulary vocabulary = TinyVocabulary();
  const std::string longest(kMaxPieceBytes, 'x');
  vocabulary.Add(longest);
  const Tokenizer tokenizer = Parse(vocabulary.Serialize());
  const TokenId longest_id = tokenizer.vocab_size() - 1;
  StreamDecoder decoder(tokenizer, /*at_start=*/true);
  const AllocationCounter counter;
  for (const TokenId id : {3u + 0xF0, 3u + 0x9F, 3u + 0x98, longest_id, 0u}) {
    decoder.Push(id);
  }
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) decoder.Push(id);
  decoder.Finish();
  EXPECT_EQ(counter.num_allocations(), 0u);
}

// What SentencePiece itself says. It is asked where it is installed, and there
// its answers must be the stored ones; elsewhere those take its place.

#ifdef FLASHELM_HAS_SENTENCEPIECE
class Oracle {
 public:
  explicit Oracle(const std::string& model) {
    EXPECT_TRUE(processor_.LoadFromSerializedProto(model).ok());
  }
  void ExpectEncoded(const std::string& text, const Ids& ids) const {
    std::vector<int> expected;
    ASSERT_TRUE(processor_.Encode(text, &expected).ok());
    ASSERT_EQ(ids, Ids(expected.begin(), expected.end()))
        << testing::PrintToString(text);
  }
  void ExpectDecoded(const Ids& ids, const std::string& text) const {
    std::string expected;
    ASSERT_TRUE(
        processor_.Decode(std::vector<int>(ids.begin(), ids.end()), &expected)
            .ok());
    ASSERT_EQ(text, expected) << testing::PrintToString(ids);
  }
  void ExpectVocabSize(uint32_t size) const {
    EXPECT_EQ(static_cast<uint32_t>(processor_.GetPieceSize()), size);
  }

 private:
  sentencepiece::SentencePieceProcessor processor_;
};
#else
class Oracle {
 public:
  explicit Oracle(const std::string& /*model*/) {}
  void ExpectEncoded(const std::string& /*text*/, const Ids& /*ids*/) const {}
  void ExpectDecoded(const Ids& /*ids*/, const std::string& /*text*/) const {}
  void ExpectVocabSize(uint32_t /*size*/) const {}
};
#endif

void CompareEncode(const std::string& model, uint32_t seed,
                   StoredAnswers& answers) {
  const Tokenizer tokenizer = Parse(model);
  const Oracle oracle(model);
  oracle.ExpectVocabSize(tokenizer.vocab_size());
  RandomText random(tokenizer, seed, /*only_valid=*/false);
  for (int i = 0; i < 20000 && !testing::Test::HasFatalFailure(); ++i) {
    const std::string text = random.Next();
    const Ids ids = tokenizer.Encode(text, /*add_bos=*/false);
    const std::string decoded = tokenizer.Decode(ids);
    oracle.ExpectEncoded(text, ids);
    oracle.ExpectDecoded(ids, decoded);
    answers.Add(ids);
    answers.Add(decoded);
  }
}

void CompareDecode(const std::string& model, uint32_t seed,
                   StoredAnswers& answers) {
  const Tokenizer tokenizer = Parse(model);
  const Oracle oracle(model);
  std::mt19937 random(seed);
  for (int i = 0; i < 20000 && !testing::Test::HasFatalFailure(); ++i) {
    const Ids ids = RandomIds(tokenizer, random);
    const std::string text = tokenizer.Decode(ids);
    oracle.ExpectDecoded(ids, text);
    answers.Add(text);
  }
}

TEST(SentencePieceTest, AgreesOnTheSampleVocabulary) {
  StoredAnswers answers("sentencepiece/sample");
  CompareEncode(SampleModel(), 11, answers);
  answers.ExpectStored();
}

TEST(SentencePieceTest, AgreesOnALlamaLikeVocabulary) {
  StoredAnswers answers("sentencepiece/llama-like");
  CompareEncode(LlamaLikeModel(), 12, answers);
  answers.ExpectStored();
}

TEST(SentencePieceTest, AgreesOnPiecesWithInteriorSpaces) {
  StoredAnswers answers("sentencepiece/interior-spaces");
  CompareEncode(InteriorSpaceVocabulary().Serialize(), 13, answers);
  answers.ExpectStored();
}

TEST(SentencePieceTest, AgreesOnTheTextOfAnyIds) {
  StoredAnswers answers("sentencepiece/any-ids");
  CompareDecode(SampleModel(), 14, answers);
  CompareDecode(InteriorSpaceVocabulary().Serialize(), 15, answers);
  answers.ExpectStored();
}

TEST(SentencePieceTest, AgreesOnLongText) {
  std::string text = ReadFile("tests/data/books.txt");
  text.resize(std::min(text.size(), size_t{200000}));
  StoredAnswers answers("sentencepiece/long-text");
  for (const std::string& model : {SampleModel(), LlamaLikeModel(),
                                   InteriorSpaceVocabulary().Serialize()}) {
    const Ids ids = Parse(model).Encode(text, false);
    Oracle(model).ExpectEncoded(text, ids);
    answers.Add(ids);
  }
  answers.ExpectStored();
}

}  // namespace
}  // namespace flashelm
