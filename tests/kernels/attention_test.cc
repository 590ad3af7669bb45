#include "kernels/attention.h"

#include "kernels/reference.h"
#include "tests/kernels/kernel_test.h"

namespace flashelm {
namespace {

constexpr KvType kTypes[] = {KvType::kF32, KvType::kBf16};

struct Shape {
  size_t num_heads;
  size_t num_positions;
  size_t head_dim;
};

constexpr Shape kShapes[] = {
    {0, 3, 64},  {4, 1, 64},   {4, 1, 1},    {1, 63, 64},   {4, 63, 3},
    {4, 64, 64}, {3, 64, 31},  {4, 65, 64},  {5, 65, 32},   {2, 65, 33},
    {4, 127, 0}, {4, 200, 64}, {9, 200, 80}, {4, 333, 128}, {4, 129, 1024},
};

std::vector<std::byte> StoredKv(const std::vector<float>& values, KvType type) {
  std::vector<std::byte> bytes(values.size() * ElementBytes(type));
  StoreKv(values.data(), values.size(), type, bytes.data());
  return bytes;
}

struct Inputs {
  Inputs(const Shape& shape, KvType kv_type, float magnitude = 1)
      : s(shape),
        type(kv_type),
        scale(1 / std::sqrt(static_cast<float>(s.head_dim) + 1)),
        q(RandomFloats(s.num_heads * s.head_dim, /*seed=*/1, magnitude)),
        keys(StoredKv(
            RandomFloats(s.num_positions * s.head_dim, /*seed=*/2, magnitude),
            type)),
        values(StoredKv(RandomFloats(s.num_positions * s.head_dim, /*seed=*/3),
                        type)) {}

