#include "kernels/quantize.h"

#include "kernels/reference.h"
#include "tests/kernels/kernel_test.h"

namespace flashelm {
namespace {

const char* Name(WeightType type) {
  return type == WeightType::kQ8 ? "q8" : "q4";
}
int Least(WeightType type) { return type == WeightType::kQ8 ? -128 : -8; }
int Most(WeightType type) { return type == WeightType::kQ8 ? 119 : 7; }
double Unit(WeightType type) {
  return type == WeightType::kQ8 ? 1.0 / 16 : 1.0;
}

// A row and how to look at it.
struct Row {
  WeightType type;
  size_t num_elements;
  std::vector<std::byte> bytes;
  QuantizationError error;

  WeightView view() const {
    return ViewOfRows(bytes.data(), bytes.size(), type, num_elements);
  }
  float Value(size_t i) const { return reference::WeightAt(view(), 0, i); }
  int Code(size_t i) const { return reference::CodeAt(view(), 0, i); }
  float Scale(size_t i) const { return reference::ScaleAt(view(), 0, i); }
};

Row Quantize(WeightType type, const std::vector<float>& values) {
  // All ones where nothing was written.
  Row row{
      type,
      values.size(),
      std::vector<std::byte>(RowBytes(type, values.size()), std::byte{0xFF}),
      {}};
  row.error = QuantizeRow(type, values.data(), values.size(), row.bytes.data());
  return row;
}

// Groups of many kinds, one after the other.
std::vector<float> ManyGroups() {
  std::vector<float> values;
  const auto add = [&](const std::vector<float>& group) {
    values.insert(values.end(), group.begin(), group.end());
  };
  std::mt19937 random(3);
  for (uint32_t i = 0; i < 200; ++i) {
    add(RandomFloats(kQuantGroup, i));
    std::vector<float> group(kQuantGroup);
    // Sums of three are bell-shaped; cubes have long tails.
    for (float& value : group) {
      const std::vector<float> parts =
          RandomFloats(3, static_cast<uint32_t>(random()));
      value = parts[0] + parts[1] + parts[2];
    }
    add(group);
    for (float& value : group) value = value * value * value;
    add(group);
    for (float& value : group) value = std::abs(value);  // One-sided.
    add(group);
    for (float& value : group) value = 1e-6f * value - 2e-6f;
    add(group);
    for (float& value : group) value *= 1e10f;
    add(group);
  }
  add(std::vector<float>(kQuantGroup, 0.3f));  // All equal.
  add(std::vector<float>(kQuantGroup, -7e4f));
  for (const size_t place : {0, 15, 16, 31}) {  // All but one are zero.
    std::vector<float> group(kQuantGroup);
    group[place] = place % 2 == 0 ? 1.7f : -1.7f;
    add(group);
  }
  return values;
}

// The squared error of a group with a given scale and the nearest codes.
double ErrorWithScale(WeightType type, const float* values, float scale) {
  double sum = 0;
  for (size_t i = 0; i < kQuantGroup; ++i) {
    double code = 0;
    if (scale != 0) {
      code =
          std::clamp<double>(std::nearbyint(values[i] / (scale * Unit(type))),
                             Least(type), Most(type));
    }
    const double error = values[i] - code * scale * Unit(type);
    sum += error * error;
  }
  return sum;
}

double ErrorOf(const Row& row, const float* values, size_t first,
               size_t count) {
  double sum = 0;
  for (size_t i = first; i < first + count; ++i) {
    const double error = static_cast<double>(values[i]) - row.Value(i);
    sum += error * error;
  }
  return sum;
}

class QuantizeTest : public TargetTest {};
FLASHELM_TEST_ALL_TARGETS(QuantizeTest);

TEST_P(QuantizeTest, NoGroupIsWorseThanWithItsExtremeOnAnEndOfTheCodes) {
  const std::vector<float> values = ManyGroups();
  for (const WeightType type : kQuantTypes) {
    SCOPED_TRACE(Name(type));
    const Row row = Quantize(type, values);
    double found_sum = 0;
    double plain_sum = 0;
    for (size_t at = 0; at < values.size(); at += kQuantGroup) {
      const float extreme = *std::max_element(
          &values[at], &values[at] + kQuantGroup,
          [](float a, float b) { return std::abs(a) < std::abs(b); });
      double plain = std::numeric_limits<double>::infinity();
      for (const int end : {Least(type), Most(type)}) {
        const auto scale = static_cast<float>(extreme / (end * Unit(type)));
        plain = std::min(plain, ErrorWithScale(type, &values[at],
                                               F32FromF16(F16FromF32(scale))));
      }
      const double found = ErrorOf(row, values.data(), at, kQuantGroup);
      // What is compared are sums in float.
      EXPECT_LE(found, plain * (1 + 64 * kEpsilon)) << "group at " << at;
      found_sum += found;
      plain_sum += plain;
    }
    // And the search is worth its while.
    EXPECT_LT(found_sum, 0.95 * plain_sum);
  }
}

TEST_P(QuantizeTest, ReportsTheErrorOfWhatItStored) {
  const std::vector<float> values = ManyGroups();
  double squared_sum = 0;
  for (const float value : values) {
    squared_sum += static_cast<double>(value) * value;
  }
  for (const WeightType type : kQuantTypes) {
    SCOPED_TRACE(Name(type));
    const Row row = Quantize(type, values);
    const double expected = ErrorOf(row, values.data(), 0, values.size());
    EXPECT_NEAR(row.error.squared_error, expected, 64 * kEpsilon * expected);
    EXPECT_NEAR(row.error.squared_sum, squared_sum,
                64 * kEpsilon * squared_sum);
  }
}

TEST_P(QuantizeTest, ValuesOfTheFormatComeBackExactly) {
  std::mt19937 random(5);
  for (const WeightType type : kQuantTypes) {
    SCOPED_TRACE(Name(type));
    for (const float scale :
         {1.0f, -1.0f, 0.0546875f, -1e3f, 5e4f, 0x1p-24f, -0x1p-24f}) {
      for (const bool to_the_least : {true, false}) {
        // A code at one end, and none beyond it in magnitude.
        const int end = to_the_least ? Least(type) : Most(type);
        const int limit = std::min(std::abs(end), Most(type));
        std::vector<float> values(kQuantGroup);
        std::vector<int> codes(kQuantGroup);
        for (size_t i = 0; i < kQuantGroup; ++i) {
          codes[i] = static_cast<int>(random() % (2 * limit + 1)) - limit;
          if (i == 7) codes[i] = end;
          values[i] = static_cast<float>(codes[i] * Unit(type)) *
                      F32FromF16(F16FromF32(scale));
        }
        const Row row = Quantize(type, values);
        EXPECT_EQ(row.error.squared_error, 0);
        for (size_t i = 0; i < kQuantGroup; ++i) {
          EXPECT_EQ(row.Value(i), values[i]) << "scale " << scale;
        }
      }
    }
  }
}

TEST_P(QuantizeTest, TheHighNibblesOfQ8AreAQ4Row) {
  const std::vector<float> values = ManyGroups();
  const Row q8 = Quantize(WeightType::kQ8, values);
  Row q4{WeightType::kQ4,
         values.size(),
         std::vector<std::byte>(RowBytes(WeightType::kQ4, values.size())),
         {}};
  // Codes, group by group; the scales are the same bytes.
  for (size_t i = 0; i < values.size(); ++i) {
    const int q = q8.Code(i);
    ASSERT_GE(q, -128);
    ASSERT_LE(q, 119);
    const auto n = static_cast<unsigned>((q + 8 + 128) >> 4);
    ASSERT_LE(n, 15u);
    const int l = q - 16 * (static_cast<int>(n) - 8);
    ASSERT_GE(l, -8);
    ASSERT_LE(l, 7);
    const size_t in_group = i % kQuantGroup;
    std::byte& both = q4.bytes[i / kQuantGroup * (kQuantGroup / 2) +
                               in_group % (kQuantGroup / 2)];
    both |= static_cast<std::byte>(in_group < kQuantGroup / 2 ? n : n << 4);
  }
  std::copy_n(q8.bytes.end() - static_cast<ptrdiff_t>(
                                   ScalesBytes(WeightType::kQ8, values.size())),
              ScalesBytes(WeightType::kQ8, values.size()),
              q4.bytes.begin() + static_cast<ptrdiff_t>(ElementsBytes(
                                     WeightType::kQ4, values.size())));
  for (size_t i = 0; i < values.size(); ++i) {
    const float d = q8.Scale(i);
    const int n = (q8.Code(i) + 8 + 128) >> 4;
    ASSERT_EQ(q4.Value(i), static_cast<float>(16 * (n - 8)) * (d / 16)) << i;
    // What the low nibble would have added.
    ASSERT_LE(std::abs(q8.Value(i) - q4.Value(i)), std::abs(d / 2)) << i;
  }
}

// docs/FILE_FORMAT.md has these bytes.
TEST_P(QuantizeTest, WritesTheExampleOfTheFileFormat) {
  std::vector<float> values;
  std::vector<std::byte> q4;
  std::vector<std::byte> q8;
  for (int i = 0; i < 32; ++i) {
    const int n = i < 16 ? i : 31 - i;
    values.push_back(static_cast<float>(n - 8) / 4);
    q8.push_back(static_cast<std::byte>(16 * (n - 8)));
    if (i < 16) q4.push_back(static_cast<std::byte>(i | (15 - i) << 4));
  }
  EXPECT_EQ(q4.front(), std::byte{0xF0});
  EXPECT_EQ(q8.front(), std::byte{0x80});
  for (std::vector<std::byte>* row : {&q4, &q8}) {
    row->insert(row->end(), {std::byte{0x00}, std::byte{0x34}});
  }
  EXPECT_EQ(Quantize(WeightType::kQ4, values).bytes, q4);
  EXPECT_EQ(Quantize(WeightType::kQ8, values).bytes, q8);
}

TEST_P(QuantizeTest, ZerosHaveTheScaleZeroAndTheCodesOfZero) {
  for (const WeightType type : kQuantTypes) {
    for (const float zero : {0.0f, -0.0f}) {
      const Row row = Quantize(type, std::vector<float>(2 * kQuantGroup, zero));
      const std::byte code =
          type == WeightType::kQ8 ? std::byte{0} : std::byte{0x88};
      const size_t num_codes = ElementsBytes(type, 2 * kQuantGroup);
      for (size_t i = 0; i < row.bytes.size(); ++i) {
        EXPECT_EQ(row.bytes[i], i < num_codes ? code : std::byte{0});
      }
      EXPECT_EQ(row.error.squared_error, 0);
      EXPECT_EQ(row.error.squared_sum, 0);
    }
  }
}

TEST_P(QuantizeTest, TheLargestValuesStayFiniteAndTheSmallestBecomeZero) {
  for (const WeightType type : kQuantTypes) {
    SCOPED_TRACE(Name(type));
    for (const float sign : {1.0f, -1.0f}) {
      std::vector<float> values = RandomFloats(kQuantGroup, 1, kMaxQuantized);
      values[3] = sign * kMaxQuantized;
      values[4] = std::nextafter(sign * kMaxQuantized, 0.0f);
      const Row large = Quantize(type, values);
      for (size_t i = 0; i < kQuantGroup; ++i) {
        EXPECT_NEAR(large.Value(i), values[i], 65504 * Unit(type) / 2);
      }
      // Half of the least step, and just more of it.
      const auto half = static_cast<float>(0x1p-25 * Unit(type));
      const Row small =
          Quantize(type, std::vector<float>(kQuantGroup, sign * half));
      EXPECT_EQ(small.Scale(0), 0);
      const Row larger =
          Quantize(type, std::vector<float>(kQuantGroup, sign * half * 1.25f));
      EXPECT_EQ(larger.Value(0), sign * 2 * half);
    }
  }
}

TEST_P(QuantizeTest, WritesItsRowAndNothingElseAtAnyAddress) {
  const std::vector<float> values = RandomFloats(3 * kQuantGroup, 9);
  for (const WeightType type : kQuantTypes) {
    const Row expected = Quantize(type, values);
    const GuardedCopy in(values);
    for (const size_t offset : {0, 1, 7}) {
      const std::vector<std::byte> blank(offset + expected.bytes.size(),
                                         std::byte{0x5A});
      const GuardedCopy out(blank);
      QuantizeRow(type, in.floats(), values.size(), out.bytes() + offset);
      EXPECT_EQ(std::memcmp(out.bytes(), blank.data(), offset), 0);
      EXPECT_EQ(std::memcmp(out.bytes() + offset, expected.bytes.data(),
                            expected.bytes.size()),
                0);
    }
  }
}

// Also those without a fused multiply-add: a file does not depend on the
// machine that converted it.
TEST(QuantizeTargetsTest, AllTargetsGiveTheSameBytesAndErrors) {
  const std::vector<float> values = ManyGroups();
  for (const WeightType type : kQuantTypes) {
    std::vector<Row> rows;
    for (const std::string_view target : SimdTargets()) {
      SCOPED_TRACE(target);
      ASSERT_TRUE(UseSimdTarget(target));
      rows.push_back(Quantize(type, values));
      UseSimdTarget("");
      EXPECT_EQ(rows.back().bytes, rows[0].bytes);
      EXPECT_EQ(rows.back().error.squared_error, rows[0].error.squared_error);
      EXPECT_EQ(rows.back().error.squared_sum, rows[0].error.squared_sum);
    }
    if (rows.size() < 2) GTEST_SKIP() << "one target only";
  }
}

}  // namespace
}  // namespace flashelm
