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
#include <vector>

#include "hwy/highway.h"
#include "kernels/float_types.h"
#include "kernels/weight_view.h"

namespace flashelm {

inline constexpr double kEpsilon = std::numeric_limits<float>::epsilon();
inline constexpr double kLeastSubnormal =
    std::numeric_limits<float>::denorm_min();

// Whether MulAdd() on the target rounds once.
inline bool HasFma(int64_t target) {
  return target == HWY_AVX2 || target == HWY_AVX3 || target == HWY_AVX3_DL ||
         target == HWY_NEON;
}

// Runs each test on the target of its parameter.
class TargetTest : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
};

#define FLASHELM_TEST_ALL_TARGETS(suite)                      \
  INSTANTIATE_TEST_SUITE_P(                                   \
      AllTargets, suite,                                      \
      testing::ValuesIn(hwy::SupportedAndGeneratedTargets()), \
      [](const testing::TestParamInfo<int64_t>& target) {     \
        return std::string(hwy::TargetName(target.param));    \
      })

inline bool HaveEqualBits(const std::vector<float>& a,
                          const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() ||
          std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// Calls `run` on every target and expects the same bits from all those that
// have a fused multiply-add, and from all those that have none.
template <class Run>
void ExpectTargetsAgree(Run run) {
  for (const bool is_fused : {true, false}) {
    std::vector<float> first;
    int num_targets = 0;
    for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
      if (HasFma(target) != is_fused) continue;
      SCOPED_TRACE(hwy::TargetName(target));
      hwy::SetSupportedTargetsForTest(target);
      const std::vector<float> result = run();
      hwy::SetSupportedTargetsForTest(0);
      if (num_targets++ == 0) first = result;
      EXPECT_TRUE(HaveEqualBits(result, first));
    }
    if (is_fused && num_targets < 2) {
      GTEST_SKIP() << num_targets << " targets with a fused multiply-add";
    }
  }
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

// The bits of the elements in the format of `type`.
inline std::vector<std::byte> Encode(const std::vector<float>& values,
                                     WeightType type) {
  std::vector<std::byte> bytes(values.size() * ElementBytes(type));
  for (size_t i = 0; i < values.size(); ++i) {
    if (type == WeightType::kBf16) {
      const Bf16 element = Bf16FromF32(values[i]);
      std::memcpy(bytes.data() + i * sizeof(element), &element,
                  sizeof(element));
    } else {
      std::memcpy(bytes.data() + i * sizeof(float), &values[i], sizeof(float));
    }
  }
  return bytes;
}

// A random matrix whose rows begin `gap_bytes` after the one before ended.
class RandomWeights {
 public:
  RandomWeights(size_t num_rows, size_t num_cols, WeightType type,
                uint32_t seed, size_t gap_bytes = 0, size_t offset_bytes = 0)
      : row_bytes_(num_cols * ElementBytes(type)),
        offset_bytes_(offset_bytes),
        stride_bytes_(row_bytes_ + gap_bytes),
        type_(type),
        // NaN in all formats where no element is.
        bytes_(offset_bytes + num_rows * stride_bytes_ + 1, std::byte{0xFF}) {
    const std::vector<std::byte> elements =
        Encode(RandomFloats(num_rows * num_cols, seed), type);
    for (size_t r = 0; r < num_rows && row_bytes_ > 0; ++r) {
      std::memcpy(bytes_.data() + offset_bytes + r * stride_bytes_,
                  elements.data() + r * row_bytes_, row_bytes_);
    }
  }

  WeightView view(size_t row = 0, size_t col = 0) const {
    return {bytes_.data() + offset_bytes_ + row * stride_bytes_ +
                col * ElementBytes(type_),
            stride_bytes_, type_};
  }

 private:
  size_t row_bytes_;
  size_t offset_bytes_;
  size_t stride_bytes_;
  WeightType type_;
  std::vector<std::byte> bytes_;
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
