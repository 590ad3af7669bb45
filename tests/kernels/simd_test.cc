#include "kernels/simd.h"

#include "tests/kernels/kernel_test.h"

namespace flashelm {
namespace {

TEST(SimdTest, NamesTheBestTargetThatIsCompiledInAndSupported) {
  EXPECT_EQ(SimdTargetName(),
            hwy::TargetName(hwy::SupportedAndGeneratedTargets().front()));
}

class SimdTargetTest : public TargetTest {};
FLASHELM_TEST_ALL_TARGETS(SimdTargetTest);

TEST_P(SimdTargetTest, FollowsTheTargetChosenForATest) {
  EXPECT_EQ(SimdTargetName(), hwy::TargetName(GetParam()));
}

}  // namespace
}  // namespace flashelm
