#include "kernels/simd.h"

#include <cstdlib>

#include "kernels/cpu.h"
#include "tests/kernels/kernel_test.h"

namespace flashelm {
namespace {

TEST(SimdTest, NamesTheBestTargetThatIsCompiledInAndSupported) {
  const std::vector<int64_t> targets = hwy::SupportedAndGeneratedTargets();
  if (targets.empty()) GTEST_SKIP() << "the CPU has none of them";
  EXPECT_EQ(SimdTargetName(), CpuHasDotProduct()
                                  ? "NEON_DOTPROD"
                                  : hwy::TargetName(targets.front()));
}

// In an emulator it is known what the CPU has.
TEST(SimdTest, FindsTheDotProduct) {
  const char* cpu = std::getenv("QEMU_CPU");
  const std::string_view name = cpu != nullptr ? cpu : "";
  if (name == "cortex-a72") {
    EXPECT_FALSE(CpuHasDotProduct());
  } else if (name.starts_with("max")) {
    EXPECT_TRUE(CpuHasDotProduct());
  } else {
    GTEST_SKIP() << "nobody said which CPU this is";
  }
}

TEST(SimdTest, ListsTheBestTargetFirst) {
  const std::vector<std::string_view> names = SimdTargets();
  ASSERT_FALSE(names.empty());
  EXPECT_EQ(names.front(), SimdTargetName());
}

TEST(SimdTest, RefusesTargetsThatDoNotExist) {
  for (const char* name : {"AVX9", "avx2", "Unknown"}) {
    EXPECT_FALSE(UseSimdTarget(name)) << name;
  }
  EXPECT_EQ(SimdTargetName(), SimdTargets().front());
}

TEST(SimdTest, UsesTheTargetChosen) {
  const std::vector<std::string_view> names = SimdTargets();
  for (const std::string_view name : names) {
    EXPECT_TRUE(UseSimdTarget(name));
    EXPECT_EQ(SimdTargetName(), name);
    EXPECT_EQ(SimdTargets(), std::vector<std::string_view>{name});
    EXPECT_EQ(UsesDotProduct(), name == "NEON_DOTPROD");
    EXPECT_EQ(SimdArithmeticName(), name == "NEON_DOTPROD" ? "NEON" : name);
    for (const std::string_view other : names) {
      EXPECT_EQ(UseSimdTarget(other), other == name) << other;
    }
    EXPECT_TRUE(UseSimdTarget(""));
  }
  EXPECT_EQ(SimdTargets(), names);
  EXPECT_EQ(UsesDotProduct(), CpuHasDotProduct());
}

TEST(SimdTest, NamesWhatRunsWhereTheCpuHasNoTargetThatWasCompiled) {
  // A target of another architecture alone, as ARM CPUs without AES have none.
  hwy::SetSupportedTargetsForTest(HWY_WASM);
  const std::string_view name = hwy::TargetName(HWY_STATIC_TARGET);
  std::vector<std::string_view> names{name};
  if (CpuHasDotProduct()) names.insert(names.begin(), "NEON_DOTPROD");
  EXPECT_EQ(SimdTargetName(), names.front());
  EXPECT_EQ(SimdTargets(), names);
  EXPECT_TRUE(UseSimdTarget(name));
  EXPECT_EQ(SimdTargetName(), name);
  EXPECT_TRUE(UseSimdTarget(""));
  hwy::SetSupportedTargetsForTest(0);
}

class SimdTargetTest : public TargetTest {};
FLASHELM_TEST_ALL_TARGETS(SimdTargetTest);

TEST_P(SimdTargetTest, FollowsTheTargetChosenForATest) {
  EXPECT_EQ(SimdTargetName(), GetParam());
}

}  // namespace
}  // namespace flashelm
