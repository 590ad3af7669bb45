#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "core/tokenizer.h"
#include "tests/core/vocabulary.h"

namespace flashelm {
namespace {

std::string ReadFile(const std::string& path) {
  std::ifstream file(std::string(FLASHELM_SOURCE_DIR "/") + path,
                     std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

Tokenizer Parse(const std::string& bytes) {
  auto tokenizer = Tokenizer::Parse(bytes, "test");
  if (!tokenizer) {
    ADD_FAILURE() << tokenizer.error().message();
    std::abort();
  }
  return std::move(*tokenizer);
}

// Seconds of the faster of two runs.
double EncodeSeconds(const Tokenizer& tokenizer, const std::string& text) {
  double best = 1e9;
  for (int i = 0; i < 2; ++i) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_FALSE(tokenizer.Encode(text, true).empty());
    const std::chrono::duration<double> seconds =
        std::chrono::steady_clock::now() - start;
    best = std::min(best, seconds.count());
  }
  return best;
}

TEST(TokenizerTimeTest, GrowsAboutLinearlyWithAnyText) {
  const Tokenizer sample =
      Parse(ReadFile("models/tiny-stories/tokenizer.model"));
  const Tokenizer whole = Parse(InteriorSpaceVocabulary().Serialize());
  const Tokenizer llama = Parse(
      LlamaLikeVocabulary(ReadFile("tests/data/stories.txt")).Serialize());
  constexpr size_t kSize = size_t{1} << 20;
  std::mt19937 random(5);
  std::string letters;
  for (size_t i = 0; i < kSize; ++i) letters += "etaonhisrd"[random() % 10];
  std::string ordinary = ReadFile("tests/data/stories.txt");
  while (ordinary.size() < kSize) ordinary += ordinary;
  ordinary.resize(kSize);
  const struct {
    const char* name;
    const Tokenizer* tokenizer;
    std::string text;
  } kCases[] = {
      {"ordinary", &sample, ordinary},
      {"ordinary_whole", &whole, ordinary},
      {"ordinary_llama", &llama, ordinary},
      {"letters", &sample, letters},
      {"letters_llama", &llama, letters},
      {"one_letter", &sample, std::string(kSize, 'a')},
      {"spaces_llama", &llama, std::string(kSize, ' ')},
      {"invalid", &sample, std::string(kSize, '\xF0')},
  };
  for (const auto& test : kCases) {
    // 16 times the text: n log n says up to 20, plus caches; n^2 says 256.
    double ratio = 0;
    for (int attempt = 0; attempt < 5; ++attempt) {
      const double small =
          EncodeSeconds(*test.tokenizer, test.text.substr(0, kSize / 16));
      const double large = EncodeSeconds(*test.tokenizer, test.text);
      ratio = large / small;
      RecordProperty(std::string(test.name) + "_ms",
                     std::to_string(large * 1000));
      if (ratio < 50) break;
    }
    EXPECT_LT(ratio, 50) << test.name;
  }
}

}  // namespace
}  // namespace flashelm
