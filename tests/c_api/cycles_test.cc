#include "tests/c_api/cycles.h"

#include <gtest/gtest.h>

namespace flashelm::test {
namespace {

TEST(CApiManyCyclesTest, AThousandCyclesLeaveNothing) {
  ExpectNothingIsLeftAfter(1000);
}

}  // namespace
}  // namespace flashelm::test
