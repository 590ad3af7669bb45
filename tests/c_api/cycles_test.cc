#include "tests/c_api/cycles.h"

#include <gtest/gtest.h>

namespace flashelm::test {
namespace {

// With a sanitizer, which looks closer and is slow, a hundred will do.
#ifdef FLASHELM_SANITIZED
constexpr int kCycles = 100;
#else
constexpr int kCycles = 1000;
#endif

TEST(CApiManyCyclesTest, AThousandCyclesLeaveNothing) {
  ExpectNothingIsLeftAfter(kCycles);
}

}  // namespace
}  // namespace flashelm::test
