#include "kernels/attention.h"

#include "kernels/reference.h"
#include "tests/kernels/kernel_test.h"

namespace flashelm {
namespace {

constexpr KvType kKvTypes[] = {KvType::kF32, KvType::kBf16};

struct KvShape {
  size_t num_heads;
  size_t num_positions;
  size_t head_dim;
};

constexpr KvShape kKvShapes[] = {
    {0, 3, 64},   {4, 1, 64},   {4, 1, 1},    {1, 63, 64},   {4, 63, 3},
    {4, 64, 64},  {3, 64, 31},  {4, 65, 64},  {5, 65, 32},   {2, 65, 33},
    {4, 127, 0},  {4, 200, 64}, {9, 200, 80}, {4, 333, 128}, {4, 129, 1024},
    {4, 256, 64}, {4, 257, 64}, {5, 511, 32}, {4, 513, 31},  {4, 1030, 128},
};

std::vector<std::byte> StoredKv(const std::vector<float>& values, KvType type) {
  std::vector<std::byte> bytes(values.size() * ElementBytes(type));
  StoreKv(values.data(), values.size(), type, bytes.data());
  return bytes;
}

struct KvInputs {
  KvInputs(const KvShape& shape, KvType kv_type, float magnitude = 1)
      : s(shape),
        type(kv_type),
        scale(1 / std::sqrt(static_cast<float>(s.head_dim) + 1)),
        q(RandomFloats(s.num_heads * s.head_dim, /*seed=*/1, magnitude)),
        keys(StoredKv(
            RandomFloats(s.num_positions * s.head_dim, /*seed=*/2, magnitude),
            type)),
        values(StoredKv(RandomFloats(s.num_positions * s.head_dim, /*seed=*/3),
                        type)) {}