  Shape s;
  KvType type;
  float scale;
  std::vector<float> q;
  std::vector<std::byte> keys;
  std::vector<std::byte> values;
};

std::vector<float> RunAttend(const Inputs& in) {
  // What the output held before must not matter.
  std::vector<float> out(in.q.size(), std::numeric_limits<float>::quiet_NaN());
  Attend(in.q.data(), in.s.num_heads, in.type, in.keys.data(), in.values.data(),
         in.s.num_positions, in.s.head_dim, in.scale, out.data());
  return out;
}

std::vector<double> RunReference(const Inputs& in, const std::vector<float>& q,
                                 const std::vector<std::byte>& keys,
                                 const std::vector<std::byte>& values) {
  std::vector<double> out(q.size());
  reference::Attend(q.data(), in.s.num_heads, in.type, keys.data(),
                    values.data(), in.s.num_positions, in.s.head_dim, in.scale,
                    out.data());
  return out;
}

std::vector<std::byte> Magnitudes(std::vector<std::byte> kv, KvType type) {
  const size_t bytes = ElementBytes(type);  // The sign is in the last one.
  for (size_t i = bytes - 1; i < kv.size(); i += bytes) {
    kv[i] &= std::byte{0x7F};
  }
  return kv;
}

class AttendTest : public TargetTest {};
FLASHELM_TEST_ALL_TARGETS(AttendTest);

TEST_P(AttendTest, StaysWithinTheErrorBoundOfTheReference) {
  for (const KvType type : kTypes) {
    for (const Shape& s : kShapes) {
      for (const float magnitude : {0.1f, 1.0f, 10.0f}) {
        SCOPED_TRACE(testing::Message()
                     << s.num_heads << " heads of " << s.head_dim << ", "
                     << s.num_positions << " positions, " << magnitude);
        const Inputs in(s, type, magnitude);
        const std::vector<float> out = RunAttend(in);
        const std::vector<double> expected =
            RunReference(in, in.q, in.keys, in.values);
        const std::vector<double> mix =
            RunReference(in, in.q, in.keys, Magnitudes(in.values, type));
        // |q| . |k_t| of every head and position, [num_heads, num_positions].
        std::vector<float> abs_q = in.q;
        for (float& x : abs_q) x = std::abs(x);
        const std::vector<std::byte> abs_keys = Magnitudes(in.keys, type);
        std::vector<double> dots(s.num_heads * s.num_positions);
        reference::MatMul(
            {abs_keys.data(), s.head_dim * ElementBytes(type),
             type == KvType::kBf16 ? WeightType::kBf16 : WeightType::kF32},
            s.num_positions, s.head_dim, abs_q.data(), s.head_dim, s.num_heads,
            dots.data(), s.num_positions);
        const double max_dot =
            dots.empty()
                ? 0
                : in.scale * *std::max_element(dots.begin(), dots.end());
        const double terms =
            (static_cast<double>(s.head_dim) / 16 + 20) * max_dot +
            static_cast<double>(s.num_positions) / 16 + 64;
        for (size_t i = 0; i < out.size(); ++i) {
          ASSERT_NEAR(out[i], expected[i], terms * kEpsilon * mix[i]) << i;
        }
      }
    }
  }
}

TEST_P(AttendTest, HeadsTogetherHaveTheBitsOfEachAlone) {
  for (const KvType type : kTypes) {
    for (const Shape& s : kShapes) {
      SCOPED_TRACE(testing::Message()
                   << s.num_heads << " heads of " << s.head_dim << ", "
                   << s.num_positions << " positions");
      const Inputs in(s, type);
      const std::vector<float> together = RunAttend(in);
      for (size_t group = 1; group < s.num_heads; ++group) {
        std::vector<float> split(together.size());
        for (size_t h = 0; h < s.num_heads; h += group) {
          Attend(in.q.data() + h * s.head_dim, std::min(group, s.num_heads - h),
                 type, in.keys.data(), in.values.data(), s.num_positions,
                 s.head_dim, in.scale, split.data() + h * s.head_dim);
        }
        EXPECT_TRUE(HaveEqualBits(split, together)) << "groups of " << group;
      }
    }
  }
}

TEST_P(AttendTest, OnePositionGivesItsValue) {
  for (const KvType type : kTypes) {
    const Inputs in({2, 1, 35}, type);
    const std::vector<float> out = RunAttend(in);
    for (size_t i = 0; i < out.size(); ++i) {
      float value;
      if (type == KvType::kBf16) {
        Bf16 bits;
        std::memcpy(&bits, in.values.data() + i % 35 * 2, sizeof(bits));
        value = F32FromBf16(bits);
      } else {
        std::memcpy(&value, in.values.data() + i % 35 * 4, sizeof(value));
      }
      EXPECT_EQ(out[i], value);
    }
  }
}

TEST_P(AttendTest, HugeScoresPickTheirPositionWithoutOverflow) {
  // The winner is 100 or more times `magnitude` ahead of all others.
  constexpr size_t kHeadDim = 32;
  constexpr size_t kPositions = 200;
  for (const float magnitude : {1e3f, 1e18f, 1e36f}) {
    for (const size_t winner : {0, 63, 64, 130, 199}) {
      SCOPED_TRACE(testing::Message() << magnitude << " at " << winner);
      std::vector<float> q(kHeadDim), keys(kPositions * kHeadDim),
          values(kPositions * kHeadDim), out(kHeadDim);
      q[0] = magnitude;
      for (size_t t = 0; t < kPositions; ++t) {
        keys[t * kHeadDim] = t == winner ? 100.0f : -static_cast<float>(t % 7);
        for (size_t d = 0; d < kHeadDim; ++d) {
          values[t * kHeadDim + d] = static_cast<float>(t);
        }
      }
      Attend(q.data(), 1, KvType::kF32, keys.data(), values.data(), kPositions,
             kHeadDim, 1.0f, out.data());
      EXPECT_EQ(out, std::vector<float>(kHeadDim, static_cast<float>(winner)));
    }
  }
}

TEST_P(AttendTest, EqualScoresGiveTheMean) {
  const size_t n = 130;
  const std::vector<float> q(8), keys(n * 8), ones(n * 8, 1.0f);
  std::vector<float> out(8);
  Attend(q.data(), 1, KvType::kF32, keys.data(), ones.data(), n, 8, 1.0f,
         out.data());
  EXPECT_EQ(out, std::vector<float>(8, 1.0f));
}

TEST_P(AttendTest, ReadsNothingPastTheEnds) {
  for (const KvType type : kTypes) {
    for (const size_t head_dim : {1, 3, 15, 16, 31, 33, 64, 65}) {
      for (const size_t num_positions : {1, 63, 64, 65}) {
        const Inputs in({5, num_positions, head_dim}, type);
        const GuardedCopy q(in.q), keys(in.keys), values(in.values),
            out(std::vector<float>(in.q.size()));
        Attend(q.floats(), in.s.num_heads, type, keys.bytes(), values.bytes(),
               num_positions, head_dim, in.scale, out.floats());
        const std::vector<float> expected = RunAttend(in);
        EXPECT_TRUE(HaveEqualBits(
            std::vector<float>(out.floats(), out.floats() + expected.size()),
            expected));
      }
    }
  }
}

TEST(AttendTargetsTest, TargetsWithFusedMultiplyAddAgreeBitForBit) {
  for (const KvType type : kTypes) {
    for (const Shape& s : kShapes) {
      const Inputs in(s, type, 3);
      ExpectTargetsAgree([&] { return RunAttend(in); });
    }
  }
}

TEST(StoreKvTest, RoundsToBf16OrKeepsTheBits) {
  const std::vector<float> in = RandomFloats(37, /*seed=*/9);
  std::vector<Bf16> bf16(in.size());
  StoreKv(in.data(), in.size(), KvType::kBf16, bf16.data());
  for (size_t i = 0; i < in.size(); ++i) {
    EXPECT_EQ(bf16[i], Bf16FromF32(in[i]));
  }
  std::vector<float> f32(in.size());
  StoreKv(in.data(), in.size(), KvType::kF32, f32.data());
  EXPECT_TRUE(HaveEqualBits(f32, in));
  StoreKv(nullptr, 0, KvType::kF32, nullptr);
}

}  // namespace
}  // namespace flashelm
