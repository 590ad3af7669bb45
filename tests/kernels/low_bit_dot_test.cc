#include "kernels/low_bit_dot.h"

#include "tests/kernels/kernel_test.h"

namespace flashelm {
namespace {

// Where the header says that the code is.
int CodeAt(unsigned bits, const std::byte* row, size_t k) {
  const size_t block = k / (256 / bits);
  const size_t in_block = k % (256 / bits);
  uint16_t word;
  std::memcpy(&word, row + 32 * block + 2 * (in_block % 16), sizeof(word));
  return word >> (bits * (in_block / 16)) & ((1 << bits) - 1);
}

struct LowBitInputs {
  unsigned bits;
  size_t num_rows;
  size_t num_blocks;
  std::vector<std::byte> rows;
  std::vector<int16_t> a;

  size_t row_bytes() const { return num_blocks * kLowBitBlockBytes; }
  std::vector<int32_t> Expected() const {
    std::vector<int32_t> sums(num_rows);
    for (size_t r = 0; r < num_rows; ++r) {
      for (size_t k = 0; k < a.size(); ++k) {
        sums[r] += CodeAt(bits, rows.data() + r * row_bytes(), k) * a[k];
      }
    }
    return sums;
  }
  std::vector<int32_t> Found() const {
    const GuardedCopy guarded_rows(rows);
    const GuardedCopy guarded_a(a.data(), a.size() * sizeof(a[0]));
    std::vector<int32_t> sums(num_rows + 1, 77);
    LowBitDots(bits, guarded_rows.bytes(), num_rows, num_blocks,
               reinterpret_cast<const int16_t*>(guarded_a.bytes()),
               sums.data());
    EXPECT_EQ(sums.back(), 77);
    sums.pop_back();
    return sums;
  }
};

LowBitInputs RandomInputs(unsigned bits, size_t num_rows, size_t num_blocks,
                          uint32_t seed) {
  std::mt19937 random(seed);
  LowBitInputs in{
      bits, num_rows, num_blocks,
      std::vector<std::byte>(num_rows * num_blocks * kLowBitBlockBytes),
      std::vector<int16_t>(num_blocks * LowBitBlockCodes(bits))};
  for (std::byte& byte : in.rows) byte = static_cast<std::byte>(random());
  for (int16_t& a : in.a) {
    a = static_cast<int16_t>(static_cast<int>(random() % 8191) -
                             kLowBitMaxActivation);
  }
  return in;
}

class LowBitDotsTest : public TargetTest {};
FLASHELM_TEST_ALL_TARGETS(LowBitDotsTest);

TEST_P(LowBitDotsTest, AgreesWithAPlainLoop) {
  for (const unsigned bits : {1u, 2u}) {
    for (const size_t num_rows : {0, 1, 5}) {
      for (const size_t num_blocks : {0, 1, 2, 9}) {
        const LowBitInputs in = RandomInputs(bits, num_rows, num_blocks, 1);
        EXPECT_EQ(in.Found(), in.Expected())
            << bits << " bits, " << num_rows << " rows, " << num_blocks;
      }
    }
  }
}

TEST_P(LowBitDotsTest, TheLargestSumsFit) {
  for (const unsigned bits : {1u, 2u}) {
    for (const int sign : {1, -1}) {
      LowBitInputs in =
          RandomInputs(bits, 1, LowBitNumBlocks(bits, kLowBitMaxCols), 2);
      std::fill(in.rows.begin(), in.rows.end(), std::byte{0xFF});
      std::fill(in.a.begin(), in.a.end(),
                static_cast<int16_t>(sign * kLowBitMaxActivation));
      const int most = (1 << bits) - 1;
      EXPECT_EQ(in.Found()[0], sign * most * kLowBitMaxActivation *
                                   static_cast<int>(kLowBitMaxCols));
    }
  }
}

TEST(PutLowBitCodeTest, PutsEachCodeWhereItIsReadAndNowhereElse) {
  std::mt19937 random(3);
  for (const unsigned bits : {1u, 2u}) {
    const size_t num_codes = 3 * LowBitBlockCodes(bits);
    std::vector<std::byte> row(3 * kLowBitBlockBytes);
    std::vector<int> codes(num_codes);
    for (size_t k = 0; k < num_codes; ++k) {
      codes[k] = static_cast<int>(random() % (1u << bits));
      PutLowBitCode(bits, k, static_cast<unsigned>(codes[k]), row.data());
    }
    for (size_t k = 0; k < num_codes; ++k) {
      ASSERT_EQ(CodeAt(bits, row.data(), k), codes[k]) << k;
    }
  }
}

}  // namespace
}  // namespace flashelm
