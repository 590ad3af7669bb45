#include "storage/compression.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <string_view>

#include "tests/storage/text_bytes.h"

namespace flashelm {
namespace {

using test::TextBytes;

std::string RandomText(size_t length) {
  std::mt19937_64 random(5);
  std::string text(length, '\0');
  for (char& c : text) c = static_cast<char>(random() % 16);
  return text;
}

TEST(CompressionTest, GivesBackWhatItTook) {
  for (const size_t length : {0, 1, 1000, 300000}) {
    const std::string text = RandomText(length);
    const auto frame = ZstdCompress(text);
    ASSERT_TRUE(frame);
    const auto back = ZstdDecompress(TextBytes(*frame), length, "x");
    ASSERT_TRUE(back) << back.error().message();
    EXPECT_EQ(*back, text);
  }
}

TEST(CompressionTest, RefusesAnotherSizeThanClaimed) {
  const auto frame = ZstdCompress(RandomText(1000));
  ASSERT_TRUE(frame);
  for (const uint64_t claimed : {0, 1, 999, 1001, 100000}) {
    const auto back = ZstdDecompress(TextBytes(*frame), claimed, "the part");
    ASSERT_FALSE(back) << claimed;
    EXPECT_EQ(back.error().code(), StatusCode::kDataLoss);
    EXPECT_EQ(back.error().message().rfind("the part", 0), 0u);
  }
}

TEST(CompressionTest, RefusesWhatIsNoFrame) {
  const auto frame = ZstdCompress(RandomText(1000));
  ASSERT_TRUE(frame);
  for (size_t length = 0; length < frame->size(); ++length) {
    const auto back = ZstdDecompress(
        TextBytes(std::string_view(*frame).substr(0, length)), 1000, "x");
    ASSERT_FALSE(back) << length;
    EXPECT_EQ(back.error().code(), StatusCode::kDataLoss);
  }
  EXPECT_FALSE(ZstdDecompress(TextBytes(*frame + "x"), 1000, "x"));
  EXPECT_FALSE(ZstdDecompress(TextBytes("not a frame at all"), 18, "x"));
  EXPECT_FALSE(ZstdDecompress({}, 1, "x"));
  EXPECT_TRUE(ZstdDecompress({}, 0, "x"));
}

// No checksum is inside, so a flip may give other bytes: but never more, and
// never a crash.
TEST(CompressionTest, SurvivesEveryFlippedByte) {
  const auto frame = ZstdCompress(RandomText(1000));
  ASSERT_TRUE(frame);
  for (size_t at = 0; at < frame->size(); ++at) {
    std::string damaged = *frame;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x41);
    const auto back = ZstdDecompress(TextBytes(damaged), 1000, "x");
    if (back) {
      EXPECT_EQ(back->size(), 1000u);
    } else {
      EXPECT_EQ(back.error().code(), StatusCode::kDataLoss);
    }
  }
}

}  // namespace
}  // namespace flashelm
