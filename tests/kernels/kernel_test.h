// What the tests of several kernels share: targets, random arrays, bit
// comparison, and arrays that end where memory ends.
#ifndef FLASHELM_TESTS_KERNELS_KERNEL_TEST_H_
#define FLASHELM_TESTS_KERNELS_KERNEL_TEST_H_

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "hwy/highway.h"
#include "kernels/float_types.h"
#include "kernels/simd.h"
#include "kernels/weight_view.h"
#include "tests/stored_answers.h"

namespace flashelm {

inline constexpr double kEpsilon = std::numeric_limits<float>::epsilon();
inline constexpr double kLeastSubnormal =
    std::numeric_limits<float>::denorm_min();

// Whether MulAdd() on the target rounds once.
inline bool HasFma(std::string_view target) {
  return target == "AVX2" || target.starts_with("AVX3") ||
         target.starts_with("NEON");
}

inline constexpr WeightType kFloatTypes[] = {WeightType::kF32,
                                             WeightType::kBf16};
inline constexpr WeightType kQuantTypes[] = {WeightType::kQ8, WeightType::kQ4};

// Of a product of a matrix and a batch of tokens.
struct MatrixShape {
  const char* name;
  size_t num_rows;
  size_t num_cols;
  size_t num_tokens;
};
// Strides with room between the tokens, so that a wrong one shows.
inline constexpr size_t kStrideGap = 3;

// Runs each test on the target of its parameter.
class TargetTest : public testing::TestWithParam<std::string_view> {
 protected:
  void SetUp() override { ASSERT_TRUE(UseSimdTarget(GetParam())); }
  void TearDown() override { UseSimdTarget(""); }
};

#define FLASHELM_TEST_ALL_TARGETS(suite)                           \
  INSTANTIATE_TEST_SUITE_P(                                        \
      AllTargets, suite, testing::ValuesIn(SimdTargets()),         \
      [](const testing::TestParamInfo<std::string_view>& target) { \
        return std::string(target.param);                          \
      })

inline bool HaveEqualBits(const std::vector<float>& a,
                          const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() ||
          std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// Calls `run` on every target and expects the same bits from all those that
// have a fused multiply-add, which are added to `bits`, and from all those that
// have none.
template <class Run>
void ExpectTargetsAgree(Run run, StoredAnswers& bits) {
  for (const bool is_fused : {true, false}) {
    std::vector<float> first;
    int num_targets = 0;
    for (const std::string_view target : SimdTargets()) {
      if (HasFma(target) != is_fused) continue;
      SCOPED_TRACE(target);
      ASSERT_TRUE(UseSimdTarget(target));
      const std::vector<float> result = run();
      UseSimdTarget("");
      if (num_targets++ == 0) first = result;
      EXPECT_TRUE(HaveEqualBits(result, first));
    }
    if (is_fused && num_targets > 0) bits.Add(first);
  }
}

// And the same bits from other processors.
inline void ExpectStoredBits(StoredAnswers& bits) {
  if (bits.is_empty()) GTEST_SKIP() << "no fused multiply-add here";
  bits.ExpectStored();
}

inline std::vector<float> RandomFloats(size_t n, uint32_t seed,
                                       float magnitude = 1) {
  std::mt19937 random(seed);
  std::vector<float> values(n);
  for (float& value : values) {
    const auto bits = static_cast<int32_t>(static_cast<uint32_t>(random()));
    value = magnitude * static_cast<float>(bits) * 0x1p-31f;
  }
  return values;
}

// A batch whose tokens are kStrideGap apart.
inline std::vector<float> RandomTokens(const MatrixShape& shape,
                                       uint32_t seed) {
  return RandomFloats(shape.num_tokens * (shape.num_cols + kStrideGap), seed);
}

// A random matrix whose rows begin `gap_bytes` after the one before ended.
// Rows of a quantized one are whole groups.
class RandomWeights {
 public:
  RandomWeights(size_t num_rows, size_t num_cols, WeightType type,
                uint32_t seed, size_t gap_bytes = 0, size_t offset_bytes = 0)
      : num_cols_(num_cols),
        offset_bytes_(offset_bytes),
        stride_bytes_(RowBytes(type, num_cols) + gap_bytes),
        type_(type),
        // NaN in all formats where no element is.
        bytes_(offset_bytes + num_rows * stride_bytes_ + 1, std::byte{0xFF}) {
    std::mt19937 random(seed);
    const std::vector<float> values = RandomFloats(num_rows * num_cols, seed);
    for (size_t r = 0; r < num_rows; ++r) {
      std::byte* row = bytes_.data() + offset_bytes + r * stride_bytes_;
      for (size_t c = 0; c < num_cols; ++c) {
        Put(row, c, values[r * num_cols + c], random);
      }
    }
  }

  WeightView view(size_t row = 0, size_t col = 0) const {
    return Submatrix(ViewOfRows(bytes_.data() + offset_bytes_, stride_bytes_,
                                type_, num_cols_),
                     row, col);
  }

 private:
  void Put(std::byte* row, size_t col, float value, std::mt19937& random) {
    switch (type_) {
      case WeightType::kF32:
        std::memcpy(row + col * sizeof(value), &value, sizeof(value));
        return;
      case WeightType::kBf16: {
        const Bf16 element = Bf16FromF32(value);
        std::memcpy(row + col * sizeof(element), &element, sizeof(element));
        return;
      }
      case WeightType::kQ8:  // From -128 to 119.
        row[col] = static_cast<std::byte>(random() % 248 + 128);
        break;
      case WeightType::kQ4:
        if (col % 2 == 0) row[col / 2] = static_cast<std::byte>(random());
        break;
    }
    if (col % kQuantGroup == 0) {
      // Of either sign, from 2^-7 to 2^-4.
      const auto scale =
          static_cast<F16>((random() & 0x8000) | (0x2000 + random() % 0x0C00));
      std::memcpy(row + ElementsBytes(type_, num_cols_) +
                      col / kQuantGroup * sizeof(scale),
                  &scale, sizeof(scale));
    }
  }

  size_t num_cols_;
  size_t offset_bytes_;
  size_t stride_bytes_;
  WeightType type_;
  std::vector<std::byte> bytes_;
};

// The high nibbles of q8 weights with their scales: as q4, and as q8 whose low
// nibbles are 0. A file could hold both halves in planes of their own.
class HighNibbles {
 public:
  HighNibbles(const WeightView& q8, size_t num_rows, size_t num_cols)
      : num_cols_(num_cols),
        q4_(num_rows * RowBytes(WeightType::kQ4, num_cols)),
        q8_(num_rows * RowBytes(WeightType::kQ8, num_cols)) {
    const size_t scales_bytes = ScalesBytes(WeightType::kQ8, num_cols);
    for (size_t r = 0; r < num_rows; ++r) {
      const std::byte* from = Submatrix(q8, r, 0).data;
      std::byte* to_q4 = q4_.data() + r * RowBytes(WeightType::kQ4, num_cols);
      std::byte* to_q8 = q8_.data() + r * RowBytes(WeightType::kQ8, num_cols);
      for (size_t k = 0; k < num_cols; ++k) {
        const int code = static_cast<int8_t>(from[k]);
        const int n = (code + 8 + 128) >> 4;
        to_q8[k] = static_cast<std::byte>(16 * (n - 8));
        const size_t half = k % kQuantGroup / (kQuantGroup / 2);
        to_q4[k / kQuantGroup * (kQuantGroup / 2) + k % (kQuantGroup / 2)] |=
            static_cast<std::byte>(n << 4 * half);
      }
      const std::byte* scales = Submatrix(q8, r, 0).scales;
      std::memcpy(to_q4 + ElementsBytes(WeightType::kQ4, num_cols), scales,
                  scales_bytes);
      std::memcpy(to_q8 + ElementsBytes(WeightType::kQ8, num_cols), scales,
                  scales_bytes);
    }
  }

  WeightView q4() const { return View(q4_, WeightType::kQ4); }
  WeightView q8() const { return View(q8_, WeightType::kQ8); }

 private:
  WeightView View(const std::vector<std::byte>& bytes, WeightType type) const {
    return ViewOfRows(bytes.data(), RowBytes(type, num_cols_), type, num_cols_);
  }

  size_t num_cols_;
  std::vector<std::byte> q4_;
  std::vector<std::byte> q8_;
};

// A copy of an array that ends at the last byte of a page, before a page that
// cannot be read.
class GuardedCopy {
 public:
  GuardedCopy(const void* from, size_t num_bytes) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t used = (num_bytes / page + 1) * page;
    mapped_bytes_ = used + page;
    mapping_ = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping_ == MAP_FAILED) std::abort();
    auto* bytes = static_cast<std::byte*>(mapping_);
    if (mprotect(bytes + used, page, PROT_NONE) != 0) std::abort();
    data_ = bytes + used - num_bytes;
    if (num_bytes > 0) std::memcpy(data_, from, num_bytes);
  }
  explicit GuardedCopy(const std::vector<float>& values)
      : GuardedCopy(values.data(), values.size() * sizeof(float)) {}
  explicit GuardedCopy(const std::vector<std::byte>& bytes)
      : GuardedCopy(bytes.data(), bytes.size()) {}
  GuardedCopy(const GuardedCopy&) = delete;
  GuardedCopy& operator=(const GuardedCopy&) = delete;
  ~GuardedCopy() { munmap(mapping_, mapped_bytes_); }

  std::byte* bytes() const { return data_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }

 private:
  void* mapping_;
  size_t mapped_bytes_;
  std::byte* data_;
};

}  // namespace flashelm

#endif  // FLASHELM_TESTS_KERNELS_KERNEL_TEST_H_
