#include "tests/c_api/cycles.h"

#include <gtest/gtest.h>

namespace flashelm::test {
namespace {

// In an emulator, where a hundred take two minutes, these will do.
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