  KvShape s;
  KvType type;
  float scale;
  std::vector<float> q;
  std::vector<std::byte> keys;
  std::vector<std::byte> values;
};

// A workspace whose old contents must not matter.
std::vector<float> Parts(size_t num_heads, size_t num_positions,
                         size_t head_dim) {
  return std::vector<float>(NumAttentionSegments(num_positions) *
                                AttentionPartFloats(num_heads, head_dim),
                            std::numeric_limits<float>::quiet_NaN());
}

std::vector<float> RunAttend(const KvInputs& in) {
  // What the output held before must not matter.
  std::vector<float> out(in.q.size(), std::numeric_limits<float>::quiet_NaN());
  std::vector<float> parts =
      Parts(in.s.num_heads, in.s.num_positions, in.s.head_dim);
  Attend(in.q.data(), in.s.num_heads, in.type, in.keys.data(), in.values.data(),
         in.s.num_positions, in.s.head_dim, in.scale, parts.data(), out.data());
  return out;
}

std::vector<double> RunKvReference(const KvInputs& in,
                                   const std::vector<float>& q,
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
  for (const KvType type : kKvTypes) {
    for (const KvShape& s : kKvShapes) {
      for (const float magnitude : {0.1f, 1.0f, 10.0f}) {
        SCOPED_TRACE(testing::Message()
                     << s.num_heads << " heads of " << s.head_dim << ", "
                     << s.num_positions << " positions, " << magnitude);
        const KvInputs in(s, type, magnitude);
        const std::vector<float> out = RunAttend(in);
        const std::vector<double> expected =
            RunKvReference(in, in.q, in.keys, in.values);
        const std::vector<double> mix =
            RunKvReference(in, in.q, in.keys, Magnitudes(in.values, type));
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
            static_cast<double>(s.num_positions) / 256 + 320;
        for (size_t i = 0; i < out.size(); ++i) {
          ASSERT_NEAR(out[i], expected[i], terms * kEpsilon * mix[i]) << i;
        }
      }
    }
  }
}

TEST_P(AttendTest, HeadsTogetherHaveTheBitsOfEachAlone) {
  for (const KvType type : kKvTypes) {
    for (const KvShape& s : kKvShapes) {
      SCOPED_TRACE(testing::Message()
                   << s.num_heads << " heads of " << s.head_dim << ", "
                   << s.num_positions << " positions");
      const KvInputs in(s, type);
      const std::vector<float> together = RunAttend(in);
      for (size_t group = 1; group < s.num_heads; ++group) {
        std::vector<float> split(together.size());
        for (size_t h = 0; h < s.num_heads; h += group) {
          const size_t heads = std::min(group, s.num_heads - h);
          std::vector<float> parts = Parts(heads, s.num_positions, s.head_dim);
          Attend(in.q.data() + h * s.head_dim, heads, type, in.keys.data(),
                 in.values.data(), s.num_positions, s.head_dim, in.scale,
                 parts.data(), split.data() + h * s.head_dim);
        }
        EXPECT_TRUE(HaveEqualBits(split, together)) << "groups of " << group;
      }
    }
  }
}

// e^x for x <= 0 as kernels have it: of two positions with the scores 0 and x,
// the second alone has a value.
float KernelExp(float x) {
  const float q = 1;
  const float keys[] = {0, x};
  const float values[] = {0, 1};
  std::vector<float> part = Parts(1, 2, 1);
  AttendSegment(&q, 1, KvType::kF32, keys, values, 2, 1, 1.0f, part.data());
  return part[0];
}

TEST_P(AttendTest, ExpIsWithinAnEpsilon) {
  for (int step = 0; step <= 110 * 64; ++step) {
    const float x = -static_cast<float>(step) / 64;
    const double exact = std::exp(static_cast<double>(x));
    ASSERT_NEAR(KernelExp(x), exact, kEpsilon * exact + kLeastSubnormal) << x;
  }
  EXPECT_EQ(KernelExp(0), 1.0f);
  EXPECT_EQ(KernelExp(-104.5f), 0.0f);
  EXPECT_EQ(KernelExp(std::numeric_limits<float>::lowest()), 0.0f);
}

// The canonical order of attention.h to the letter. `is_fused` as in
// reference::CanonicalDot().
std::vector<float> CanonicalAttend(const KvInputs& in, bool is_fused) {
  const auto fma = [&](float a, float b, float c) {
    const float product = a * b;
    return is_fused ? std::fma(a, b, c) : product + c;
  };
  const WeightType element =
      in.type == KvType::kBf16 ? WeightType::kBf16 : WeightType::kF32;
  const size_t head_dim = in.s.head_dim;
  const size_t stride = ElementsBytes(element, head_dim);
  const WeightView keys = {in.keys.data(), stride, element, nullptr};
  const WeightView values = {in.values.data(), stride, element, nullptr};
  std::vector<float> out(in.q.size());
  for (size_t h = 0; h < in.s.num_heads; ++h) {
    const float* q = in.q.data() + h * head_dim;
    std::vector<float> maxima, sums;
    std::vector<std::vector<float>> mixes;
    for (size_t first = 0; first < in.s.num_positions; first += 256) {
      const size_t count = std::min<size_t>(256, in.s.num_positions - first);
      std::vector<float> p(count);
      for (size_t t = 0; t < count; ++t) {
        p[t] = reference::CanonicalDot(keys, first + t, head_dim, q, is_fused) *
               in.scale;
      }
      maxima.push_back(*std::max_element(p.begin(), p.end()));
      std::vector<float> partials(32), mix(head_dim);
      for (size_t t = 0; t < count; ++t) {
        p[t] = KernelExp(p[t] - maxima.back());
        partials[t % 32] += p[t];
        for (size_t d = 0; d < head_dim; ++d) {
          mix[d] = fma(p[t], reference::WeightAt(values, first + t, d), mix[d]);
        }
      }
      for (size_t half = 16; half > 0; half /= 2) {
        for (size_t i = 0; i < half; ++i) partials[i] += partials[i + half];
      }
      sums.push_back(partials[0]);
      mixes.push_back(mix);
    }
    const float max = *std::max_element(maxima.begin(), maxima.end());
    float total = 0;
    float* o = out.data() + h * head_dim;
    for (size_t s = 0; s < sums.size(); ++s) {
      const float f = KernelExp(maxima[s] - max);
      total = fma(sums[s], f, total);
      for (size_t d = 0; d < head_dim; ++d) o[d] = fma(mixes[s][d], f, o[d]);
    }
    for (size_t d = 0; d < head_dim; ++d) o[d] /= total;
  }
  return out;
}

TEST_P(AttendTest, HasTheBitsOfTheCanonicalOrder) {
  for (const KvType type : kKvTypes) {
    for (const KvShape& s : kKvShapes) {
      SCOPED_TRACE(testing::Message()
                   << s.num_heads << " heads of " << s.head_dim << ", "
                   << s.num_positions << " positions");
      const KvInputs in(s, type, 3);
      EXPECT_TRUE(HaveEqualBits(RunAttend(in),
                                CanonicalAttend(in, HasFma(GetParam()))));
    }
  }
}

TEST_P(AttendTest, OnePositionGivesItsValue) {
  for (const KvType type : kKvTypes) {
    const KvInputs in({2, 1, 35}, type);
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
  constexpr size_t kPositions = 600;
  for (const float magnitude : {1e3f, 1e18f, 1e36f}) {
    for (const size_t winner : {0, 63, 64, 255, 256, 599}) {
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
             kHeadDim, 1.0f, Parts(1, kPositions, kHeadDim).data(), out.data());
      EXPECT_EQ(out, std::vector<float>(kHeadDim, static_cast<float>(winner)));
    }
  }
}

TEST_P(AttendTest, EqualScoresGiveTheMean) {
  const size_t n = 530;
  const std::vector<float> q(8), keys(n * 8), ones(n * 8, 1.0f);
  std::vector<float> out(8);
  Attend(q.data(), 1, KvType::kF32, keys.data(), ones.data(), n, 8, 1.0f,
         Parts(1, n, 8).data(), out.data());
  EXPECT_EQ(out, std::vector<float>(8, 1.0f));
}

TEST_P(AttendTest, ReadsNothingPastTheEnds) {
  for (const KvType type : kKvTypes) {
    for (const size_t head_dim : {1, 3, 15, 16, 31, 33, 64, 65}) {
      for (const size_t num_positions : {1, 63, 65, 257}) {
        const KvInputs in({5, num_positions, head_dim}, type);
        const GuardedCopy q(in.q), keys(in.keys), values(in.values),
            out(std::vector<float>(in.q.size())),
            parts(Parts(in.s.num_heads, num_positions, head_dim));
        Attend(q.floats(), in.s.num_heads, type, keys.bytes(), values.bytes(),
               num_positions, head_dim, in.scale, parts.floats(), out.floats());
        const std::vector<float> expected = RunAttend(in);
        EXPECT_TRUE(HaveEqualBits(
            std::vector<float>(out.floats(), out.floats() + expected.size()),
            expected));
      }
    }
  }
}

TEST(AttendTargetsTest, TargetsWithFusedMultiplyAddAgreeBitForBit) {
  StoredAnswers bits("kernel_bits/attention");
  for (const KvType type : kKvTypes) {
    for (const KvShape& s : kKvShapes) {
      const KvInputs in(s, type, 3);
      ExpectTargetsAgree([&] { return RunAttend(in); }, bits);
    }
  }
  ExpectStoredBits(bits);
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
