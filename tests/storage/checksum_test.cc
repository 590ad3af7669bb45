#include "storage/checksum.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "tests/storage/text_bytes.h"

namespace flashelm {
namespace {

using test::TextBytes;

// `printf '%s' abc | xxhsum -H3` and `-H2`.
TEST(ChecksumTest, GivesThePublishedValues) {
  EXPECT_EQ(Xxh3({}), 0x2d06800538d394c2u);
  EXPECT_EQ(Xxh3Low32({}), 0x38d394c2u);
  EXPECT_EQ(Xxh3(TextBytes("abc")), 0x78af5f94892f3950u);
  EXPECT_EQ(Xxh3Low32(TextBytes("abc")), 0x892f3950u);
  Xxh3Stream stream;
  EXPECT_EQ(stream.Digest128Hex(), "99aa06d3014798d86001c324468d497f");
  stream.Update(TextBytes("abc"));
  EXPECT_EQ(stream.Digest128Hex(), "06b05ab6733a618578af5f94892f3950");
}

TEST(ChecksumTest, StreamsGiveTheSameForAnyPieces) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += static_cast<char>(i * 31 % 251);
  // Lengths on both sides of where XXH3 changes its method.
  for (const size_t length :
       {0, 1, 3, 4, 8, 16, 17, 128, 129, 240, 241, 1024, 1025, 5000}) {
    const std::string_view part = std::string_view(text).substr(0, length);
    for (const size_t piece : {1, 7, 64, 300, 5000}) {
      Xxh3Stream stream;
      stream.Update(TextBytes("something before"));
      stream.Reset();
      for (size_t at = 0; at < length; at += piece) {
        stream.Update(TextBytes(part.substr(at, piece)));
      }
      EXPECT_EQ(stream.Digest64(), Xxh3(TextBytes(part)))
          << length << " " << piece;
    }
  }
}

}  // namespace
}  // namespace flashelm
