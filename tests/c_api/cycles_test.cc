#include "tests/c_api/cycles.h"

#include <gtest/gtest.h>

namespace flashelm::test {
namespace {

// In an emulator, where they would take an hour, a hundred will do.
#ifdef FLASHELM_FOREIGN_MEMORY
constexpr int kCycles = 100;
#else
constexpr int kCycles = 1000;
#endif

TEST(CApiManyCyclesTest, AThousandCyclesLeaveNothing) {
  ExpectNothingIsLeftAfter(kCycles);
}

}  // namespace
}  // namespace flashelm::test
